//! The push consumer of a topic: found, made, and made anew.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client,
    jetstream::{
        Context,
        consumer::{
            self, AckPolicy, Consumer,
            push::{Config, Messages},
        },
        stream::{ConsumerError, ConsumerErrorKind},
    },
};
use tokio::time;
use trilby_component::{ComponentError, ErrorKind, Result};

use super::{server::explain_consumer, settings::Settings};

/// Between attempts to make a consumer anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Messages that may be in hand where the server sets no limit, because they are not acknowledged.
const UNLIMITED: usize = 1000;

/// A consumer, and the messages that it pushes.
pub(super) struct Line {
    pub(super) messages: Messages,
    pub(super) stream: String,
    pub(super) consumer: String,
    pub(super) terms: Terms,
    /// Most messages in hand.
    pub(super) depth: usize,
    /// The first message that was not settled when it was found or made.
    pub(super) next: u64,
}

/// What the server does with a message that it has sent.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// Whether it wants to hear what became of it.
    pub(super) is_acknowledged: bool,
    /// When it takes it for lost.
    pub(super) ack_wait: Duration,
    /// How often it sends it; no limit if not positive.
    pub(super) max_deliver: i64,
}

/// Where the consumer of a topic is, or is to be.
pub(super) struct Source {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) settings: Arc<Settings>,
    pub(super) topic: String,
}

impl Source {
    /// Finds the durable consumer, or makes one.
    pub(super) async fn attach(&self) -> Result<Line> {
        let stream = self.stream().await?;
        let Some(consumer) = self.find(&stream).await? else { return self.create(&stream, None).await };
        let info = consumer.cached_info();
        if info.push_bound && info.config.deliver_group.is_none() {
            return Err(ComponentError::metadata("nats: consumer is already bound to a subscription"));
        }
        self.listen(consumer).await
    }

    /// The durable consumer, if there is one.
    async fn find(&self, stream: &str) -> Result<Option<Consumer<Config>>> {
        if self.settings.durable_name.is_empty() {
            return Ok(None);
        }
        match self.context.get_consumer_from_stream(&self.settings.durable_name, stream).await {
            Ok(consumer) => {
                self.check(&consumer.cached_info().config)?;
                Ok(Some(consumer))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(explain_consumer(&error)),
        }
    }

    /// Two topics cannot share a durable consumer, nor readers with and without a group.
    fn check(&self, existing: &consumer::Config) -> Result<()> {
        let ours = self.settings.consumer(&self.topic, String::new(), None)?;
        let (durable, topic) = (&self.settings.durable_name, &self.topic);
        if existing.filter_subject != *topic {
            let other = &existing.filter_subject;
            return Err(ComponentError::metadata(format!(
                "nats: the durable consumer {durable} reads {other}, not {topic}; a component with a durableName can \
                 subscribe to one topic"
            )));
        }
        if existing.deliver_group != ours.deliver_group {
            return Err(ComponentError::metadata(format!(
                "nats: the durable consumer {durable} belongs to another queue group than queueGroupName says"
            )));
        }
        Ok(())
    }

    async fn stream(&self) -> Result<String> {
        if !self.settings.stream_name.is_empty() {
            return Ok(self.settings.stream_name.clone());
        }
        self.context.stream_by_subject(&self.topic).await.map_err(|error| {
            let message =
                format!("nats: no stream matches subject {}; make one, or set streamName: {error}", self.topic);
            ComponentError::new(ErrorKind::NotFound, message)
        })
    }

    async fn create(&self, stream: &str, first: Option<u64>) -> Result<Line> {
        let config = self.settings.consumer(&self.topic, self.client.new_inbox(), first)?;
        let created = self.context.create_consumer_on_stream(config, stream).await;
        self.listen(created.map_err(|error| explain_consumer(&error))?).await
    }

    async fn listen(&self, consumer: Consumer<Config>) -> Result<Line> {
        let messages = consumer
            .messages()
            .await
            .map_err(|error| ComponentError::new(ErrorKind::Unavailable, format!("nats: {error}")))?;
        let info = consumer.cached_info();
        let depth = match info.config.ack_policy {
            AckPolicy::None => UNLIMITED,
            _ => usize::try_from(info.config.max_ack_pending).ok().filter(|&limit| limit > 0).unwrap_or(UNLIMITED),
        };
        Ok(Line {
            messages,
            stream: info.stream_name.clone(),
            consumer: info.name.clone(),
            terms: Terms {
                is_acknowledged: info.config.ack_policy != AckPolicy::None,
                ack_wait: info.config.ack_wait,
                max_deliver: info.config.max_deliver,
            },
            depth,
            next: info.ack_floor.stream_sequence + 1,
        })
    }

    /// Makes the consumer anew, however long that takes, unless another reader has. Its first message is `next`, but if
    /// the stream is not that far, it is a new one too.
    pub(super) async fn attach_again(&self, next: u64) -> Line {
        tracing::warn!(topic = self.topic, "the consumer is gone from nats; making it anew");
        loop {
            let attempt = async {
                let name = self.stream().await?;
                if let Some(consumer) = self.find(&name).await? {
                    return self.listen(consumer).await;
                }
                let stream = self.context.get_stream(&name).await;
                let stream =
                    stream.map_err(|error| ComponentError::new(ErrorKind::Unavailable, format!("nats: {error}")))?;
                let is_same = stream.cached_info().state.last_sequence + 1 >= next;
                self.create(&name, is_same.then_some(next)).await
            };
            match attempt.await {
                Ok(line) => {
                    tracing::info!(topic = self.topic, "the consumer is there again");
                    return line;
                }
                Err(error) => tracing::debug!(topic = self.topic, %error, "the consumer cannot be made yet"),
            }
            time::sleep(PAUSE).await;
        }
    }

    /// Whether the server has no such consumer any more.
    pub(super) async fn is_gone(&self, stream: String, consumer: String) -> bool {
        let found = self.context.get_consumer_from_stream::<Config, _, _>(consumer, stream).await;
        // A server that does not answer says nothing about the consumer.
        found.is_err_and(|error| is_missing(&error))
    }
}

fn is_missing(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(error) if error.code() == 404)
}
