//! `pubsub.in-memory`: messages within this process, gone when it ends. For development, tests, and handlers that want
//! a topic without a server.
//!
//! Every subscription gets every message that is published while it is open, in order. A subscription to `name*` gets
//! those of all topics that begin so, but for `name` itself. A message that nobody subscribes to is gone at once.

use std::{
    collections::HashMap,
    future::poll_fn,
    num::NonZero,
    pin::{Pin, pin},
    sync::{Arc, PoisonError, RwLock, Weak},
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time,
};
use trilby_component::{
    CancellationToken, ComponentError, ErrorKind, OpenRequest, Result,
    pubsub::{Feature, Message, PubSub, PublishRequest, Sink, SubscribeRequest, Subscription},
};

/// Messages longer than this are counted by their length too: the queue of a subscription holds [`QUEUE_BYTES`] of them.
const LONG_BYTES: usize = 64 << 10;
const QUEUE_BYTES: usize = 64 << 20;
/// How long publishing waits for room before it fails. A handler that publishes to its own full topic would wait for
/// itself forever.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pauses before a message that was not handled is delivered again: at first, and at most; each is twice the one before.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// `spec.metadata`. None of it is Dapr's: its broker has no settings, one message under way a subscription, and forgets
/// what was not handled.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    /// Messages of one subscription that are delivered at the same time. Default 1: one after the other, in order.
    concurrency: NonZero<u32>,
    /// Messages of one subscription that wait to be delivered; publishing waits when they are so many. Default 1000.
    queue_depth: NonZero<u32>,
    /// How often a message that was not handled is delivered again before it is given up; the messages behind it wait.
    /// Default 10, which takes half a minute.
    max_redeliveries: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: NonZero::<u32>::MIN,
            queue_depth: NonZero::new(1000).expect("it is not zero"),
            max_redeliveries: 10,
        }
    }
}

/// Opens a broker of its own.
///
/// # Errors
/// `InvalidMetadata`.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn PubSub>> {
    Ok(Arc::new(InMemory { config: request.properties.parse()?, queues: Arc::default() }))
}

struct InMemory {
    config: Config,
    queues: Arc<RwLock<Queues>>,
}

#[async_trait]
impl PubSub for InMemory {
    fn features(&self) -> &[Feature] {
        &[Feature::SubscribeWildcards]
    }

    fn is_broadcast(&self) -> bool {
        true
    }

    async fn publish(&self, request: &PublishRequest) -> Result<()> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner).of(&request.topic);
        for queue in queues {
            queue.push(to_message(request)).await?;
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        request: &SubscribeRequest,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Subscription> {
        let (sender, receiver) = mpsc::channel(self.config.queue_depth.get() as usize);
        let queue = Arc::new(Queue { sender, room: Arc::new(Semaphore::new(QUEUE_BYTES)) });
        self.queues.write().unwrap_or_else(PoisonError::into_inner).add(&request.topic, Arc::clone(&queue));
        let listing = Listing { queues: Arc::downgrade(&self.queues), topic: request.topic.clone(), queue };
        let reader = Reader { receiver, sink, stop, max_redeliveries: self.config.max_redeliveries };
        let concurrency = self.config.concurrency.get() as usize;
        Ok(Box::pin(async move {
            let _listing = listing;
            if concurrency == 1 {
                reader.one_by_one().await
            } else {
                reader.at_once(concurrency).await
            }
            Ok(())
        }))
    }

    async fn close(&self) {
        *self.queues.write().unwrap_or_else(PoisonError::into_inner) = Queues::default();
    }
}

fn to_message(request: &PublishRequest) -> Message {
    Message {
        topic: request.topic.clone(),
        data: request.data.clone(),
        // As with Dapr's: subscribers get what the publisher says in the data and in metadata only.
        content_type: None,
        metadata: request.metadata.clone(),
    }
}

/// The queues of all subscriptions.
#[derive(Default)]
struct Queues {
    by_topic: HashMap<String, Vec<Arc<Queue>>>,
    /// By what comes before the `*`.
    by_prefix: Vec<(String, Arc<Queue>)>,
}

impl Queues {
    fn of(&self, topic: &str) -> Vec<Arc<Queue>> {
        let begins = |prefix: &str| topic.len() > prefix.len() && topic.starts_with(prefix);
        let wide = self.by_prefix.iter().filter(|(prefix, _)| begins(prefix)).map(|(_, queue)| queue);
        self.by_topic.get(topic).into_iter().flatten().chain(wide).cloned().collect()
    }

    fn add(&mut self, topic: &str, queue: Arc<Queue>) {
        if let Some(prefix) = topic.strip_suffix('*') {
            self.by_prefix.push((prefix.to_owned(), Arc::clone(&queue)));
        }
        // Also the name itself: a topic may be called `*`.
        self.by_topic.entry(topic.to_owned()).or_default().push(queue);
    }

    fn remove(&mut self, topic: &str, queue: &Arc<Queue>) {
        self.by_prefix.retain(|(_, listed)| !Arc::ptr_eq(listed, queue));
        if let Some(listed) = self.by_topic.get_mut(topic) {
            listed.retain(|listed| !Arc::ptr_eq(listed, queue));
            if listed.is_empty() {
                self.by_topic.remove(topic);
            }
        }
    }
}

/// The messages that wait for one subscription.
struct Queue {
    sender: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// A message, and its share of the room if it is a long one.
type Waiting = (Message, Option<OwnedSemaphorePermit>);

impl Queue {
    async fn push(&self, message: Message) -> Result<()> {
        let waiting = match message.data.len() {
            ..=LONG_BYTES => (message, None),
            length => {
                let share = u32::try_from(length.min(QUEUE_BYTES)).unwrap_or(u32::MAX);
                let room = Arc::clone(&self.room).acquire_many_owned(share);
                let Ok(room) = time::timeout(PATIENCE, room).await else { return Err(full(&message.topic)) };
                (message, room.ok())
            }
        };
        // One that cannot be sent is for a subscription that has just ended.
        match self.sender.try_send(waiting) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(waiting)) => {
                let sending = self.sender.reserve();
                match time::timeout(PATIENCE, sending).await {
                    Ok(Ok(place)) => place.send(waiting),
                    Ok(Err(_)) => {}
                    Err(_) => return Err(full(&waiting.0.topic)),
                }
                Ok(())
            }
        }
    }
}

fn full(topic: &str) -> ComponentError {
    let message = format!("a subscription to topic {topic} has had no room for {PATIENCE:?}: its app is too slow");
    ComponentError::new(ErrorKind::Unavailable, message)
}

/// A queue's place in the list, given back when the subscription ends.
struct Listing {
    queues: Weak<RwLock<Queues>>,
    topic: String,
    queue: Arc<Queue>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        if let Some(queues) = self.queues.upgrade() {
            queues.write().unwrap_or_else(PoisonError::into_inner).remove(&self.topic, &self.queue);
        }
    }
}

/// The side of a queue that delivers.
struct Reader {
    receiver: mpsc::Receiver<Waiting>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
    max_redeliveries: u32,
}

impl Reader {
    async fn one_by_one(mut self) {
        let mut stopped = pin!(self.stop.cancelled());
        while let Some(waiting) = next(&mut self.receiver, stopped.as_mut()).await {
            settle(&*self.sink, &self.stop, self.max_redeliveries, waiting).await;
        }
    }

    async fn at_once(mut self, concurrency: usize) {
        let mut stopped = pin!(self.stop.cancelled());
        let mut deliveries = JoinSet::new();
        while let Some(waiting) = next(&mut self.receiver, stopped.as_mut()).await {
            let (sink, stop, max_redeliveries) = (Arc::clone(&self.sink), self.stop.clone(), self.max_redeliveries);
            let mut delivery = Box::pin(async move { settle(&*sink, &stop, max_redeliveries, waiting).await });
            // Begun here, so that messages reach the sink in order; a task is only for those that have to wait.
            if poll_fn(|cx| Poll::Ready(delivery.as_mut().poll(cx).is_pending())).await {
                deliveries.spawn(delivery);
            }
            while deliveries.try_join_next().is_some() {}
            if deliveries.len() >= concurrency {
                deliveries.join_next().await;
            }
        }
        while deliveries.join_next().await.is_some() {}
    }
}

/// The next message, unless the subscription is to end.
async fn next(receiver: &mut mpsc::Receiver<Waiting>, stopped: Pin<&mut impl Future<Output = ()>>) -> Option<Waiting> {
    select! {
        biased;
        () = stopped => None,
        waiting = receiver.recv() => waiting,
    }
}

/// Delivers a message until it is handled or given up, or the subscription ends.
async fn settle(sink: &dyn Sink, stop: &CancellationToken, max_redeliveries: u32, (message, _room): Waiting) {
    let [mut pause, longest] = BACK_OFF;
    for _ in 0..max_redeliveries {
        if sink.deliver(message.clone()).await.is_ok() {
            return;
        }
        select! {
            () = stop.cancelled() => return,
            () = time::sleep(pause) => pause = (pause * 2).min(longest),
        }
    }
    let topic = message.topic.clone();
    if let Err(reason) = sink.deliver(message).await
        && !stop.is_cancelled()
    {
        tracing::error!(topic, %reason, "message given up: configure a dead-letter topic to keep such messages");
    }
}

#[cfg(test)]
mod tests;
