//! The lanes of a member: one for each partition that it has, in which records are handled in order.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use krafka::consumer::{ConsumerRecord, OffsetAndMetadata, TopicPartition};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{self, Instant},
};
use trilby_component::{CancellationToken, pubsub::Bulk};

/// Who handles records.
#[async_trait]
pub(crate) trait Receiver: Send + Sync + 'static {
    /// Hands on one record; says whether it was handled.
    async fn deliver(&self, record: &ConsumerRecord) -> bool;

    /// Hands on several of one partition; answers in their order.
    async fn deliver_bulk(&self, records: &[&ConsumerRecord]) -> Vec<bool>;
}

/// How records are handled.
#[derive(Clone)]
pub(crate) struct Handling {
    /// Attempts after the first; `None` for ever.
    pub(crate) retries: Option<u64>,
    /// Before each of them.
    pub(crate) pause: Duration,
    /// Set if several are handed on at once.
    pub(crate) bulk: Option<Bulk>,
    /// Most records of one lane that wait.
    pub(crate) buffer: usize,
}

/// What is called when a lane that was full has room again.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// What is to be committed: the first offset of each partition that is not handled.
pub(super) type Offsets = Vec<(TopicPartition, OffsetAndMetadata)>;

pub(super) struct Lanes {
    lanes: Mutex<HashMap<TopicPartition, Lane>>,
    receiver: Arc<dyn Receiver>,
    handling: Handling,
    wake: Wake,
}

struct Lane {
    records: mpsc::Sender<ConsumerRecord>,
    /// For which there was no room. While there are any, the partition is not read.
    overflow: VecDeque<ConsumerRecord>,
    progress: Arc<Progress>,
    committed: i64,
    stop: CancellationToken,
    /// The task that handles them. It ends with the lane.
    task: JoinSet<()>,
}

/// What a lane's task tells.
struct Progress {
    /// The first offset that is not handled; -1 before there is one.
    next: AtomicI64,
    is_full: AtomicBool,
}

impl Lanes {
    pub(super) fn new(receiver: Arc<dyn Receiver>, handling: Handling, wake: Wake) -> Self {
        Self { lanes: Mutex::default(), receiver, handling, wake }
    }

    /// Puts records into their lanes; gives the partitions that have become full.
    pub(super) fn push(&self, records: Vec<ConsumerRecord>) -> Vec<TopicPartition> {
        let mut lanes = self.lock();
        let mut full = Vec::new();
        for record in records {
            let partition = TopicPartition::new(&*record.topic, record.partition);
            let lane = lanes.entry(partition.clone()).or_insert_with(|| self.open());
            let rejected = match lane.overflow.is_empty() {
                true => lane.records.try_send(record).err().map(mpsc::error::TrySendError::into_inner),
                false => Some(record),
            };
            if let Some(record) = rejected {
                if lane.overflow.is_empty() {
                    lane.progress.is_full.store(true, Ordering::Release);
                    full.push(partition);
                }
                lane.overflow.push_back(record);
            }
        }
        full
    }

    /// Moves up what had no room; gives the partitions that have room again.
    pub(super) fn refill(&self) -> Vec<TopicPartition> {
        let mut roomy = Vec::new();
        for (partition, lane) in self.lock().iter_mut().filter(|(_, lane)| !lane.overflow.is_empty()) {
            while let Some(record) = lane.overflow.pop_front() {
                if let Err(error) = lane.records.try_send(record) {
                    lane.overflow.push_front(error.into_inner());
                    break;
                }
            }
            if lane.overflow.is_empty() {
                lane.progress.is_full.store(false, Ordering::Release);
                roomy.push(partition.clone());
            }
        }
        roomy
    }

    /// What is handled and not committed.
    pub(super) fn offsets(&self) -> Offsets {
        self.lock().iter().filter_map(|(partition, lane)| Some((partition.clone(), lane.handled()?))).collect()
    }

    /// Remembers what is committed.
    pub(super) fn committed(&self, offsets: &Offsets) {
        let mut lanes = self.lock();
        for (partition, committed) in offsets {
            if let Some(lane) = lanes.get_mut(partition) {
                lane.committed = committed.offset;
            }
        }
    }

    /// Ends lanes, each after what it has in hand; gives what they have handled.
    pub(super) async fn end(&self, which: impl Fn(&TopicPartition) -> bool) -> Offsets {
        let ending: Vec<_> = self.lock().extract_if(|partition, _| which(partition)).collect();
        for (_, lane) in &ending {
            lane.stop.cancel();
        }
        let mut offsets = Vec::new();
        for (partition, mut lane) in ending {
            while lane.task.join_next().await.is_some() {}
            offsets.extend(lane.handled().map(|offset| (partition, offset)));
        }
        offsets
    }

    /// Drops lanes whose partitions others have already.
    pub(super) fn forget(&self, which: &[TopicPartition]) {
        self.lock().retain(|partition, _| !which.contains(partition));
    }

    fn open(&self) -> Lane {
        // A whole batch fits in.
        let room = self.handling.bulk.map_or(1, |bulk| bulk.max_messages.min(10_000)).max(self.handling.buffer);
        let (records, waiting) = mpsc::channel(room);
        let progress = Arc::new(Progress { next: AtomicI64::new(-1), is_full: AtomicBool::new(false) });
        let stop = CancellationToken::new();
        let worker = Worker {
            waiting,
            progress: Arc::clone(&progress),
            stop: stop.clone(),
            receiver: Arc::clone(&self.receiver),
            handling: self.handling.clone(),
            wake: Arc::clone(&self.wake),
        };
        let mut task = JoinSet::new();
        task.spawn(worker.run());
        Lane { records, overflow: VecDeque::new(), progress, committed: -1, stop, task }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// The first offset that is not handled, if it is not committed.
    fn handled(&self) -> Option<OffsetAndMetadata> {
        let next = self.progress.next.load(Ordering::Acquire);
        (next > self.committed).then(|| OffsetAndMetadata::new(next))
    }
}

/// Handles the records of one partition.
struct Worker {
    waiting: mpsc::Receiver<ConsumerRecord>,
    progress: Arc<Progress>,
    stop: CancellationToken,
    receiver: Arc<dyn Receiver>,
    handling: Handling,
    wake: Wake,
}

impl Worker {
    async fn run(mut self) {
        while let Some(record) = self.next().await {
            let settled = match self.handling.bulk {
                Some(bulk) => {
                    let batch = self.collect(record, bulk).await;
                    self.handle_batch(batch).await
                }
                None => self.handle(record).await,
            };
            if !settled {
                return;
            }
        }
    }

    /// `None` once the lane has ended.
    async fn next(&mut self) -> Option<ConsumerRecord> {
        let record = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            record = self.waiting.recv() => record,
        };
        if self.waiting.len() <= self.waiting.max_capacity() / 2 && self.progress.is_full.load(Ordering::Acquire) {
            (self.wake)();
        }
        record
    }

    /// Waits for others to go with the first.
    async fn collect(&mut self, first: ConsumerRecord, bulk: Bulk) -> Vec<ConsumerRecord> {
        let full_by = Instant::now() + bulk.max_await;
        let mut batch = vec![first];
        while batch.len() < bulk.max_messages {
            match time::timeout_at(full_by, self.next()).await {
                Ok(Some(record)) => batch.push(record),
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }

    /// Hands on one record until it is handled or given up; false if the lane ended before.
    async fn handle(&self, record: ConsumerRecord) -> bool {
        let mut attempt = 0;
        while !self.receiver.deliver(&record).await {
            if self.gives_up(attempt) {
                tracing::error!(
                    topic = &*record.topic,
                    partition = record.partition,
                    offset = record.offset,
                    "kafka message was not handled and is given up"
                );
                // As with Dapr: it comes again only if nothing after it is handled.
                return true;
            }
            attempt += 1;
            if !self.wait().await {
                return false;
            }
        }
        self.done(record.offset);
        true
    }

    /// As [`Worker::handle`]; what was handled is not handed on again with the rest.
    async fn handle_batch(&self, batch: Vec<ConsumerRecord>) -> bool {
        let mut left: Vec<_> = batch.iter().collect();
        let mut attempt = 0;
        loop {
            let handled = self.receiver.deliver_bulk(&left).await;
            let mut handled = handled.into_iter();
            left.retain(|_| !handled.next().unwrap_or(false));
            match left.first() {
                // Everything before it is handled.
                Some(first) => self.done(first.offset - 1),
                None => break,
            }
            if self.gives_up(attempt) {
                tracing::error!(count = left.len(), "kafka messages were not handled and are given up");
                break;
            }
            attempt += 1;
            if !self.wait().await {
                return false;
            }
        }
        if let Some(last) = batch.last() {
            self.done(last.offset);
        }
        true
    }

    fn gives_up(&self, attempt: u64) -> bool {
        self.handling.retries.is_some_and(|retries| attempt >= retries)
    }

    /// False if the lane ended meanwhile.
    async fn wait(&self) -> bool {
        time::timeout(self.handling.pause, self.stop.cancelled()).await.is_err()
    }

    fn done(&self, offset: i64) {
        self.progress.next.fetch_max(offset + 1, Ordering::Release);
    }
}
