//! Publishes records, to the partitions that Dapr's driver would choose.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::future;
use krafka::{Kafka, producer::Partitioner};
use trilby_component::{ComponentError, Metadata, Result};

use super::{Config, Headers, explain};

/// The publishing side of a component.
pub(crate) struct Producer {
    kafka: Kafka,
    producer: krafka::producer::Producer,
    headers: Headers,
    max_message_bytes: usize,
}

impl Producer {
    /// # Errors
    /// `Unavailable` if the cluster cannot be reached.
    pub(crate) async fn open(kafka: &Kafka, config: &Config) -> Result<Self> {
        let builder = config.producer(kafka.producer())?.partitioner(ByKey::default());
        Ok(Self {
            kafka: kafka.clone(),
            producer: builder.build().await.map_err(explain)?,
            headers: Headers::new(config)?,
            max_message_bytes: config.max_message_bytes,
        })
    }

    /// Publishes one record; returns when as many servers have it as were asked for.
    ///
    /// # Errors
    /// `InvalidRequest` if it cannot be sent; `NotFound` without the topic; `Unavailable` and `Timeout`.
    pub(crate) async fn publish(&self, topic: &str, data: &Bytes, metadata: &Metadata) -> Result<()> {
        let sent = self.enqueue(topic, data, metadata, &Metadata::new()).await?;
        sent.await.map(drop).map_err(explain)
    }

    /// Publishes records of one topic together; gives the outcomes in their order. Each has metadata of its own, and
    /// those of the whole request, which win.
    pub(crate) async fn publish_all<'a>(
        &self,
        topic: &str,
        records: impl Iterator<Item = (&'a Bytes, &'a Metadata)>,
        common: &Metadata,
    ) -> Vec<Result<()>> {
        // All are queued before the first is waited for: they go out together, and in order.
        let mut sent = Vec::new();
        for (data, own) in records {
            sent.push(self.enqueue(topic, data, own, common).await);
        }
        let outcomes = sent.into_iter().map(|sent| async move { sent?.await.map(drop).map_err(explain) });
        future::join_all(outcomes).await
    }

    /// Waits until the topic is there, which a server may make when it is first asked for it.
    ///
    /// # Errors
    /// `NotFound` if it is not made; `Unavailable` and `Timeout`.
    pub(super) async fn prepare(&self, topic: &str) -> Result<()> {
        self.producer.partitions_for(topic).await.map(drop).map_err(explain)
    }

    /// # Errors
    /// `Unavailable` if the cluster does not answer.
    pub(crate) async fn ping(&self) -> Result<()> {
        self.kafka.admin().describe_cluster(Default::default()).await.map(drop).map_err(explain)
    }

    /// Sends what is queued and ends.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.producer.close().await {
            tracing::debug!(%error, "kafka producer did not close in good order");
        }
    }

    async fn enqueue(
        &self,
        topic: &str,
        data: &Bytes,
        own: &Metadata,
        common: &Metadata,
    ) -> Result<krafka::producer::DeliveryHandle> {
        if self.max_message_bytes > 0 && data.len() > self.max_message_bytes {
            let limit = self.max_message_bytes;
            return Err(ComponentError::request(format!("kafka: the message is larger than maxMessageBytes, {limit}")));
        }
        let metadata = own.iter().filter(|(name, _)| !common.contains_key(*name)).chain(common);
        let record = self.headers.record(topic, data, metadata)?;
        if let Some(partition) = record.partition {
            let count = self.producer.partitions_for(topic).await.map_err(explain)?.len();
            if usize::try_from(partition).is_ok_and(|partition| partition >= count) {
                return Err(ComponentError::request(format!(
                    "partition number {partition} is out of range, topic has {count} partitions"
                )));
            }
        }
        self.producer.enqueue(record).await.map_err(explain)
    }
}

/// As Dapr's driver: by the FNV-1a hash of the key, and in turn without one. A stock daprd must not send the records of
/// one key to another partition than we do.
#[derive(Default)]
struct ByKey {
    next: AtomicU32,
}

impl Partitioner for ByKey {
    fn partition(&self, _: &str, key: Option<&[u8]>, partition_count: usize) -> i32 {
        let count = i32::try_from(partition_count).unwrap_or(i32::MAX).max(1);
        let number = match key {
            Some(key) => fnv1a(key).cast_signed(),
            // The sum of what is added may begin again, and be negative for a while.
            None => self.next.fetch_add(1, Ordering::Relaxed).cast_signed(),
        };
        // The sign of the remainder is dropped, and not that of the number, whose remainder would be another.
        (number % count).abs()
    }
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        for (text, expected) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fnv1a(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_key_has_one_partition_and_all_are_in_range() {
        let by_key = ByKey::default();
        for key in ["a", "foobar", "order-17"] {
            let found = by_key.partition("t", Some(key.as_bytes()), 7);
            assert!((0..7).contains(&found));
            assert_eq!(by_key.partition("t", Some(key.as_bytes()), 7), found);
        }
        // Its hash is -468965076 as a signed number, which leaves -6.
        assert_eq!(by_key.partition("t", Some(b"a"), 7), 6);
        let spread: std::collections::BTreeSet<_> = (0..14).map(|_| by_key.partition("t", None, 7)).collect();
        assert_eq!(spread.len(), 7);
    }
}
