//! One message on its way from a broker to the app: envelope, expiry, route, the app under the inbound policy, dead
//! letters.

mod attempt;
mod bulk;
mod collect;
mod dead_letter;
mod order;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::mpsc;
use trilby_component::{
    CancellationToken, Metadata,
    pubsub::{Bulk, Message, NotHandled, Sink, Subscription as Reading},
};

use super::{
    Broker, Event, Subscription,
    routing::{Router, subject},
    stream::StreamedEvent,
};
use crate::{
    AppChannel, Ctx, Trace,
    ctx::UNTRACED,
    metrics::{Fate, IngressMeter},
};

use attempt::{Unsettled, until_settled};
use collect::Pending;
use order::{Turn, Turns};

/// What an app made of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Handled.
    Ack,
    /// Not handled: deliver it again.
    Retry,
    /// Not wanted: to the dead-letter topic if there is one, else gone.
    Drop,
}

/// An event on its way to an app.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The event.
    pub event: &'a Event,
    /// The component's name.
    pub pubsub: &'a str,
    /// The topic, without prefix.
    pub topic: &'a str,
    /// The route that was chosen for it, as the subscription writes it.
    pub path: &'a str,
    /// What the broker says about the message.
    pub metadata: &'a Metadata,
}

/// One event of several.
#[derive(Debug, Clone)]
pub struct BulkEntry {
    /// Names the event in the answer; unique within the delivery.
    pub entry_id: String,
    /// The event; the bytes as they came if the subscription is raw.
    pub event: Result<Event, Bytes>,
    /// Media type of the entry: CloudEvents JSON, or octets if raw.
    pub content_type: String,
    /// What the broker says about the message.
    pub metadata: Metadata,
}

/// Several events of one topic, on their way to an app.
#[derive(Debug, Clone, Copy)]
pub struct BulkDelivery<'a> {
    /// Id of the delivery.
    pub id: &'a str,
    /// The events, in order.
    pub entries: &'a [&'a BulkEntry],
    /// The component's name.
    pub pubsub: &'a str,
    /// The topic, without prefix.
    pub topic: &'a str,
    /// The route that was chosen for them.
    pub path: &'a str,
    /// What the broker says about the batch.
    pub metadata: &'a Metadata,
}

/// Whom events are for.
pub(super) enum Recipient {
    App(Arc<dyn AppChannel>),
    Stream(mpsc::Sender<StreamedEvent>),
}

/// A subscription at work: where a broker's messages go.
pub(super) struct Consumer {
    pub(super) subscription: Arc<Subscription>,
    pub(super) broker: Arc<Broker>,
    /// Ends the subscription: no message is taken any more.
    pub(super) stop: CancellationToken,
    recipient: Recipient,
    router: Router,
    is_raw: bool,
    meter: Arc<IngressMeter>,
    turns: Arc<Turns>,
    /// Where messages wait for others, if the app wants several at once.
    batch: Option<mpsc::Sender<Pending>>,
}

/// A consumer, and what it collects.
pub(super) struct Prepared {
    pub(super) consumer: Arc<Consumer>,
    bulk: Option<(Bulk, mpsc::Receiver<Pending>)>,
}

impl Prepared {
    /// # Errors
    /// A text for people, if a rule is not CEL or `rawPayload` is neither true nor false.
    pub(super) fn new(
        subscription: Arc<Subscription>,
        broker: Arc<Broker>,
        recipient: Recipient,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let bulk = subscription.bulk.map(|settings| settings.or(Bulk::default()));
        let (batch, pending) = bulk.map(|bulk| mpsc::channel(bulk.max_messages.max(1))).unzip();
        let consumer = Consumer {
            router: Router::new(&subscription.route)?,
            is_raw: subscription.is_raw()?,
            meter: broker.ingress.topic(&subscription.topic),
            turns: Arc::default(),
            batch,
            recipient,
            stop,
            broker,
            subscription,
        };
        Ok(Self { consumer: Arc::new(consumer), bulk: bulk.zip(pending) })
    }

    /// Reads from the broker until that ends.
    pub(super) async fn run(&mut self, reading: Reading) -> trilby_component::Result<()> {
        match &mut self.bulk {
            Some((bulk, pending)) => tokio::select! {
                ended = reading => ended,
                never = collect::run(&self.consumer, *bulk, pending) => match never {},
            },
            None => reading.await,
        }
    }
}

#[async_trait]
impl Sink for Consumer {
    async fn deliver(&self, message: Message) -> Result<(), NotHandled> {
        match &self.batch {
            Some(queue) => collect::hand_over(queue, message).await,
            None => self.deliver_one(message).await,
        }
    }

    async fn deliver_bulk(&self, messages: Vec<Message>) -> Vec<Result<(), NotHandled>> {
        if self.batch.is_some() {
            return self.deliver_batch(messages).await;
        }
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            outcomes.push(self.deliver_one(message).await);
        }
        outcomes
    }
}

/// A message that needs no more work.
enum Sorted<'a> {
    /// It goes to the app, by this route.
    Wanted(Event, &'a str),
    /// Nobody waits for it any more, or ever did.
    Unwanted(Fate),
    /// It cannot be told what it is.
    Broken(String),
}

impl Consumer {
    async fn deliver_one(&self, message: Message) -> Result<(), NotHandled> {
        if self.stop.is_cancelled() {
            return Err(ending());
        }
        let topic = self.topic(&message);
        let (event, path) = match self.sort(&message, topic) {
            Sorted::Wanted(event, path) => (event, path),
            Sorted::Unwanted(fate) => {
                self.meter.record(fate, Duration::ZERO);
                self.bury(&message).await;
                return Ok(());
            }
            Sorted::Broken(reason) => return self.give_up(&message, reason).await,
        };
        let _turn = self.turn(&event).await;
        if self.stop.is_cancelled() {
            return Err(ending());
        }
        let ctx = ctx(&event);
        let pubsub = &self.subscription.pubsub;
        let delivery = Delivery { event: &event, pubsub, topic, path, metadata: &message.metadata };

        let settled = until_settled(&self.broker.inbound, &self.stop, || self.attempt(&ctx, &delivery)).await;

        match settled {
            Ok(Outcome::Drop) if self.subscription.dead_letter_topic.is_some() && !self.bury(&message).await => {
                self.meter.record(Fate::Retry, Duration::ZERO);
                Err(NotHandled("dropped by the app, and not taken by the dead-letter topic".to_owned()))
            }
            Ok(_) => Ok(()),
            // A failure at the end may be that of the end: the broker keeps the message for the next time.
            Err(_) if self.stop.is_cancelled() => Err(ending()),
            Err(reason) => self.give_up(&message, reason.to_string()).await,
        }
    }

    /// The message's topic as the app knows it.
    fn topic<'a>(&'a self, message: &'a Message) -> &'a str {
        match message.topic.as_str() {
            "" => &self.subscription.topic,
            topic => self.broker.strip(topic),
        }
    }

    fn sort(&self, message: &Message, topic: &str) -> Sorted<'_> {
        let Subscription { pubsub, .. } = &*self.subscription;
        let event = match Event::from_message(message, pubsub, topic, self.is_raw) {
            Ok(event) => event,
            Err(error) => return Sorted::Broken(error.to_string()),
        };
        if event.has_expired(SystemTime::now()) {
            tracing::warn!(pubsub, topic, id = event.id(), "event has expired, dropped");
            return Sorted::Unwanted(Fate::Drop);
        }
        match self.router.route(|| subject(&event)) {
            Ok(Some(path)) => Sorted::Wanted(event, path),
            Ok(None) => {
                tracing::debug!(pubsub, topic, id = event.id(), "event has no route, dropped");
                Sorted::Unwanted(Fate::Unwanted)
            }
            Err(reason) => Sorted::Broken(format!("route of event {} cannot be chosen: {reason}", event.id())),
        }
    }

    /// Waits until the events before it with the same key are settled.
    async fn turn(&self, event: &Event) -> Option<Turn> {
        let key = event.attribute(self.subscription.order_by.as_deref()?)?;
        Some(self.turns.take(key).await)
    }

    async fn attempt(&self, ctx: &Ctx, delivery: &Delivery<'_>) -> Result<Outcome, Unsettled> {
        let started = Instant::now();
        let outcome = match &self.recipient {
            Recipient::App(channel) => channel.deliver(ctx, delivery).await.map_err(Unsettled::Failed),
            Recipient::Stream(stream) => {
                StreamedEvent::hand_over(stream, delivery.event, delivery.topic).await.ok_or(Unsettled::Ending)
            }
        };
        let (fate, outcome) = match outcome {
            Ok(Outcome::Ack) => (Fate::Success, Ok(Outcome::Ack)),
            Ok(Outcome::Drop) => (Fate::Unwanted, Ok(Outcome::Drop)),
            Ok(Outcome::Retry) => (Fate::Retry, Err(Unsettled::Retry)),
            Err(error) => (Fate::Retry, Err(error)),
        };
        self.meter.record(fate, started.elapsed());
        if let Err(reason) = &outcome {
            let Delivery { event, pubsub, topic, .. } = delivery;
            tracing::warn!(pubsub, topic, id = event.id(), %reason, "event not handled");
        }
        outcome
    }

    /// Leaves a message to the dead-letter topic, or to the broker.
    async fn give_up(&self, message: &Message, reason: String) -> Result<(), NotHandled> {
        let pubsub = &self.subscription.pubsub;
        tracing::error!(pubsub, topic = message.topic, reason, "message given up");
        let is_buried = self.bury(message).await;
        self.meter.record(if is_buried { Fate::Drop } else { Fate::Retry }, Duration::ZERO);
        if is_buried { Ok(()) } else { Err(NotHandled(reason)) }
    }
}

fn ending() -> NotHandled {
    NotHandled(Unsettled::Ending.to_string())
}

/// The context of an event: the trace that it carries, if it carries one.
fn ctx(event: &Event) -> Ctx {
    let parent = event.attribute("traceparent").or_else(|| event.attribute("traceid"));
    let parent = parent.map(|parent| match HeaderValue::from_str(parent) {
        Ok(parent) if !parent.is_empty() => parent,
        _ => UNTRACED,
    });
    Ctx { trace: Trace { parent, ..Trace::default() }, deadline: None }
}

#[cfg(test)]
mod tests;
