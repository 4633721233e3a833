//! `pubsub.mqtt3`: topics of an MQTT 3.1.1 server, with its wildcards.
//!
//! The consumer id is the client id: the server keeps a session under it, with what is published while the component is
//! away, and lets nobody else connect with it. A message is confirmed once it was handled. One that was not is offered
//! again here, after a pause that grows: the server would send it again over another connection only. A message that the
//! server retains says so in its metadata.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::{task::JoinSet, time};
use trilby_component::{
    CancellationToken, ComponentError, Metadata, OpenRequest, Properties, Result,
    properties::is_truthy,
    pubsub::{Feature, Message, PubSub, PublishRequest, Sink, SubscribeRequest, Subscription},
};

use crate::{
    mqtt::{Client, Endpoint, Feed, Identity, Incoming, Qos},
    tls,
};

/// Most messages of one subscription that are handled at the same time.
const AT_ONCE: usize = 100;
/// Pauses before a message is offered again, of which each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Metadata of the component, besides `caCert`, `clientCert` and `clientKey`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    /// `mqtt://user:password@host:port`, or `mqtts` for TLS. Required.
    url: String,
    /// The client id. The runtime sets it to the app's id where the metadata do not; no two connections can share it.
    #[serde(rename = "consumerID")]
    consumer_id: String,
    /// 0 for at most once, 1 for at least once, 2 for exactly once as far as the server. Default: 1.
    qos: Qos,
    /// Whether the server keeps the last message of each topic for whoever subscribes later. Default: false.
    retain: bool,
    /// Whether the server forgets subscriptions and messages when the connection ends. Default: false.
    clean_session: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            consumer_id: String::new(),
            qos: Qos::AtLeastOnce,
            retain: false,
            clean_session: false,
        }
    }
}

impl Config {
    fn parse(properties: &Properties) -> Result<Self> {
        let config: Self = properties.parse()?;
        if config.url.is_empty() {
            return Err(ComponentError::metadata("missing url"));
        }
        if config.consumer_id.is_empty() {
            return Err(ComponentError::metadata("missing consumerID"));
        }
        Ok(config)
    }
}

/// Connects.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn PubSub>> {
    let config = Config::parse(&request.properties)?;
    let endpoint = Endpoint::new(&config.url, &tls::Settings::parse(&request.properties)?)?;
    let identity = Identity { client_id: config.consumer_id.clone(), clean_session: config.clean_session };
    let client = Arc::new(Client::open(endpoint, identity).await?);
    Ok(Arc::new(Mqtt { client, config }))
}

struct Mqtt {
    client: Arc<Client>,
    config: Config,
}

#[async_trait]
impl PubSub for Mqtt {
    fn features(&self) -> &[Feature] {
        &[Feature::SubscribeWildcards]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<()> {
        let retain = match request.metadata.get("retain").map(String::as_str) {
            None | Some("") => self.config.retain,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some(other) => {
                return Err(ComponentError::request(format!("mqtt invalid retain {other}, expected true or false")));
            }
        };
        self.client.publish(&request.topic, request.data.clone(), self.config.qos, retain).await
    }

    async fn subscribe(
        &self,
        request: &SubscribeRequest,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Subscription> {
        let unsubscribe = request.metadata.get("unsubscribeOnClose").is_some_and(|text| is_truthy(text));
        let feed = self.client.subscribe(&request.topic, self.config.qos).await?;
        let reader = Reader {
            client: Arc::clone(&self.client),
            sink,
            stop,
            // Otherwise the server is to keep what comes until we are there again.
            unsubscribe: unsubscribe || self.config.clean_session,
        };
        Ok(Box::pin(reader.run(feed)))
    }

    async fn ping(&self) -> Result<()> {
        self.client.ping()
    }

    async fn close(&self) {
        self.client.close().await;
    }
}

/// What reads one subscription.
struct Reader {
    client: Arc<Client>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
    unsubscribe: bool,
}

impl Reader {
    async fn run(self, mut feed: Feed) -> Result<()> {
        let mut in_hand = JoinSet::new();
        loop {
            let has_room = in_hand.len() < AT_ONCE;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(_) = in_hand.join_next(), if !in_hand.is_empty() => {}
                next = feed.next(), if has_room => match next {
                    Some(message) => {
                        let (client, sink) = (Arc::clone(&self.client), Arc::clone(&self.sink));
                        in_hand.spawn(handle(client, sink, message, self.stop.clone()));
                    }
                    None => break,
                },
            }
        }
        feed.close();
        let mut rest = Vec::new();
        while let Some(outcome) = in_hand.join_next().await {
            rest.extend(outcome.ok().flatten());
        }
        self.client.detach(feed, rest, self.unsubscribe).await;
        Ok(())
    }
}

/// Offers a message until it is handled; gives it back if the subscription ends before.
async fn handle(
    client: Arc<Client>,
    sink: Arc<dyn Sink>,
    incoming: Incoming,
    stop: CancellationToken,
) -> Option<Incoming> {
    let metadata = Metadata::from([("retained".to_owned(), incoming.retained.to_string())]);
    let message =
        Message { topic: incoming.topic.clone(), data: incoming.payload.clone(), content_type: None, metadata };
    let mut pause = FIRST_PAUSE;
    while sink.deliver(message.clone()).await.is_err() {
        // A message that the server does not want confirmed comes once.
        incoming.receipt?;
        tokio::select! {
            () = stop.cancelled() => return Some(incoming),
            () = time::sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
        }
    }
    if let Some(receipt) = incoming.receipt {
        client.acknowledge(receipt).await;
    }
    None
}
