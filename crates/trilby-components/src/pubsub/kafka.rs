//! `pubsub.kafka`: topics of Apache Kafka, read by consumer groups.
//!
//! Records of a partition are handled in order, those of different partitions at the same time. An offset is committed
//! once everything before it was handled; a record that was not is offered again until it is, and holds up its partition
//! only. Metadata become headers and headers metadata; `partitionKey` (or `__key`) and `partitionNumber` say where a
//! record goes, and each record says where it is from. Batches are read and published as such.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use krafka::consumer::ConsumerRecord;
use trilby_component::{
    CancellationToken, OpenRequest, Result,
    pubsub::{
        Bulk, BulkPublishError, BulkPublishRequest, Feature, Message, PubSub, PublishRequest, Sink, SubscribeRequest,
        Subscription,
    },
};

use crate::kafka::{Config, Group, Handling, Headers, Producer, Receiver, value};

/// How records are collected for an app that does not say, as with Dapr.
const BULK: Bulk = Bulk { max_messages: 80, max_await: Duration::from_secs(10) };

/// Connects.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` if the cluster cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn PubSub>> {
    let config = Config::parse(&request.properties)?;
    let headers = Headers::new(&config)?;
    let kafka = config.connect().await?;
    let producer = Producer::open(&kafka, &config).await?;
    Ok(Arc::new(Broker { producer, headers, config }))
}

struct Broker {
    producer: Producer,
    headers: Headers,
    config: Config,
}

#[async_trait]
impl PubSub for Broker {
    fn features(&self) -> &[Feature] {
        &[Feature::BulkPublish]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<()> {
        self.producer.publish(&request.topic, &request.data, &request.metadata).await
    }

    async fn bulk_publish(&self, request: &BulkPublishRequest) -> Result<(), BulkPublishError> {
        let records = request.entries.iter().map(|entry| (&entry.data, &entry.metadata));
        let outcomes = self.producer.publish_all(&request.topic, records, &request.metadata).await;
        let failed: Vec<_> =
            outcomes.into_iter().enumerate().filter_map(|(index, outcome)| Some((index, outcome.err()?))).collect();
        if failed.is_empty() { Ok(()) } else { Err(BulkPublishError(failed)) }
    }

    async fn subscribe(
        &self,
        request: &SubscribeRequest,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Subscription> {
        let group = Group {
            config: &self.config,
            producer: &self.producer,
            topics: std::slice::from_ref(&request.topic),
            handling: Handling { bulk: request.bulk.map(|settings| settings.or(BULK)), ..self.config.handling(true) },
            receiver: Arc::new(Messages { sink, headers: self.headers.clone() }),
            stop,
        };
        group.open().await
    }

    async fn ping(&self) -> Result<()> {
        self.producer.ping().await
    }

    async fn close(&self) {
        self.producer.close().await;
    }
}

struct Messages {
    sink: Arc<dyn Sink>,
    headers: Headers,
}

impl Messages {
    fn message(&self, record: &ConsumerRecord) -> Message {
        let metadata = self.headers.metadata(record);
        Message { topic: record.topic.to_string(), data: value(record), content_type: None, metadata }
    }
}

#[async_trait]
impl Receiver for Messages {
    async fn deliver(&self, record: &ConsumerRecord) -> bool {
        self.sink.deliver(self.message(record)).await.is_ok()
    }

    async fn deliver_bulk(&self, records: &[&ConsumerRecord]) -> Vec<bool> {
        let messages = records.iter().map(|record| self.message(record)).collect();
        self.sink.deliver_bulk(messages).await.iter().map(Result::is_ok).collect()
    }
}
