//! `pubsub.rabbitmq`: each topic an exchange, each consumer id a queue `<consumerID>-<topic>` that is bound to it.
//!
//! Exchanges and queues are declared when they are first used, as Dapr declares them, so that both can share them. A
//! message that was not handled is dropped, goes back into its queue (`requeueInFailure`) or to the queue
//! `dlq-<queue>` (`enableDeadLetter`). In what RabbitMQ sends ahead there is always a limit, so that a slow app slows
//! the queue down and not this process.

mod config;
mod queue;

use std::sync::Arc;

use async_trait::async_trait;
use lapin::{
    ExchangeKind,
    options::ExchangeDeclareOptions,
    types::{FieldTable, ShortString},
};
use trilby_component::{
    CancellationToken, ComponentError, OpenRequest, Result,
    pubsub::{Feature, PubSub, PublishRequest, Sink, SubscribeRequest, Subscription},
};

use self::{config::Config, queue::Queue};
use crate::{
    rabbitmq::{Consumer, Link, Publisher, name, properties_of},
    tls, ttl,
};

/// Request metadata that RabbitMQ routes by; several, separated by commas, for a subscription.
const ROUTING_KEY: &str = "routingKey";

/// Connects.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn PubSub>> {
    let config = Config::parse(&request.properties)?;
    let tls = tls::Settings::parse(&request.properties)?;
    let link = Arc::new(Link::new(config.endpoint(&tls)?));
    let publisher = Publisher::new(Arc::clone(&link), config.publisher_confirm, config.reconnect_wait);
    publisher.open().await?;
    let exchanges = Exchanges {
        kind: config.exchange_kind()?,
        options: ExchangeDeclareOptions {
            durable: config.durable,
            auto_delete: config.delete_when_unused,
            ..ExchangeDeclareOptions::default()
        },
    };
    Ok(Arc::new(RabbitMq { link, publisher, exchanges, config: Arc::new(config) }))
}

struct RabbitMq {
    link: Arc<Link>,
    publisher: Publisher,
    exchanges: Exchanges,
    config: Arc<Config>,
}

/// How the exchange of a topic is declared.
#[derive(Clone)]
struct Exchanges {
    kind: ExchangeKind,
    options: ExchangeDeclareOptions,
}

impl Exchanges {
    async fn declare(&self, channel: &lapin::Channel, topic: ShortString) -> lapin::Result<()> {
        channel.exchange_declare(topic, self.kind.clone(), self.options, FieldTable::default()).await
    }
}

#[async_trait]
impl PubSub for RabbitMq {
    fn features(&self) -> &[Feature] {
        &[Feature::MessageTtl]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<()> {
        let topic = name("the topic", &request.topic)?;
        let routing_key = request.metadata.get(ROUTING_KEY).map_or("", String::as_str);
        let routing_key = name(ROUTING_KEY, routing_key)?;
        let mut properties = properties_of(&request.metadata)?;
        if self.config.delivery_mode > 0 {
            properties = properties.with_delivery_mode(self.config.delivery_mode);
        }
        let life = ttl::parse(&request.metadata)?.filter(|life| !life.is_zero()).or(self.config.default_ttl);
        if let Some(life) = life {
            properties = properties.with_expiration(life.as_millis().to_string().into());
        }
        self.publisher
            .attempt(|channel| {
                let (topic, routing_key, properties) = (topic.clone(), routing_key.clone(), properties.clone());
                async move {
                    let declare = async |channel: &_| self.exchanges.declare(channel, topic.clone()).await;
                    channel.once(&request.topic, declare).await?;
                    channel.publish(topic, routing_key, &request.data, properties).await
                }
            })
            .await
    }

    async fn subscribe(
        &self,
        request: &SubscribeRequest,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Subscription> {
        let queue = Queue::new(request, Arc::clone(&self.config), self.exchanges.clone(), sink)?;
        let consumer = Consumer {
            link: Arc::clone(&self.link),
            source: Arc::new(queue),
            stop,
            prefetch: self.config.prefetch(),
            at_once: self.config.at_once(),
            auto_ack: self.config.auto_ack,
            requeue: self.config.requeue_in_failure,
            reconnect_wait: self.config.reconnect_wait,
        };
        consumer.open().await
    }

    async fn ping(&self) -> Result<()> {
        self.link.ping().await
    }

    async fn close(&self) {
        self.link.close().await;
    }
}

/// The name of the queue that a subscription reads.
fn queue_name(request: &SubscribeRequest, consumer_id: &str) -> Result<String> {
    match request.metadata.get("queueName").filter(|name| !name.is_empty()) {
        Some(name) => Ok(name.clone()),
        None if consumer_id.is_empty() => {
            Err(ComponentError::request("consumerID is required for subscriptions that don't specify a queue name"))
        }
        None => Ok(format!("{consumer_id}-{}", request.topic)),
    }
}
