//! The queue of one subscription: how it is declared, and what becomes of its messages.

use std::{num::ParseIntError, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use trilby_component::{
    ComponentError, Metadata, Result,
    properties::is_truthy,
    pubsub::{Message, Sink, SubscribeRequest},
};

use super::{Config, Exchanges, ROUTING_KEY, queue_name};
use crate::rabbitmq::{Source, header_text, name};

/// What a subscription reads.
pub(super) struct Queue {
    topic: ShortString,
    queue: ShortString,
    /// Names of the exchange and the queue for what was not handled, if that was asked for.
    dead_letter: Option<(ShortString, ShortString)>,
    routing_keys: Vec<ShortString>,
    arguments: FieldTable,
    config: Arc<Config>,
    exchanges: Exchanges,
    sink: Arc<dyn Sink>,
}

impl Queue {
    /// # Errors
    /// `InvalidRequest` if the subscription's metadata cannot be meant.
    pub(super) fn new(
        request: &SubscribeRequest,
        config: Arc<Config>,
        exchanges: Exchanges,
        sink: Arc<dyn Sink>,
    ) -> Result<Self> {
        let queue = queue_name(request, &config.consumer_id)?;
        let dead_letter = if config.enable_dead_letter {
            Some((
                name("the name of the dead-letter exchange", &format!("dlx-{queue}"))?,
                name("the name of the dead-letter queue", &format!("dlq-{queue}"))?,
            ))
        } else {
            None
        };
        let keys = request.metadata.get(ROUTING_KEY).map_or("", String::as_str);
        Ok(Self {
            topic: name("the topic", &request.topic)?,
            queue: name("the name of the queue", &queue)?,
            arguments: arguments(&request.metadata, &config, dead_letter.as_ref().map(|(exchange, _)| exchange))?,
            dead_letter,
            routing_keys: keys.split(',').map(|key| name(ROUTING_KEY, key)).collect::<Result<_>>()?,
            config,
            exchanges,
            sink,
        })
    }

    async fn declare_dead_letter(&self, channel: &Channel) -> lapin::Result<()> {
        let Some((exchange, queue)) = self.dead_letter.clone() else { return Ok(()) };
        // Both survive a restart, whatever the others do.
        let durable = ExchangeDeclareOptions {
            durable: true,
            auto_delete: self.config.delete_when_unused,
            ..ExchangeDeclareOptions::default()
        };
        let none = FieldTable::default;
        channel.exchange_declare(exchange.clone(), ExchangeKind::Fanout, durable, none()).await?;
        let mut arguments = limits(&self.config);
        arguments.insert("x-queue-mode".into(), AMQPValue::LongString("lazy".into()));
        channel.queue_declare(queue.clone(), self.options(true), arguments).await?;
        channel.queue_bind(queue, exchange, "".into(), QueueBindOptions::default(), none()).await
    }

    fn options(&self, durable: bool) -> QueueDeclareOptions {
        QueueDeclareOptions { durable, auto_delete: self.config.delete_when_unused, ..QueueDeclareOptions::default() }
    }
}

#[async_trait]
impl Source for Queue {
    async fn declare(&self, channel: &Channel) -> lapin::Result<ShortString> {
        self.exchanges.declare(channel, self.topic.clone()).await?;
        self.declare_dead_letter(channel).await?;
        channel.queue_declare(self.queue.clone(), self.options(self.config.durable), self.arguments.clone()).await?;
        for key in &self.routing_keys {
            let (queue, topic) = (self.queue.clone(), self.topic.clone());
            channel.queue_bind(queue, topic, key.clone(), QueueBindOptions::default(), FieldTable::default()).await?;
        }
        Ok(self.queue.clone())
    }

    async fn deliver(&self, data: Bytes, properties: BasicProperties) -> bool {
        let metadata = match self.config.publish_message_properties_to_metadata {
            true => metadata_of(&properties),
            false => Metadata::new(),
        };
        let message = Message { topic: self.topic.to_string(), data, content_type: None, metadata };
        self.sink.deliver(message).await.is_ok()
    }
}

/// What the queue is declared with; a stock daprd that shares it declares the same.
fn arguments(metadata: &Metadata, config: &Config, dead_letter: Option<&ShortString>) -> Result<FieldTable> {
    let find = |name: &str| metadata.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let mut arguments = limits(config);
    if let Some(exchange) = dead_letter {
        arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(exchange.as_str().into()));
    }
    if let Some(text) = find("maxPriority") {
        let priority: u64 = text.parse().map_err(not_a_number("maxPriority", text))?;
        let priority = u8::try_from(priority).unwrap_or(u8::MAX);
        arguments.insert("x-max-priority".into(), AMQPValue::ShortShortUInt(priority));
    }
    let kind = find("queueType").unwrap_or("classic");
    if !matches!(kind, "classic" | "quorum") {
        return Err(ComponentError::request(format!("invalid queue type {kind}. Valid types are classic and quorum")));
    }
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    if find("singleActiveConsumer").is_some_and(is_truthy) {
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    for (name, argument) in [("maxLen", "x-max-length"), ("maxLenBytes", "x-max-length-bytes")] {
        if let Some(text) = find(name) {
            let limit: i64 = text.parse().map_err(not_a_number(name, text))?;
            arguments.insert(argument.into(), AMQPValue::LongLongInt(limit));
        }
    }
    Ok(arguments)
}

fn limits(config: &Config) -> FieldTable {
    let mut limits = FieldTable::default();
    for (argument, limit) in [("x-max-length", config.max_len), ("x-max-length-bytes", config.max_len_bytes)] {
        if limit > 0 {
            limits.insert(argument.into(), AMQPValue::LongLongInt(limit));
        }
    }
    limits
}

fn not_a_number<'a>(name: &'a str, text: &'a str) -> impl FnOnce(ParseIntError) -> ComponentError + 'a {
    move |_| {
        ComponentError::request(format!("invalid {name} {text:?} in the subscription's metadata, expected a number"))
    }
}

/// Properties and headers by the names that Dapr gives them.
fn metadata_of(properties: &BasicProperties) -> Metadata {
    let own = [
        ("metadata.messageid", properties.message_id()),
        ("metadata.correlationid", properties.correlation_id()),
        ("metadata.type", properties.kind()),
        ("metadata.contenttype", properties.content_type()),
    ];
    let own = own.into_iter().filter_map(|(name, value)| {
        let value = value.as_ref().filter(|value| !value.as_str().is_empty())?;
        Some((name.to_owned(), value.to_string()))
    });
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    own.chain(headers.filter_map(|(name, value)| Some((format!("metadata.{name}"), header_text(value)?)))).collect()
}
