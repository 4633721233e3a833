//! The subscriptions of an app: opening them when the app is ready, keeping them open, closing them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    select,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep,
};
use trilby_component::{
    CancellationToken, ComponentError, ErrorKind,
    pubsub::{Sink, SubscribeRequest, Subscription as Reading},
};

use super::{
    EventStream, Origin, Outbox, PubSubApi, Route, StreamRequest, Subscription,
    delivery::{Prepared, Recipient},
    subscription::{break_loops, merge},
};
use crate::{AppChannel, ChannelError, Code, Ctx, Error, Result, resiliency::Failure as _};

/// How long to wait before an app is asked again for its subscriptions; Dapr's built-in initialization retries.
const ASK_AGAIN: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(1)];
/// How long to wait before a subscription that failed is opened again, at first and at most; Dapr's.
const OPEN_AGAIN: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// Events of a stream that wait to be taken. The broker decides how many are under way; this is only the way to the
/// caller.
const STREAM_BUFFER: usize = 16;

/// The part of the block that has to do with what comes in.
pub(super) struct Subscriber {
    declared: Vec<Subscription>,
    state: Mutex<State>,
    /// Ends streams too.
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    /// What the app asked for. It is asked once.
    asked: Option<Vec<Subscription>>,
    /// The subscriptions that count.
    listed: Vec<Arc<Subscription>>,
    streams: Vec<Weak<Subscription>>,
    running: Option<Running>,
}

/// The subscriptions that are open, and those that are being opened.
struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Default for Subscriber {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Subscriber {
    pub(super) fn new(declared: Vec<Subscription>) -> Self {
        let listed = merge(declared.clone(), []).into_iter().map(Arc::new).collect();
        Self { declared, state: Mutex::new(State { listed, ..State::default() }), closed: CancellationToken::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The subscriptions that count, after the app has said what it wants.
    async fn wanted(&self, channel: &Arc<dyn AppChannel>, stop: &CancellationToken) -> Vec<Arc<Subscription>> {
        let known = self.state().asked.clone();
        let asked = match known {
            Some(asked) => Some(asked),
            None => select! {
                asked = ask(channel) => asked,
                () = stop.cancelled() => None,
            },
        };
        let mut merged = merge(self.declared.clone(), asked.clone().unwrap_or_default());
        let shown: Vec<_> = merged.iter().cloned().map(Arc::new).collect();
        for (topic, dead_letter_topic) in break_loops(&mut merged) {
            tracing::error!(topic, dead_letter_topic, "dead-letter topic leads back to its own topic and is not used");
        }
        let mut state = self.state();
        state.asked = asked;
        state.listed = shown;
        merged.into_iter().map(Arc::new).collect()
    }
}

async fn ask(channel: &Arc<dyn AppChannel>) -> Option<Vec<Subscription>> {
    let ctx = Ctx::default();
    // An app that answers something else will answer that again.
    let can_change = |error: &ChannelError| error.is_retryable() && error.status.is_none_or(|status| status >= 500);
    let mut waits = ASK_AGAIN.into_iter();
    loop {
        let error = match channel.subscriptions(&ctx).await {
            Ok(asked) => return Some(asked),
            Err(error) => error,
        };
        let Some(wait) = waits.next().filter(|_| can_change(&error)) else {
            tracing::error!(%error, "app did not say what it subscribes to");
            return None;
        };
        tracing::warn!(%error, "app did not say what it subscribes to, asking again");
        sleep(wait).await;
    }
}

impl PubSubApi {
    /// The subscriptions that count, as metadata lists them.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        let state = self.subscriber.state();
        state.listed.iter().cloned().chain(state.streams.iter().filter_map(Weak::upgrade)).collect()
    }

    /// Opens what resources declare and what the app asks for; returns when each was tried once. What cannot be opened
    /// is tried again until [`stop`](Self::stop). Does nothing if it is open.
    pub async fn start(&self, channel: &Arc<dyn AppChannel>) {
        if self.brokers.is_empty() {
            return;
        }
        let stop = self.subscriber.closed.child_token();
        {
            let mut state = self.subscriber.state();
            if state.running.is_some() || stop.is_cancelled() {
                return;
            }
            state.running = Some(Running { stop: stop.clone(), tasks: JoinSet::new() });
        }
        join_all(self.outboxes.values().map(Outbox::open)).await;
        let wanted = self.subscriber.wanted(channel, &stop).await;
        let prepared = wanted.into_iter().filter_map(|subscription| {
            let (pubsub, topic) = (subscription.pubsub.clone(), subscription.topic.clone());
            self.prepare(subscription, Recipient::App(Arc::clone(channel)), stop.clone())
                .inspect_err(|reason| tracing::error!(pubsub, topic, reason, "subscription not opened"))
                .ok()
        });
        let mut tried = Vec::new();
        if let Some(running) = &mut self.subscriber.state().running
            && !stop.is_cancelled()
        {
            for prepared in prepared {
                let (once, waiting) = oneshot::channel();
                tried.push(waiting);
                running.tasks.spawn(keep_open(prepared, None, Some(once)));
            }
        }
        join_all(tried).await;
    }

    /// Closes what [`start`](Self::start) opened, after the deliveries that are under way. Dropping the future cuts them
    /// off; what is not settled is not acknowledged.
    pub async fn stop(&self) {
        let Some(mut running) = self.subscriber.state().running.take() else { return };
        running.stop.cancel();
        while running.tasks.join_next().await.is_some() {}
    }

    /// As [`stop`](Self::stop), for good. Streams end too, once their readers have settled what they took.
    pub async fn close(&self) {
        self.subscriber.closed.cancel();
        self.stop().await;
        join_all(self.outboxes.values().map(|outbox| outbox.close())).await;
    }

    /// Opens a subscription whose events the caller takes one by one: Dapr's streaming subscription. It lasts until the
    /// stream is dropped.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`Code::PubSubForbidden`]; [`Code::PubSubPublish`] if the broker refuses it.
    pub async fn stream(&self, _: &Ctx, request: StreamRequest) -> Result<EventStream> {
        let StreamRequest { pubsub, topic, metadata, dead_letter_topic } = request;
        self.check(&pubsub, &topic, &metadata)?;
        let subscription = Arc::new(Subscription {
            pubsub,
            topic,
            metadata,
            route: Route { rules: Vec::new(), default: Some("/".to_owned()) },
            dead_letter_topic: dead_letter_topic.filter(|topic| !topic.is_empty()),
            bulk: None,
            order_by: None,
            scopes: Vec::new(),
            origin: Origin::Streaming,
        });
        let name = &subscription.pubsub;
        let failed = |reason: &dyn std::fmt::Display| format!("failed to create subscription for {name}: {reason}");
        let stop = self.subscriber.closed.child_token();
        let (sender, events) = mpsc::channel(STREAM_BUFFER);
        let prepared = self
            .prepare(Arc::clone(&subscription), Recipient::Stream(sender), stop.clone())
            .map_err(|reason| Error::new(Code::PubSubForbidden, failed(&reason)))?;
        let reading = open(&prepared)
            .await
            .map_err(|cause| Error::from_component(Code::PubSubPublish, failed(&cause), &cause))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_open(prepared, Some(reading), None));
        // Its own, since the broker may let go of the other one later.
        let listed = Arc::new(Subscription::clone(&subscription));
        let mut state = self.subscriber.state();
        state.streams.retain(|stream| stream.strong_count() > 0);
        state.streams.push(Arc::downgrade(&listed));
        drop(state);
        Ok(EventStream { events, stop, _listed: listed, _reading: tasks })
    }

    /// # Errors
    /// A text for people: no such broker, topic not allowed, or what [`Prepared::new`] says.
    fn prepare(
        &self,
        subscription: Arc<Subscription>,
        recipient: Recipient,
        stop: CancellationToken,
    ) -> Result<Prepared, String> {
        let Subscription { pubsub, topic, .. } = &*subscription;
        let broker = self.brokers.get(pubsub).ok_or_else(|| format!("pubsub {pubsub} is not found"))?;
        if !broker.scopes.allow_subscription(topic) {
            return Err(format!("subscription to topic '{topic}' on pubsub '{pubsub}' is not allowed"));
        }
        Prepared::new(Arc::clone(&subscription), Arc::clone(broker), recipient, stop)
    }
}

/// Asks the broker for a subscription. Not a call that policies repeat: [`keep_open`] does.
async fn open(prepared: &Prepared) -> trilby_component::Result<Reading> {
    let consumer = &prepared.consumer;
    let request = SubscribeRequest {
        topic: format!("{}{}", consumer.broker.topic_prefix, consumer.subscription.topic),
        metadata: consumer.subscription.metadata.clone(),
        bulk: consumer.subscription.bulk,
    };
    let sink = Arc::clone(consumer) as Arc<dyn Sink>;
    let stop = consumer.stop.clone();
    select! {
        reading = consumer.broker.handle.begin(|broker| broker.subscribe(&request, sink, stop)) => reading,
        () = consumer.stop.cancelled() => Err(ComponentError::new(ErrorKind::Unavailable, "the subscription ends")),
    }
}

/// Reads until the subscription is to end, and opens it again whenever the broker gives it up. `tried` is told, or
/// dropped, after the first attempt.
async fn keep_open(mut prepared: Prepared, mut reading: Option<Reading>, mut tried: Option<oneshot::Sender<()>>) {
    let [at_first, at_most] = OPEN_AGAIN;
    let mut wait = at_first;
    let consumer = Arc::clone(&prepared.consumer);
    let Subscription { pubsub, topic, .. } = &*consumer.subscription;
    loop {
        let opened = match reading.take() {
            Some(reading) => Ok(reading),
            None => open(&prepared).await,
        };
        drop(tried.take());
        let ended = match opened {
            Ok(reading) => {
                tracing::info!(pubsub, topic, "subscribed");
                wait = at_first;
                prepared.run(reading).await
            }
            Err(error) => Err(error),
        };
        if consumer.stop.is_cancelled() {
            return;
        }
        match ended {
            Ok(()) => tracing::warn!(pubsub, topic, ?wait, "subscription has ended, opening it again"),
            Err(error) => tracing::error!(pubsub, topic, %error, ?wait, "subscription failed, opening it again"),
        }
        select! {
            () = sleep(wait) => {}
            () = consumer.stop.cancelled() => return,
        }
        wait = (wait * 3 / 2).min(at_most);
    }
}
