//! `bindings.rabbitmq`: one queue of RabbitMQ. What arrives in it is an event; `create` puts a message into it.
//!
//! Messages that go out survive a restart of the server, if the queue does, and `create` waits until the server has
//! taken charge of one. A message that was not handled goes back into the queue.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use lapin::{
    BasicProperties, Channel,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde::Deserialize;
use trilby_component::{
    CancellationToken, ComponentError, Metadata, OpenRequest, Properties, Result,
    binding::{Binding, Event, InputBinding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding, Reading, Sink},
    properties::duration,
};

use crate::{
    escape,
    rabbitmq::{
        self, Consumer, Endpoint, Link, PREFETCH, Publisher, Source, explain, header_text, name, properties_of,
    },
    tls, ttl,
};

/// AMQP's number for a message that is written to disk.
const PERSISTENT: u8 = 2;

/// Metadata of the component, besides `caCert`, `clientCert` and `clientKey`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    /// `amqp://user:password@host:port/vhost`, or `amqps` for TLS. Required.
    host: String,
    /// Required.
    queue_name: String,
    /// Whether only this connection may use the queue, which goes with it. Default: false.
    exclusive: bool,
    /// Whether the queue survives a restart of the server. Default: false.
    durable: bool,
    /// Whether the queue goes when its last reader does. Default: false.
    delete_when_unused: bool,
    /// Most messages that RabbitMQ sends ahead. Default: 256, where Dapr has no limit.
    prefetch_count: u16,
    /// Makes it a queue with priorities from 0 to this; more than 255 is 255. Default: none.
    max_priority: Option<u64>,
    /// Between two attempts to connect. Default: 5 s.
    #[serde(rename = "reconnectWaitInSeconds", with = "duration")]
    reconnect_wait: Duration,
    /// Whether the certificate is the login. Default: false.
    #[serde(alias = "saslExternal")]
    external_sasl: bool,
    /// Life of a message in the queue. Default: for ever.
    #[serde(skip)]
    default_ttl: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: String::new(),
            queue_name: String::new(),
            exclusive: false,
            durable: false,
            delete_when_unused: false,
            prefetch_count: 0,
            max_priority: None,
            reconnect_wait: Duration::from_secs(5),
            external_sasl: false,
            default_ttl: None,
        }
    }
}

impl Config {
    fn parse(properties: &Properties) -> Result<Self> {
        let mut config: Self = properties.parse()?;
        if config.host.is_empty() {
            return Err(ComponentError::metadata("missing host address"));
        }
        if config.queue_name.is_empty() {
            return Err(ComponentError::metadata("missing queue Name"));
        }
        let own = properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        config.default_ttl =
            ttl::parse(&own).map_err(|error| ComponentError::metadata(format!("failed to parse TTL: {error}")))?;
        Ok(config)
    }

    /// As Dapr's binding declares it, so that both can share it.
    fn queue(&self) -> Result<Queue> {
        let mut arguments = FieldTable::default();
        if let Some(life) = self.default_ttl {
            let millis = i32::try_from(life.as_millis()).unwrap_or(i32::MAX);
            arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(millis));
        }
        if let Some(priority) = self.max_priority {
            let priority = u8::try_from(priority).unwrap_or(u8::MAX);
            arguments.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(priority));
        }
        let options = QueueDeclareOptions {
            durable: self.durable,
            exclusive: self.exclusive,
            auto_delete: self.delete_when_unused,
            ..QueueDeclareOptions::default()
        };
        Ok(Queue { name: name("the name of the queue", &self.queue_name)?, options, arguments })
    }
}

/// Connects and declares the queue.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<Binding>> {
    let config = Config::parse(&request.properties)?;
    let mut endpoint = Endpoint::new(&config.host, &request.name, &tls::Settings::parse(&request.properties)?)?;
    if config.external_sasl && endpoint.is_secure() {
        endpoint = endpoint.with_certificate_login();
    }
    let link = Arc::new(Link::new(endpoint));
    let publisher = Publisher::new(Arc::clone(&link), true, config.reconnect_wait);
    let queue = config.queue()?;
    let channel = publisher.open().await?;
    channel.once(&config.queue_name, async |channel| queue.declare(channel).await).await.map_err(|e| explain(&e))?;
    let binding = Arc::new(RabbitMq { link, publisher, queue, config });
    Ok(Arc::new(Binding { input: Some(binding.clone()), output: Some(binding) }))
}

struct RabbitMq {
    link: Arc<Link>,
    publisher: Publisher,
    queue: Queue,
    config: Config,
}

#[derive(Clone)]
struct Queue {
    name: ShortString,
    options: QueueDeclareOptions,
    arguments: FieldTable,
}

impl Queue {
    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        channel.queue_declare(self.name.clone(), self.options, self.arguments.clone()).await.map(drop)
    }
}

#[async_trait]
impl OutputBinding for RabbitMq {
    fn operations(&self) -> &[&'static str] {
        &["create"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        let mut properties =
            properties_of(&request.metadata)?.with_delivery_mode(PERSISTENT).with_headers(headers(&request.metadata)?);
        let life = ttl::parse(&request.metadata)
            .map_err(|error| ComponentError::request(format!("failed to get TTL: {error}")))?;
        if let Some(life) = life {
            properties = properties.with_expiration(life.as_millis().to_string().into());
        }
        let send = |channel: Arc<rabbitmq::Channel>| {
            let properties = properties.clone();
            async move {
                // Anew on each channel: the server may have lost the queue when it was restarted.
                channel.once(&self.config.queue_name, async |channel| self.queue.declare(channel).await).await?;
                channel.publish("".into(), self.queue.name.clone(), &request.data, properties).await
            }
        };
        self.publisher.attempt(send).await?;
        Ok(InvokeResponse::default())
    }

    async fn ping(&self) -> Result<()> {
        self.link.ping().await
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

#[async_trait]
impl InputBinding for RabbitMq {
    async fn read(&self, sink: Arc<dyn Sink>, stop: CancellationToken) -> Result<Reading> {
        let consumer = Consumer {
            link: Arc::clone(&self.link),
            source: Arc::new(Events { queue: self.queue.clone(), sink }),
            stop,
            prefetch: if self.config.prefetch_count == 0 { PREFETCH } else { self.config.prefetch_count },
            // As Dapr: the next event waits for the one before.
            at_once: 1,
            auto_ack: false,
            requeue: true,
            reconnect_wait: self.config.reconnect_wait,
        };
        consumer.open().await
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

/// What arrives in the queue.
struct Events {
    queue: Queue,
    sink: Arc<dyn Sink>,
}

#[async_trait]
impl Source for Events {
    async fn declare(&self, channel: &Channel) -> lapin::Result<ShortString> {
        self.queue.declare(channel).await?;
        Ok(self.queue.name.clone())
    }

    async fn deliver(&self, data: Bytes, properties: BasicProperties) -> bool {
        let event = Event { data, content_type: None, metadata: metadata_of(&properties) };
        self.sink.deliver(event).await.is_ok()
    }
}

fn headers(metadata: &Metadata) -> Result<FieldTable> {
    let mut headers = FieldTable::default();
    for (key, value) in metadata {
        headers.insert(name("the name of a header", key)?, AMQPValue::LongString(value.as_str().into()));
    }
    Ok(headers)
}

/// Headers that are texts. Their names are escaped as in a query, since an HTTP app sees them as headers.
fn metadata_of(properties: &BasicProperties) -> Metadata {
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    let texts = headers.filter(|(_, value)| matches!(value, AMQPValue::LongString(_) | AMQPValue::ShortString(_)));
    texts.filter_map(|(name, value)| Some((escape::query(name.as_str()), header_text(value)?))).collect()
}
