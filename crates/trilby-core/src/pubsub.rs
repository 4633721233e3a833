//! The pub/sub block: publishing to topics, and delivering what arrives to the app.
//!
//! Publishing is in this file. A message that arrives goes through [`delivery`]: envelope, expiry, route, the app under
//! the inbound policy, dead letters. Which topics are subscribed to is decided in [`subscription`].

mod broker;
mod content_type;
mod delivery;
mod envelope;
mod errors;
mod event;
mod json;
mod outbox;
mod routing;
mod scopes;
mod stream;
mod subscriber;
mod subscription;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use trilby_component::{
    ComponentError, Metadata,
    pubsub::{BulkPublishRequest, PubSub, PublishRequest},
};

use crate::{
    Ctx, Error, Result,
    ctx::{self, Trace},
    wiring::Wiring,
};

use broker::Broker;
use envelope::Sender;
use errors::Target;
use subscriber::Subscriber;

pub use delivery::{BulkDelivery, BulkEntry, Delivery, Outcome};
pub use event::{Event, MalformedEvent};
pub use outbox::{OUTBOX_CONTENT_TYPE, Outbox, OutboxComponent, OutboxSettings};
pub use scopes::Scopes;
pub use stream::{EventStream, StreamRequest, StreamedEvent};
pub use subscription::{Origin, Route, Rule, Subscription};

/// A broker that is open, and what this app may do with it.
pub struct PubSubComponent {
    /// The resource's name.
    pub name: String,
    /// The broker.
    pub broker: Arc<dyn PubSub>,
    /// Topics that the app may use.
    pub scopes: Scopes,
    /// Put in front of every topic name: the namespace, if the component's metadata uses `{namespace}`. Default none.
    pub topic_prefix: String,
}

/// Publishes one event.
#[derive(Debug, Clone, Default)]
pub struct Publish {
    /// The topic, without prefix.
    pub topic: String,
    /// The event's data; a whole CloudEvent if `content_type` says so.
    pub data: Bytes,
    /// Media type of `data`. Empty means `text/plain`.
    pub content_type: String,
    /// `rawPayload`, `ttlInSeconds`, `cloudevent.*`, and what the broker understands.
    pub metadata: Metadata,
}

/// One event of several: an id that must be there, and once only; the rest as in [`Publish`].
pub use trilby_component::pubsub::BulkEntry as PublishEntry;

/// Publishes several events to one topic.
#[derive(Debug, Clone, Default)]
pub struct BulkPublish {
    /// The topic, without prefix.
    pub topic: String,
    /// The events, in order.
    pub entries: Vec<PublishEntry>,
    /// For all of them.
    pub metadata: Metadata,
}

/// An event of a bulk publish that was not published.
#[derive(Debug)]
pub struct FailedEntry {
    /// The caller's name for it.
    pub entry_id: String,
    /// Why.
    pub error: ComponentError,
}

/// The pub/sub block of one app. Its other half, what comes to the app, is in [`subscriber`].
#[derive(Default)]
pub struct PubSubApi {
    app_id: String,
    brokers: HashMap<String, Arc<Broker>>,
    /// By state store.
    outboxes: HashMap<String, Arc<Outbox>>,
    subscriber: Subscriber,
}

impl PubSubApi {
    /// A block over the brokers that the app may use, with the subscriptions that resources declare.
    pub fn new(
        wiring: &Wiring<'_>,
        brokers: impl IntoIterator<Item = PubSubComponent>,
        declared: Vec<Subscription>,
    ) -> Self {
        let open = |component: PubSubComponent| (component.name.clone(), Arc::new(Broker::new(wiring, component)));
        Self {
            app_id: wiring.app.id.clone(),
            brokers: brokers.into_iter().map(open).collect(),
            outboxes: HashMap::new(),
            subscriber: Subscriber::new(declared),
        }
    }

    /// Adds the outboxes of the state stores that the app may use.
    #[must_use]
    pub fn with_outboxes(mut self, wiring: &Wiring<'_>, outboxes: impl IntoIterator<Item = OutboxComponent>) -> Self {
        for component in outboxes {
            let name = component.name.clone();
            let outbox = Outbox::new(wiring, component, |pubsub| self.brokers.get(pubsub).cloned());
            self.outboxes.insert(name, outbox);
        }
        self
    }

    /// The outbox of a state store, if it has one.
    #[must_use]
    pub fn outbox(&self, store: &str) -> Option<Arc<Outbox>> {
        self.outboxes.get(store).cloned()
    }

    /// Publishes an event.
    ///
    /// # Errors
    /// [`Code::PubSubNameEmpty`], [`Code::PubSubNotFound`], [`Code::PubSubTopicEmpty`], [`Code::PubSubMetadata`];
    /// [`Code::PubSubCloudEvent`] if the content type says that it is one; [`Code::PubSubForbidden`];
    /// [`Code::PubSubPublish`] if the broker does not take it.
    pub async fn publish(&self, ctx: &Ctx, pubsub: &str, publish: Publish) -> Result<()> {
        let Publish { topic, data, content_type, mut metadata } = publish;
        let (broker, raw) = self.target(pubsub, &topic, &metadata)?;
        let data = if raw {
            add_trace(&mut metadata, &ctx.trace);
            data
        } else {
            let wrapped = envelope::wrap(&self.sender(ctx, broker, &topic), &content_type, &data, &metadata);
            wrapped.map_err(|reason| self.named(pubsub, &topic).not_a_cloud_event(reason))?
        };
        if !broker.scopes.allow_publishing(&topic) {
            return Err(self.named(pubsub, &topic).forbidden());
        }

        // As in Dapr a broker is told no media type: it could say that of the envelope only.
        let content_type = String::new();
        let request = PublishRequest { topic: broker.complete(topic), data, content_type, metadata };
        let published = broker.publish(ctx, &request).await;
        published.map_err(|cause| self.named(pubsub, broker.strip(&request.topic)).publish(&cause))
    }

    /// Publishes several events; what could not be published is in the answer, with its reason.
    ///
    /// # Errors
    /// As [`publish`](Self::publish) but for the last, and [`Code::PubSubEntryId`]: nothing at all was tried then.
    pub async fn bulk_publish(&self, ctx: &Ctx, pubsub: &str, publish: BulkPublish) -> Result<Vec<FailedEntry>> {
        let BulkPublish { topic, entries, metadata } = publish;
        let (broker, raw) = self.target(pubsub, &topic, &metadata)?;
        let target = self.named(pubsub, &topic);
        let mut ids = HashSet::with_capacity(entries.len());
        if !entries.iter().all(|entry| !entry.entry_id.is_empty() && ids.insert(entry.entry_id.as_str())) {
            return Err(target.entry_id());
        }
        let sender = self.sender(ctx, broker, &topic);
        let entries = entries.into_iter().map(|mut entry| {
            // Dapr's quirk: metadata of the request reach only entries that have some of their own.
            if !entry.metadata.is_empty() {
                for (name, value) in &metadata {
                    entry.metadata.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            if !raw {
                // As in `publish`: the envelope says what the data is.
                let content_type = std::mem::take(&mut entry.content_type);
                entry.data = envelope::wrap(&sender, &content_type, &entry.data, &entry.metadata)?;
            }
            Ok(entry)
        });
        let entries: serde_json::Result<Vec<_>> = entries.collect();
        let entries = entries.map_err(|reason| target.not_a_cloud_event(reason))?;
        if !broker.scopes.allow_publishing(&topic) {
            return Err(target.forbidden());
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }

        let names: Vec<_> = entries.iter().map(|entry| entry.entry_id.clone()).collect();
        let request = BulkPublishRequest { topic: broker.complete(topic), entries, metadata };
        let Err(mut failed) = broker.bulk_publish(ctx, request).await else { return Ok(Vec::new()) };
        failed.sort_unstable_by_key(|(position, _)| *position);
        let failed = failed
            .into_iter()
            .filter_map(|(position, error)| Some(FailedEntry { entry_id: names.get(position)?.clone(), error }));
        Ok(failed.collect())
    }

    /// Whether a request can be served, as far as that can be said before its body is read. Doors ask first, as Dapr
    /// does.
    ///
    /// # Errors
    /// As the first four of [`publish`](Self::publish).
    pub fn check(&self, pubsub: &str, topic: &str, metadata: &Metadata) -> Result<()> {
        self.target(pubsub, topic, metadata).map(drop)
    }

    /// The error of a publish that failed for `reason`: a door could not read the data, or says of a bulk publish that
    /// it failed as a whole.
    #[must_use]
    pub fn publish_error(&self, pubsub: &str, topic: &str, reason: &str) -> Error {
        self.named(pubsub, topic).publish_text(reason)
    }

    /// The error of a bulk publish whose entries a door cannot read.
    #[must_use]
    pub fn unreadable_entries(&self, pubsub: &str, topic: &str, reason: impl fmt::Display) -> Error {
        self.named(pubsub, topic).entries(reason)
    }

    /// The error of a bulk publish with an entry that is not what its content type says.
    #[must_use]
    pub fn unreadable_entry(&self, pubsub: &str, topic: &str, reason: impl fmt::Display) -> Error {
        self.named(pubsub, topic).entry_event(reason)
    }

    /// The broker, and whether the request is to be published as it is.
    fn target(&self, pubsub: &str, topic: &str, metadata: &Metadata) -> Result<(&Arc<Broker>, bool)> {
        let target = self.named(pubsub, topic);
        if pubsub.is_empty() {
            return Err(target.name_empty(metadata));
        }
        let broker = self.brokers.get(pubsub).ok_or_else(|| target.not_found(metadata))?;
        if topic.is_empty() {
            return Err(target.topic_empty(metadata));
        }
        let raw = is_raw(metadata).map_err(|reason| target.unreadable_metadata(reason, metadata))?;
        Ok((broker, raw))
    }

    fn named<'a>(&'a self, pubsub: &'a str, topic: &'a str) -> Target<'a> {
        Target { app_id: &self.app_id, pubsub, topic }
    }

    fn sender<'a>(&'a self, ctx: &'a Ctx, broker: &'a Broker, topic: &'a str) -> Sender<'a> {
        let (pubsub, broker_expires) = (broker.name(), broker.expires);
        Sender { app_id: &self.app_id, pubsub, topic, trace: &ctx.trace, broker_expires }
    }
}

/// Whether `rawPayload` says that data is neither put into a CloudEvent nor taken out of one.
///
/// # Errors
/// Dapr's sentence, if it is no boolean of Go's.
fn is_raw(metadata: &Metadata) -> Result<bool, String> {
    match metadata.get("rawPayload").map_or("", String::as_str) {
        "" | "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        other => Err(format!("rawPayload value must be a valid boolean: actual is '{other}'")),
    }
}

/// What cannot stand in an envelope goes beside the data.
fn add_trace(metadata: &mut Metadata, trace: &Trace) {
    let Some(parent) = trace.parent.as_ref().filter(|parent| **parent != ctx::UNTRACED) else { return };
    for (name, value) in [("traceid", Some(parent)), ("tracestate", trace.state.as_ref())] {
        if let Some(value) = value.and_then(|value| value.to_str().ok()) {
            metadata.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
