//! `bindings.kafka`: topics of Apache Kafka. Records of `topics` are events; `create` publishes to `publishTopic`.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future;
use krafka::consumer::ConsumerRecord;
use serde::Deserialize;
use trilby_component::{
    CancellationToken, OpenRequest, Result,
    binding::{Binding, Event, InputBinding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding, Reading, Sink},
};

use crate::kafka::{Config, Group, Headers, Producer, Receiver, value};

/// Metadata of the component besides that of [`Config`].
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Topics {
    /// What `create` publishes to. Default: none, `create` fails.
    publish_topic: String,
    /// What is read, separated by commas. Default: none, nothing is.
    topics: String,
}

/// Connects.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` if the cluster cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<Binding>> {
    let config = Config::parse(&request.properties)?;
    let topics: Topics = request.properties.parse()?;
    let headers = Headers::new(&config)?;
    let kafka = config.connect().await?;
    let producer = Producer::open(&kafka, &config).await?;
    let read =
        topics.topics.split(',').map(|topic| topic.trim().to_owned()).filter(|topic| !topic.is_empty()).collect();
    let binding = Arc::new(Cluster { producer, headers, config, read, publish_topic: topics.publish_topic });
    Ok(Arc::new(Binding { input: Some(binding.clone()), output: Some(binding) }))
}

struct Cluster {
    producer: Producer,
    headers: Headers,
    config: Config,
    read: Vec<String>,
    publish_topic: String,
}

#[async_trait]
impl OutputBinding for Cluster {
    fn operations(&self) -> &[&'static str] {
        &["create"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        self.producer.publish(&self.publish_topic, &request.data, &request.metadata).await?;
        Ok(InvokeResponse::default())
    }

    async fn ping(&self) -> Result<()> {
        self.producer.ping().await
    }

    async fn close(&self) {
        self.producer.close().await;
    }
}

#[async_trait]
impl InputBinding for Cluster {
    async fn read(&self, sink: Arc<dyn Sink>, stop: CancellationToken) -> Result<Reading> {
        if self.read.is_empty() {
            tracing::warn!("kafka binding: no topic defined, input bindings will not be started");
            return Ok(Box::pin(async move {
                stop.cancelled().await;
                Ok(())
            }));
        }
        let group = Group {
            config: &self.config,
            producer: &self.producer,
            topics: &self.read,
            handling: self.config.handling(false),
            receiver: Arc::new(Events { sink, headers: self.headers.clone() }),
            stop,
        };
        group.open().await
    }
}

struct Events {
    sink: Arc<dyn Sink>,
    headers: Headers,
}

#[async_trait]
impl Receiver for Events {
    async fn deliver(&self, record: &ConsumerRecord) -> bool {
        let event = Event { data: value(record), content_type: None, metadata: self.headers.metadata(record) };
        self.sink.deliver(event).await.is_ok()
    }

    async fn deliver_bulk(&self, records: &[&ConsumerRecord]) -> Vec<bool> {
        future::join_all(records.iter().map(|record| self.deliver(record))).await
    }
}
