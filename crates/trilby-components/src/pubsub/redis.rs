//! `pubsub.redis`: each topic a stream in Redis, each consumer id a group that reads it.
//!
//! An entry has the field `data`, and `metadata` with the request's metadata as JSON. As with Dapr, the group and the
//! consumer in it are both named by the consumer id, and a new group begins with what the stream holds already.
//!
//! An entry is acknowledged once it is handled. One that is not stays pending, as it does if its reader dies: every
//! `redeliverInterval` each reader looks for entries that were pending for `processingTimeout` and takes them over.
//! Daprd 1.18 acknowledges such an entry after the last attempt that its policy allows; without a dead-letter topic it
//! is lost then, so that here only happens where redelivery is switched off.
//!
//! Redis knows no expiry of single entries; `maxLenApprox` and `streamTTL` trim streams when something is published.

mod consumer;
mod entry;
mod group;

use std::{
    num::NonZero,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use redis::Cmd;
use serde::Deserialize;
use tokio::sync::Semaphore;
use trilby_component::{
    CancellationToken, ComponentError, Metadata, OpenRequest, Result,
    pubsub::{
        BulkPublishError, BulkPublishRequest, Feature, PubSub, PublishRequest, Sink, SubscribeRequest, Subscription,
    },
};

use self::{
    consumer::{Consumer, Redelivery},
    group::Group,
};
use crate::redis::{Config, Link, Pauses, interval};

/// Metadata of the component besides that of [`Config`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    /// Name of the consumer group. The runtime sets it to the app's id where the metadata do not. Required to subscribe.
    #[serde(rename = "consumerID")]
    consumer_id: String,
    /// How often to look for entries that nobody has handled. A bare number counts milliseconds; 0 switches redelivery
    /// off. Default: 15 s.
    #[serde(with = "interval")]
    redeliver_interval: Duration,
    /// How long an entry may be in hand: after that its delivery is given up, and others may take it over. A bare number
    /// counts milliseconds; 0 switches both off. Default: 60 s.
    #[serde(with = "interval")]
    processing_timeout: Duration,
    /// Most entries of a topic that are read ahead. Default: 100.
    queue_depth: usize,
    /// Most entries of all topics that are handled at the same time. Default: 10.
    concurrency: usize,
    /// Length to which streams are trimmed, more or less. Default: none.
    max_len_approx: u64,
    /// Age at which entries are trimmed, more or less; without effect beside `maxLenApprox`. Default: none.
    #[serde(rename = "streamTTL", with = "trilby_component::properties::duration")]
    stream_ttl: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consumer_id: String::new(),
            redeliver_interval: Duration::from_secs(15),
            processing_timeout: Duration::from_secs(60),
            queue_depth: 100,
            concurrency: 10,
            max_len_approx: 0,
            stream_ttl: Duration::ZERO,
        }
    }
}

impl Settings {
    fn redelivery(&self) -> Option<Redelivery> {
        let is_on = !self.redeliver_interval.is_zero() && !self.processing_timeout.is_zero();
        is_on.then_some(Redelivery { every: self.redeliver_interval, after: self.processing_timeout })
    }

    fn trim(&self) -> Trim {
        match (self.max_len_approx, self.stream_ttl) {
            (0, Duration::ZERO) => Trim::Never,
            (0, age) => Trim::ByAge(age),
            (length, _) => Trim::ByLength(length),
        }
    }
}

/// Connects.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` or `Timeout` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn PubSub>> {
    let config = Config::parse(&request.properties, Pauses::OTHERS)?;
    let settings: Settings = request.properties.parse()?;
    if settings.max_len_approx > 0 && !settings.stream_ttl.is_zero() {
        tracing::warn!(component = request.name, "streamTTL has no effect: maxLenApprox is set too");
    }
    Ok(Arc::new(Streams {
        link: Arc::new(Link::open(&config).await?),
        workers: Arc::new(Semaphore::new(settings.concurrency.clamp(1, Semaphore::MAX_PERMITS))),
        trim: settings.trim(),
        config,
        settings,
    }))
}

struct Streams {
    /// For everything but reading, which blocks a connection.
    link: Arc<Link>,
    /// One permit for each entry that may be handled at the same time.
    workers: Arc<Semaphore>,
    trim: Trim,
    config: Config,
    settings: Settings,
}

#[async_trait]
impl PubSub for Streams {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<()> {
        let add = self.add(&request.topic, &request.data, Some(&request.metadata));
        self.link.call(&add, self.config.write_timeout()).await.map(drop).map_err(not_published)
    }

    async fn bulk_publish(&self, request: &BulkPublishRequest) -> Result<(), BulkPublishError> {
        let mut adds = redis::pipe();
        adds.ignore_errors();
        for entry in &request.entries {
            let metadata = Some(&entry.metadata).filter(|metadata| !metadata.is_empty());
            adds.add_command(self.add(&request.topic, &entry.data, metadata));
        }
        let failed: Vec<_> = match self.link.call(&adds, self.config.write_timeout()).await {
            Ok(replies) => {
                let errors = replies.into_iter().enumerate().filter_map(|(index, reply)| Some((index, reply.err()?)));
                errors.map(|(index, error)| (index, not_published(self.link.explain(&error)))).collect()
            }
            Err(error) => {
                let copy = |index| (index, not_published(ComponentError::new(error.kind(), error.to_string())));
                (0..request.entries.len()).map(copy).collect()
            }
        };
        if failed.is_empty() { Ok(()) } else { Err(BulkPublishError(failed)) }
    }

    async fn subscribe(
        &self,
        request: &SubscribeRequest,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Subscription> {
        if self.settings.consumer_id.is_empty() {
            return Err(ComponentError::metadata("metadata consumerID is missing; it names the consumer group"));
        }
        let group = Group::new(&self.config, Arc::clone(&self.link), &request.topic, &self.settings.consumer_id)?;
        group.create().await?;
        let consumer = Consumer {
            group,
            sink,
            workers: Arc::clone(&self.workers),
            queue_depth: NonZero::new(self.settings.queue_depth).unwrap_or(NonZero::<usize>::MIN),
            redelivery: self.settings.redelivery(),
        };
        Ok(Box::pin(consumer.run(stop)))
    }

    async fn ping(&self) -> Result<()> {
        self.link.ping(self.config.read_timeout()).await
    }

    async fn close(&self) {
        self.link.close();
    }
}

impl Streams {
    fn add(&self, topic: &str, data: &Bytes, metadata: Option<&Metadata>) -> Cmd {
        let mut command = redis::cmd("XADD");
        command.arg(topic);
        match self.trim {
            Trim::Never => {}
            Trim::ByLength(length) => {
                command.arg("MAXLEN").arg("~").arg(length);
            }
            Trim::ByAge(age) => {
                let oldest = SystemTime::now().checked_sub(age).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let millis = oldest.unwrap_or_default().as_millis();
                command.arg("MINID").arg("~").arg(format!("{millis}-1"));
            }
        }
        command.arg("*").arg("data").arg(&data[..]);
        if let Some(metadata) = metadata {
            command.arg("metadata").arg(&entry::encode_metadata(metadata)[..]);
        }
        command
    }
}

/// What is cut off a stream when something is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trim {
    Never,
    ByLength(u64),
    ByAge(Duration),
}

fn not_published(error: ComponentError) -> ComponentError {
    ComponentError::new(error.kind(), format!("redis streams: error from publish: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use trilby_component::Properties;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        pairs.iter().copied().collect::<Properties>().parse()
    }

    #[test]
    fn a_bare_number_counts_milliseconds_and_zero_switches_redelivery_off() {
        let redelivery = |pairs: &[_]| settings(pairs).expect("valid").redelivery();
        let default = Redelivery { every: Duration::from_secs(15), after: Duration::from_secs(60) };
        assert_eq!(redelivery(&[]), Some(default));
        let set = [("redeliverInterval", "500"), ("processingTimeout", "2s")];
        let expected = Redelivery { every: Duration::from_millis(500), after: Duration::from_secs(2) };
        assert_eq!(redelivery(&set), Some(expected));
        assert_eq!(redelivery(&[("redeliverInterval", "0")]), None);
        assert_eq!(redelivery(&[("processingTimeout", "0s")]), None);
        assert!(settings(&[("processingTimeout", "soon")]).is_err());
    }

    #[test]
    fn the_length_of_a_stream_counts_before_the_age_of_its_entries() {
        let trim = |pairs: &[_]| settings(pairs).expect("valid").trim();
        assert_eq!(trim(&[]), Trim::Never);
        assert_eq!(trim(&[("streamTTL", "1h")]), Trim::ByAge(Duration::from_secs(3600)));
        assert_eq!(trim(&[("streamTTL", "1h"), ("maxLenApprox", "7")]), Trim::ByLength(7));
    }
}
