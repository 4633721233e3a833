//! The loop that reads a topic: entries in, deliveries out, acknowledgements back.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    num::NonZero,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{Fuse, FusedFuture as _},
    stream::FuturesUnordered,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, MissedTickBehavior},
};
use trilby_component::{
    CancellationToken, Result,
    pubsub::{Message, NotHandled, Sink},
};

use super::{
    entry::{Entry, Id},
    group::Group,
};

/// How long entries may still come in that Redis is handing out when the subscription ends.
const GRACE: Duration = Duration::from_millis(100);

/// Acknowledgements go out together: when there are so many (or half of the queue), when there is nothing else to do, and
/// at the latest after so long. Each would cost a request as long as the delivery itself.
const ACKS: usize = 32;
const ACK_DELAY: Duration = Duration::from_millis(5);

/// When entries that were not handled are delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Redelivery {
    /// Between two looks for them.
    pub(super) every: Duration,
    /// How long they must have been pending.
    pub(super) after: Duration,
}

/// Reads one topic for one sink.
pub(super) struct Consumer {
    pub(super) group: Group,
    pub(super) sink: Arc<dyn Sink>,
    /// Shared by all topics of the component.
    pub(super) workers: Arc<Semaphore>,
    pub(super) queue_depth: NonZero<usize>,
    /// `None` if what is not handled is given up.
    pub(super) redelivery: Option<Redelivery>,
}

impl Consumer {
    /// Reads until `stop` is cancelled and what was begun until then is settled.
    ///
    /// Four things go on at the same time, each at most once: reading, taking over what others left, waiting for a
    /// worker, and acknowledging. Deliveries are begun in the order of the stream.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<()> {
        let mut hand = Hand::new(self.queue_depth);
        let mut delivering = FuturesUnordered::new();
        let mut reading = pin!(Fuse::terminated());
        let mut claiming = pin!(Fuse::terminated());
        let mut worker = pin!(Fuse::terminated());
        let mut acknowledging = pin!(Fuse::terminated());
        let mut ack_due = pin!(Fuse::terminated());
        let mut is_ack_due = false;
        let mut grace = pin!(Fuse::terminated());
        let mut stopped = pin!(stop.cancelled().fuse());
        let mut looks = time::interval(self.redelivery.map_or(Duration::MAX, |redelivery| redelivery.every));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut may_have_left = false;

        loop {
            if acknowledging.is_terminated() && !hand.handled.is_empty() {
                let is_idle = delivering.is_empty() && hand.queue.is_empty();
                if is_idle || is_ack_due || stopped.is_terminated() || hand.has_many_handled() {
                    acknowledging.set(self.group.acknowledge(mem::take(&mut hand.handled), &stop).fuse());
                    ack_due.set(Fuse::terminated());
                    is_ack_due = false;
                } else if ack_due.is_terminated() {
                    ack_due.set(time::sleep(ACK_DELAY).fuse());
                }
            }
            if !stopped.is_terminated() {
                if worker.is_terminated() && !hand.queue.is_empty() {
                    worker.set(Arc::clone(&self.workers).acquire_owned().fuse());
                }
                if claiming.is_terminated() && may_have_left && hand.room() > 0 {
                    claiming.set(self.claim(hand.ids.clone(), hand.queued(), hand.room()).fuse());
                }
                if reading.is_terminated() && claiming.is_terminated() && hand.wants_more() {
                    reading.set(self.group.read(hand.room()).fuse());
                }
            } else if delivering.is_empty() && acknowledging.is_terminated() && grace.is_terminated() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = &mut stopped => {
                    worker.set(Fuse::terminated());
                    grace.set(time::sleep(GRACE).fuse());
                }
                ids = &mut acknowledging => hand.let_go(&ids),
                () = &mut ack_due => is_ack_due = true,
                entries = &mut reading => hand.take(entries),
                (entries, is_full) = &mut claiming => {
                    hand.take(entries);
                    may_have_left = is_full;
                }
                Some((id, is_handled)) = delivering.next() => {
                    hand.settle(id, is_handled || self.redelivery.is_none());
                }
                permit = &mut worker => {
                    let permit = permit.expect("the semaphore is never closed");
                    delivering.extend(hand.queue.pop_front().map(|entry| self.deliver(entry, permit)));
                }
                _ = looks.tick(), if self.redelivery.is_some() => may_have_left = true,
                () = &mut grace => {
                    reading.set(Fuse::terminated());
                    claiming.set(Fuse::terminated());
                    self.hand_back(&hand.queued()).await;
                }
            }
        }
    }

    /// Whether the entry was handled.
    async fn deliver(&self, Entry { id, data, metadata }: Entry, permit: OwnedSemaphorePermit) -> (Id, bool) {
        let topic = self.group.topic();
        let delivery = self.sink.deliver(Message { topic: topic.to_owned(), data, content_type: None, metadata });
        let outcome = match self.redelivery {
            None => delivery.await,
            // Others may take it over after that time.
            Some(Redelivery { after, .. }) => time::timeout(after, delivery).await.unwrap_or_else(|_| {
                tracing::warn!(topic, %id, "given up after {after:?}, the processingTimeout; it will come again");
                Err(NotHandled("it took longer than processingTimeout".to_owned()))
            }),
        };
        drop(permit);
        (id, outcome.is_ok())
    }

    /// Takes over what nobody has handled, and keeps others from taking over what waits here. The answer also says
    /// whether there may be more.
    async fn claim(&self, in_hand: HashSet<Id>, queued: Vec<Id>, room: usize) -> (Vec<Entry>, bool) {
        let Some(Redelivery { after, .. }) = self.redelivery else { return (Vec::new(), false) };
        let claimed = async {
            self.group.set_idle(&queued, Duration::ZERO).await?;
            self.group.claim(after, room, &in_hand).await
        };
        match claimed.await {
            Ok(entries) => {
                let is_full = entries.len() == room;
                (entries, is_full)
            }
            Err(error) => {
                tracing::warn!(topic = self.group.topic(), %error, "cannot look for unhandled entries; trying again later");
                (Vec::new(), false)
            }
        }
    }

    /// Lets the next reader have what was read and not begun, without the wait for `processingTimeout`.
    async fn hand_back(&self, ids: &[Id]) {
        let Some(Redelivery { after, .. }) = self.redelivery else { return };
        if let Err(error) = self.group.set_idle(ids, after).await {
            tracing::warn!(topic = self.group.topic(), %error, "entries could not be handed back; they will come later");
        }
    }
}

/// The entries that this consumer has read and Redis does not know to be settled.
struct Hand {
    /// To be delivered, in the order of the stream.
    queue: VecDeque<Entry>,
    /// To be acknowledged.
    handled: Vec<Id>,
    /// All of them: in the queue, being delivered, or being acknowledged.
    ids: HashSet<Id>,
    depth: usize,
}

impl Hand {
    fn new(depth: NonZero<usize>) -> Self {
        Self { queue: VecDeque::new(), handled: Vec::new(), ids: HashSet::new(), depth: depth.get() }
    }

    fn take(&mut self, entries: Vec<Entry>) {
        let ids = &mut self.ids;
        self.queue.extend(entries.into_iter().filter(|entry| ids.insert(entry.id)));
    }

    /// What is not done with stays pending in Redis.
    fn settle(&mut self, id: Id, is_done: bool) {
        if is_done {
            self.handled.push(id);
        } else {
            self.ids.remove(&id);
        }
    }

    fn let_go(&mut self, ids: &[Id]) {
        for id in ids {
            self.ids.remove(id);
        }
    }

    fn queued(&self) -> Vec<Id> {
        self.queue.iter().map(|entry| entry.id).collect()
    }

    /// How many entries may be read.
    fn room(&self) -> usize {
        // What could not be acknowledged counts too: it must not grow without bound.
        self.depth.saturating_sub(self.queue.len().max(self.handled.len()))
    }

    fn has_many_handled(&self) -> bool {
        self.handled.len() >= ACKS.min(self.depth.div_ceil(2))
    }

    /// Whether reading is worth a request: in halves of the queue, not one by one.
    fn wants_more(&self) -> bool {
        self.room() >= self.depth.div_ceil(2)
    }
}
