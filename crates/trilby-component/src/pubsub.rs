//! Pub/sub: what a broker must offer, what it is given, and where its messages go.
//!
//! A broker sees complete topic names and opaque bytes. CloudEvents, routing, retries, dead letters and scopes are the
//! block's; a broker only moves messages, and redelivers what was not handled.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    CancellationToken, Metadata,
    error::{ComponentError, Result},
};

/// Request metadata key for the life of a message in seconds.
pub const TTL_IN_SECONDS: &str = "ttlInSeconds";

/// What a broker can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// Messages can expire in the broker. Elsewhere the block drops them when they come out too late.
    MessageTtl,
    /// A subscription may name many topics by a pattern.
    SubscribeWildcards,
    /// Several messages can be published in one request.
    BulkPublish,
}

impl Feature {
    /// Dapr's name, as `/v1.0/metadata` lists it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MessageTtl => "MESSAGE_TTL",
            Self::SubscribeWildcards => "SUBSCRIBE_WILDCARDS",
            Self::BulkPublish => "BULK_PUBSUB",
        }
    }
}

/// Publishes one message.
#[derive(Debug, Clone, Default)]
pub struct PublishRequest {
    /// Complete topic name.
    pub topic: String,
    /// The message, as it goes over the wire.
    pub data: Bytes,
    /// Its media type; empty if nobody said.
    pub content_type: String,
    /// `ttlInSeconds` and what the broker understands besides, such as Kafka's `partitionKey`.
    pub metadata: Metadata,
}

/// One message of several.
#[derive(Debug, Clone, Default)]
pub struct BulkEntry {
    /// The caller's name for it, unique within the request.
    pub entry_id: String,
    /// The message, as it goes over the wire.
    pub data: Bytes,
    /// Its media type.
    pub content_type: String,
    /// As of [`PublishRequest`], for this message alone.
    pub metadata: Metadata,
}

/// Publishes several messages to one topic.
#[derive(Debug, Clone, Default)]
pub struct BulkPublishRequest {
    /// Complete topic name.
    pub topic: String,
    /// The messages, in order.
    pub entries: Vec<BulkEntry>,
    /// For all of them.
    pub metadata: Metadata,
}

/// The failures of a bulk publish, by position in the request. Never empty.
#[derive(Debug)]
pub struct BulkPublishError(pub Vec<(usize, ComponentError)>);

/// Opens a subscription.
#[derive(Debug, Clone, Default)]
pub struct SubscribeRequest {
    /// Complete topic name, or a pattern where the broker has [`Feature::SubscribeWildcards`].
    pub topic: String,
    /// What the broker understands.
    pub metadata: Metadata,
    /// Set if the app wants several messages at once. A broker that reads batches anyway gives them to
    /// [`Sink::deliver_bulk`]; others ignore this, and the block collects for them.
    pub bulk: Option<BulkSettings>,
}

/// How an app wants messages collected for bulk delivery. What it leaves open is the broker's to say, or the block's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BulkSettings {
    /// As [`Bulk::max_messages`].
    pub max_messages: Option<usize>,
    /// As [`Bulk::max_await`].
    pub max_await: Option<std::time::Duration>,
}

impl BulkSettings {
    /// What a subscription says, in messages and milliseconds. What is not positive is left open.
    #[must_use]
    pub fn new(max_messages: i64, max_await_ms: i64) -> Self {
        let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
        Self {
            max_messages: positive(max_messages).map(|number| usize::try_from(number).unwrap_or(usize::MAX)),
            max_await: positive(max_await_ms).map(std::time::Duration::from_millis),
        }
    }

    /// What it says, and `default` where that is nothing.
    #[must_use]
    pub fn or(self, default: Bulk) -> Bulk {
        Bulk {
            max_messages: self.max_messages.unwrap_or(default.max_messages),
            max_await: self.max_await.unwrap_or(default.max_await),
        }
    }
}

impl From<Bulk> for BulkSettings {
    fn from(Bulk { max_messages, max_await }: Bulk) -> Self {
        Self { max_messages: Some(max_messages), max_await: Some(max_await) }
    }
}

/// How messages are collected for bulk delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulk {
    /// Most messages at once. At least 1.
    pub max_messages: usize,
    /// Longest time that the first of them waits for the others.
    pub max_await: std::time::Duration,
}

/// Those of a broker that gives messages one by one: 100 messages, one second.
impl Default for Bulk {
    fn default() -> Self {
        Self { max_messages: 100, max_await: std::time::Duration::from_secs(1) }
    }
}

/// A message that came from a broker.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The topic that it was published to: with a wildcard, not the one that was subscribed to.
    pub topic: String,
    /// As it came over the wire.
    pub data: Bytes,
    /// Its media type, where the broker carries one.
    pub content_type: Option<String>,
    /// What the broker says about it, by Dapr's names for that broker.
    pub metadata: Metadata,
}

/// A message was not handled, and is for the broker to deliver again, or to give up, by its own rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotHandled(pub String);

impl std::fmt::Display for NotHandled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a broker's messages go. What it answers decides whether the broker may forget them.
///
/// It answers only when a message is settled, so a broker that awaits it before it reads on never has more messages in
/// hand than it wants to. It is cancel safe in one sense only: if the future is dropped, the message counts as not
/// handled, although the app may have seen it.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Hands on one message. `Ok` means that it is done with: acknowledge it.
    async fn deliver(&self, message: Message) -> Result<(), NotHandled>;

    /// Hands on several messages of one topic; answers in their order.
    async fn deliver_bulk(&self, messages: Vec<Message>) -> Vec<Result<(), NotHandled>>;
}

/// A subscription at work, owned by whoever opened it.
///
/// It ends soon after its token is cancelled: it takes no new message, waits for those that are being delivered, settles
/// them, and returns. It reconnects by itself; an error means that it gave up, and is to be opened anew.
pub type Subscription = BoxFuture<'static, Result<()>>;

/// A broker. Open it through the [`Catalog`](crate::Catalog); it is ready when `open` returns.
#[async_trait]
pub trait PubSub: Send + Sync {
    /// What this broker can do, fixed once it is open.
    fn features(&self) -> &[Feature];

    /// Whether every subscription gets every message, so that its `consumerID` means nothing. Apps of one process that
    /// differ in nothing else then share the broker.
    fn is_broadcast(&self) -> bool {
        false
    }

    /// Publishes one message. `Ok` means that the broker has it, as safely as it promises.
    async fn publish(&self, request: &PublishRequest) -> Result<()>;

    /// Publishes several messages. Some may fail while others are published.
    async fn bulk_publish(&self, request: &BulkPublishRequest) -> Result<(), BulkPublishError> {
        let mut failed = Vec::new();
        for (index, entry) in request.entries.iter().enumerate() {
            let single = PublishRequest {
                topic: request.topic.clone(),
                data: entry.data.clone(),
                content_type: entry.content_type.clone(),
                metadata: entry.metadata.clone(),
            };
            if let Err(error) = self.publish(&single).await {
                failed.push((index, error));
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(BulkPublishError(failed)) }
    }

    /// Opens a subscription: when this returns, what is published from then on will be delivered, once the future that
    /// it returns is polled.
    ///
    /// # Errors
    /// If the broker cannot be reached or refuses it.
    async fn subscribe(
        &self,
        request: &SubscribeRequest,
        sink: std::sync::Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Subscription>;

    /// Whether the broker answers.
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    /// Releases connections. Called once, after the last request and the last subscription.
    async fn close(&self) {}
}
