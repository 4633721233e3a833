//! A member of a consumer group: it reads the partitions that it is given, and commits what was handled.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use krafka::{
    CloseOptions,
    consumer::{Consumer, ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition},
    error::KrafkaError,
};
use tokio::time::{self, Instant};
use trilby_component::{CancellationToken, ComponentError, ErrorKind, Result};

use super::{
    Config, Producer, explain,
    lane::{Handling, Lanes, Offsets, Receiver},
};

/// How long a new member may wait for its partitions.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// How long a topic may take to be made.
const TOPIC_LIMIT: Duration = Duration::from_secs(10);
/// Between two commits of what was handled.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How long one attempt to read may take. Shorter than the interval, so that commits are not late.
const POLL: Duration = Duration::from_millis(500);
/// How long the last commit may take, and leaving the group.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How long a partition that moves to another member waits for what is in hand.
const HANDOVER_LIMIT: Duration = Duration::from_secs(10);

/// What a member needs.
pub(crate) struct Group<'a> {
    pub(crate) config: &'a Config,
    /// Asks for the topics before they are read.
    pub(crate) producer: &'a Producer,
    pub(crate) topics: &'a [String],
    pub(crate) handling: Handling,
    pub(crate) receiver: Arc<dyn Receiver>,
    pub(crate) stop: CancellationToken,
}

impl Group<'_> {
    /// Joins the group. When this returns the member knows where to begin.
    ///
    /// # Errors
    /// `InvalidMetadata` without a group; `Unavailable` if the cluster does not answer; `Denied` if it refuses us.
    pub(crate) async fn open(self) -> Result<BoxFuture<'static, Result<()>>> {
        let group = self.config.group()?;
        for topic in self.topics {
            // A topic that is not there yet may be made later, and is found then.
            let _ = time::timeout(TOPIC_LIMIT, self.producer.prepare(topic)).await;
        }
        let ours = Arc::<OnceLock<Weak<Consumer>>>::default();
        let wake = {
            let ours = Arc::clone(&ours);
            move || {
                if let Some(consumer) = ours.get().and_then(Weak::upgrade) {
                    consumer.wakeup();
                }
            }
        };
        let lanes = Arc::new(Lanes::new(self.receiver, self.handling, Arc::new(wake)));
        let is_member = Arc::new(AtomicBool::new(false));
        let watch = Watch { lanes: Arc::clone(&lanes), consumer: Arc::clone(&ours), is_member: Arc::clone(&is_member) };
        // A connection of its own: a server answers the requests of one connection in turn, and to a member that joins only
        // when all others have spoken. Two members with one connection would wait for each other.
        let kafka = self.config.connect().await?;
        let builder = self.config.consumer(kafka.consumer(group))?.rebalance_listener(watch);
        let consumer = Arc::new(builder.build().await.map_err(explain)?);
        // It was empty: it is ours.
        let _ = ours.set(Arc::downgrade(&consumer));
        consumer.subscribe(self.topics).await.map_err(explain)?;
        let member = Member { consumer, lanes, stop: self.stop, pause: self.config.pause()? };

        let limit = Instant::now() + JOIN_LIMIT;
        while !is_member.load(Ordering::Acquire) && !member.stop.is_cancelled() {
            if Instant::now() > limit {
                let message = format!("kafka did not let us into the consumer group {group} in time");
                return Err(ComponentError::new(ErrorKind::Unavailable, message));
            }
            member.poll().await.map_err(explain)?;
        }
        Ok(Box::pin(async move {
            member.run().await;
            Ok(())
        }))
    }
}

/// A member that has joined.
struct Member {
    consumer: Arc<Consumer>,
    lanes: Arc<Lanes>,
    stop: CancellationToken,
    pause: Duration,
}

impl Member {
    async fn run(self) {
        let mut committed = Instant::now();
        let mut is_lost = false;
        while !self.stop.is_cancelled() {
            match self.poll().await {
                Ok(()) => is_lost = false,
                Err(error) => {
                    if !is_lost {
                        tracing::warn!(%error, "kafka cannot be read; trying again");
                    }
                    is_lost = true;
                    let _ = time::timeout(self.pause, self.stop.cancelled()).await;
                }
            }
            if committed.elapsed() >= COMMIT_INTERVAL {
                let offsets = self.lanes.offsets();
                if commit(&self.consumer, &offsets).await {
                    self.lanes.committed(&offsets);
                }
                committed = Instant::now();
            }
        }
        let offsets = self.lanes.end(|_| true).await;
        // A server that is gone is not waited for.
        let _ = time::timeout(CLOSE_LIMIT, commit(&self.consumer, &offsets)).await;
        if let Err(error) = self.consumer.close_with(CloseOptions::new().timeout(CLOSE_LIMIT)).await {
            tracing::debug!(%error, "kafka consumer did not close in good order");
        }
    }

    /// Reads once, and puts what came into the lanes.
    async fn poll(&self) -> Result<(), KrafkaError> {
        for partition in self.lanes.refill() {
            self.consumer.resume(partition.topic(), &[partition.partition()]).await;
        }
        // Never dropped: partitions may be changing hands in there.
        let poll = self.consumer.poll(POLL);
        tokio::pin!(poll);
        let polled = tokio::select! {
            polled = &mut poll => polled,
            () = self.stop.cancelled() => {
                self.consumer.wakeup();
                poll.await
            }
        };
        let records = match polled {
            Ok(records) => records,
            Err(KrafkaError::Wakeup) => return Ok(()),
            Err(error) => return Err(error),
        };
        for partition in self.lanes.push(records) {
            self.consumer.pause(partition.topic(), &[partition.partition()]).await;
        }
        Ok(())
    }
}

/// Whether the group knows now what was handled.
async fn commit(consumer: &Consumer, offsets: &Offsets) -> bool {
    if offsets.is_empty() {
        return true;
    }
    let committed = consumer.commit_offsets(offsets.iter().map(|(partition, offset)| (partition, offset))).await;
    if let Err(error) = &committed {
        // What is not committed comes again: to us or to whoever has the partition now.
        tracing::debug!(%error, "kafka was not told what was handled");
    }
    committed.is_ok()
}

/// Sees partitions come and go.
struct Watch {
    lanes: Arc<Lanes>,
    consumer: Arc<OnceLock<Weak<Consumer>>>,
    is_member: Arc<AtomicBool>,
}

impl ConsumerRebalanceListener for Watch {
    async fn on_partitions_assigned(&self, partitions: &[TopicPartition]) {
        if let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) {
            remember_start(&consumer, partitions).await;
        }
        self.is_member.store(true, Ordering::Release);
    }

    async fn on_partitions_revoked(&self, partitions: &[TopicPartition]) {
        let ending = self.lanes.end(|partition| partitions.contains(partition));
        let Ok(offsets) = time::timeout(HANDOVER_LIMIT, ending).await else { return };
        if let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) {
            commit(&consumer, &offsets).await;
        }
    }

    async fn on_partitions_lost(&self, partitions: &[TopicPartition]) {
        self.lanes.forget(partitions);
    }
}

/// Commits where a group begins that has never been here: what is published from now on is for it, even if its first
/// member is gone before it has handled anything.
async fn remember_start(consumer: &Consumer, partitions: &[TopicPartition]) {
    let wanted: Vec<_> = partitions.iter().map(|partition| (partition.topic(), partition.partition())).collect();
    let Ok(known) = consumer.committed(&wanted).await else { return };
    let mut starts = Vec::new();
    for (topic, partition) in wanted {
        if known.contains_key(&(topic.to_owned(), partition)) {
            continue;
        }
        if let Some(offset) = consumer.position(topic, partition).await {
            starts.push((TopicPartition::new(topic, partition), OffsetAndMetadata::new(offset)));
        }
    }
    commit(consumer, &starts).await;
}
