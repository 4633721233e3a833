//! `bindings.mqtt3`: a topic of an MQTT 3.1.1 server. What is published to it is an event; `create` publishes.
//!
//! There is one session to read, as `<consumerID>-consumer`, and one to publish, as `<consumerID>-producer`, each made
//! when it is first needed.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::{
    sync::OnceCell,
    task::JoinSet,
    time::{self, Instant},
};
use trilby_component::{
    CancellationToken, ComponentError, ErrorKind, Metadata, OpenRequest, Properties, Result,
    binding::{Binding, Event, InputBinding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding, Reading, Sink},
};

use crate::{
    mqtt::{Client, Endpoint, Feed, Identity, Incoming, Qos},
    tls,
};

/// Request metadata that names another topic.
const TOPIC: &str = "topic";
/// Most events that are handled at the same time.
const AT_ONCE: usize = 100;
/// Between two attempts to have an event handled.
const PAUSE: Duration = Duration::from_secs(5);
/// Attempts to publish after the first, and the pause between them, as Dapr has them.
const RETRIES: usize = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long publishing may take in all.
const LIMIT: Duration = Duration::from_secs(20);

/// Metadata of the component, besides `caCert`, `clientCert` and `clientKey`. `qos` is accepted and has no effect: it
/// is 1.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    /// `mqtt://user:password@host:port`, or `mqtts` for TLS. Required.
    url: String,
    /// Where events come from, with wildcards, and where `create` publishes to. Required.
    topic: String,
    /// The first part of the client ids. Required.
    #[serde(rename = "consumerID")]
    consumer_id: String,
    /// Whether the server keeps the last message for whoever subscribes later. Default: false.
    retain: bool,
    /// Whether the server forgets what it has for us when the connection ends. Default: false.
    clean_session: bool,
    /// How often an event that was not handled is offered again, after 5 s each; less than 0 is for ever. After that
    /// the server offers it over the next connection. Default: 0.
    back_off_max_retries: i64,
}

impl Config {
    fn parse(properties: &Properties) -> Result<Self> {
        let config: Self = properties.parse()?;
        for (name, value) in [("url", &config.url), ("topic", &config.topic), ("consumerID", &config.consumer_id)] {
            if value.is_empty() {
                return Err(ComponentError::metadata(format!("missing {name}")));
            }
        }
        Ok(config)
    }
}

/// Reads the settings; connections are made when they are needed.
///
/// # Errors
/// `InvalidMetadata`.
pub async fn open(request: OpenRequest) -> Result<Arc<Binding>> {
    let config = Config::parse(&request.properties)?;
    let endpoint = Endpoint::new(&config.url, &tls::Settings::parse(&request.properties)?)?;
    let binding = Arc::new(Mqtt { endpoint, config, producer: OnceCell::new() });
    Ok(Arc::new(Binding { input: Some(binding.clone()), output: Some(binding) }))
}

struct Mqtt {
    endpoint: Endpoint,
    config: Config,
    producer: OnceCell<Client>,
}

impl Mqtt {
    async fn connect(&self, role: &str) -> Result<Client> {
        let client_id = format!("{}-{role}", self.config.consumer_id);
        let identity = Identity { client_id, clean_session: self.config.clean_session };
        Client::open(self.endpoint.clone(), identity).await
    }

    async fn producer(&self) -> Result<&Client> {
        self.producer.get_or_try_init(|| self.connect("producer")).await
    }
}

#[async_trait]
impl OutputBinding for Mqtt {
    fn operations(&self) -> &[&'static str] {
        &["create"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        let topic = request.metadata.get(TOPIC).filter(|topic| !topic.is_empty()).unwrap_or(&self.config.topic);
        let (start, mut attempt) = (Instant::now(), 0);
        let publish = async || {
            let producer = self.producer().await?;
            producer.publish(topic, request.data.clone(), Qos::AtLeastOnce, self.config.retain).await
        };
        while let Err(error) = publish().await {
            attempt += 1;
            if attempt > RETRIES || error.kind() != ErrorKind::Unavailable || start.elapsed() > LIMIT {
                return Err(error.into());
            }
            time::sleep(RETRY_PAUSE).await;
        }
        Ok(InvokeResponse::default())
    }

    async fn ping(&self) -> Result<()> {
        self.producer().await?.ping()
    }

    async fn close(&self) {
        if let Some(producer) = self.producer.get() {
            producer.close().await;
        }
    }
}

#[async_trait]
impl InputBinding for Mqtt {
    async fn read(&self, sink: Arc<dyn Sink>, stop: CancellationToken) -> Result<Reading> {
        let client = Arc::new(self.connect("consumer").await?);
        let feed = client.subscribe(&self.config.topic, Qos::AtLeastOnce).await?;
        let reader = Arc::new(Reader { client, sink, stop, retries: self.config.back_off_max_retries });
        Ok(Box::pin(reader.run(feed)))
    }
}

/// What reads the topic, over a connection of its own.
struct Reader {
    client: Arc<Client>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
    retries: i64,
}

impl Reader {
    async fn run(self: Arc<Self>, mut feed: Feed) -> Result<()> {
        let mut in_hand = JoinSet::new();
        loop {
            let has_room = in_hand.len() < AT_ONCE;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(_) = in_hand.join_next(), if !in_hand.is_empty() => {}
                next = feed.next(), if has_room => match next {
                    Some(message) => {
                        in_hand.spawn(Arc::clone(&self).handle(message));
                    }
                    None => break,
                },
            }
        }
        while in_hand.join_next().await.is_some() {}
        // The server keeps the subscription, and what comes meanwhile, until it is read again.
        self.client.close().await;
        Ok(())
    }

    async fn handle(self: Arc<Self>, message: Incoming) {
        let Incoming { topic, payload, receipt, .. } = message;
        let event = Event { data: payload, content_type: None, metadata: Metadata::from([(TOPIC.to_owned(), topic)]) };
        let mut attempt = 0;
        while self.sink.deliver(event.clone()).await.is_err() {
            if self.retries >= 0 && attempt >= self.retries {
                return;
            }
            attempt += 1;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = time::sleep(PAUSE) => {}
            }
        }
        if let Some(receipt) = receipt {
            self.client.acknowledge(receipt).await;
        }
    }
}
