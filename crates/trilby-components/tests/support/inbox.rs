//! A sink for messages that remembers what came and answers as the test wants.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::{task::JoinHandle, time::sleep};
use trilby_component::{
    CancellationToken, Result,
    pubsub::{Message, NotHandled, PubSub, PublishRequest, Sink, SubscribeRequest},
};

use super::eventually;

type Answer = Box<dyn Fn(&Message, usize) -> Result<(), NotHandled> + Send + Sync>;

/// Every message that came, in the order in which its delivery began.
pub(crate) struct Inbox {
    messages: Mutex<Vec<Message>>,
    handled: Mutex<Vec<Message>>,
    answer: Answer,
    /// How long a delivery takes.
    pace: Duration,
    busy: AtomicUsize,
    most_busy: AtomicUsize,
}

impl Inbox {
    /// Handles everything at once.
    pub(crate) fn new() -> Arc<Self> {
        Self::answering(Duration::ZERO, |_, _| Ok(()))
    }

    /// Takes `pace` for each, and then gives the answer to the message and the number of times that it came before.
    pub(crate) fn answering(
        pace: Duration,
        answer: impl Fn(&Message, usize) -> Result<(), NotHandled> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            messages: Mutex::default(),
            handled: Mutex::default(),
            answer: Box::new(answer),
            pace,
            busy: AtomicUsize::new(0),
            most_busy: AtomicUsize::new(0),
        })
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.lock().expect("no panic").clone()
    }

    /// The data of all that came, as text.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.messages.lock().expect("no panic").iter().map(text).collect()
    }

    /// The data of all that was handled, and how often.
    pub(crate) fn handled(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for message in self.handled.lock().expect("no panic").iter() {
            *counts.entry(text(message)).or_default() += 1;
        }
        counts
    }

    /// How many deliveries were answered with success, repeated ones too.
    pub(crate) fn handled_count(&self) -> usize {
        self.handled.lock().expect("no panic").len()
    }

    /// Waits until so many deliveries have begun.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<String> {
        let came = || Some(self.texts()).filter(|texts| texts.len() >= count);
        eventually(&format!("{count} messages came"), came).await
    }

    /// Waits until so many different messages are handled.
    pub(crate) async fn wait_for_handled(&self, count: usize) -> BTreeMap<String, usize> {
        let done = || Some(self.handled()).filter(|handled| handled.len() >= count);
        eventually(&format!("{count} messages were handled"), done).await
    }

    pub(crate) fn most_busy(&self) -> usize {
        self.most_busy.load(Ordering::Relaxed)
    }

    pub(crate) fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }
}

/// Counts a delivery for as long as it lives, dropped ones too.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Sink for Inbox {
    async fn deliver(&self, message: Message) -> Result<(), NotHandled> {
        let busy = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        let _busy = Busy(&self.busy);
        self.most_busy.fetch_max(busy, Ordering::Relaxed);
        let before = {
            let mut messages = self.messages.lock().expect("no panic");
            let before = messages.iter().filter(|other| other.data == message.data).count();
            messages.push(message.clone());
            before
        };
        if !self.pace.is_zero() {
            sleep(self.pace).await;
        }
        (self.answer)(&message, before)?;
        self.handled.lock().expect("no panic").push(message);
        Ok(())
    }

    async fn deliver_bulk(&self, messages: Vec<Message>) -> Vec<Result<(), NotHandled>> {
        join_all(messages.into_iter().map(|message| self.deliver(message))).await
    }
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}

/// A subscription at work.
pub(crate) struct Open {
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Open {
    pub(crate) async fn subscribe(broker: &dyn PubSub, topic: &str, inbox: &Arc<Inbox>) -> Self {
        let request = SubscribeRequest { topic: topic.to_owned(), ..SubscribeRequest::default() };
        Self::with(broker, &request, inbox).await
    }

    pub(crate) async fn with(broker: &dyn PubSub, request: &SubscribeRequest, inbox: &Arc<Inbox>) -> Self {
        let stop = CancellationToken::new();
        let sink = Arc::clone(inbox) as Arc<dyn Sink>;
        let subscription = broker.subscribe(request, sink, stop.clone()).await.expect("subscribe");
        Self { stop, task: tokio::spawn(subscription) }
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("it ends without an error");
    }

    /// Ends it as a crash would: nothing is settled.
    pub(crate) async fn abort(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A message of these bytes, without metadata.
pub(crate) fn message(topic: &str, data: &str) -> PublishRequest {
    PublishRequest { topic: topic.to_owned(), data: data.to_owned().into(), ..PublishRequest::default() }
}
