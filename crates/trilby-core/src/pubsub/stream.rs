//! Streaming subscriptions: the caller pulls events and settles each.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use trilby_component::{CancellationToken, Metadata};

use super::{Event, Outcome, Subscription};

/// Opens a streaming subscription.
#[derive(Debug, Clone, Default)]
pub struct StreamRequest {
    /// The component's name.
    pub pubsub: String,
    /// The topic, without prefix.
    pub topic: String,
    /// What the broker understands, and `rawPayload`.
    pub metadata: Metadata,
    /// Where events go that are dropped or given up.
    pub dead_letter_topic: Option<String>,
}

/// An open streaming subscription. Dropping it closes it; events that are not settled count as not handled.
pub struct EventStream {
    pub(super) events: mpsc::Receiver<StreamedEvent>,
    pub(super) stop: CancellationToken,
    /// What metadata list as long as this is there.
    pub(super) _listed: Arc<Subscription>,
    /// The reading of the broker, which ends with this.
    pub(super) _reading: JoinSet<()>,
}

/// An event, and the duty to settle it. Dropped unsettled, it counts as not handled.
#[derive(Debug)]
pub struct StreamedEvent {
    event: Event,
    topic: String,
    settled: oneshot::Sender<Outcome>,
}

impl EventStream {
    /// The next event; `None` once the runtime stops and what was under way is settled.
    pub async fn next(&mut self) -> Option<StreamedEvent> {
        self.events.recv().await
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl StreamedEvent {
    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The topic that it came from, without prefix: with a wildcard, not the one that was subscribed to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Says what became of it.
    pub fn settle(self, outcome: Outcome) {
        // Nobody waits for it any more if the runtime has stopped.
        let _ = self.settled.send(outcome);
    }

    /// Gives an event to whoever reads the stream, and waits for what becomes of it; dropped unsettled, it is to be
    /// tried again. `None` if nobody reads the stream.
    pub(super) async fn hand_over(stream: &mpsc::Sender<Self>, event: &Event, topic: &str) -> Option<Outcome> {
        let (settled, outcome) = oneshot::channel();
        let event = Self { event: event.clone(), topic: topic.to_owned(), settled };
        stream.send(event).await.ok()?;
        Some(outcome.await.unwrap_or(Outcome::Retry))
    }
}
