//! The loop that reads a topic through a push consumer.

use std::{
    collections::{BTreeSet, VecDeque},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use async_nats::jetstream::{AckKind, Message as Received};
use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    future::{Fuse, FusedFuture as _},
    stream::FuturesUnordered,
};
use tokio::time::{self, MissedTickBehavior};
use trilby_component::{
    CancellationToken, Metadata, Result,
    pubsub::{Message, Sink},
};

use super::{
    line::{Line, Source, Terms},
    settings::Concurrency,
};

/// How often a subscription makes sure that its consumer is still there.
const CHECK: Duration = Duration::from_secs(5);

/// Longest time that an answer may wait for a connection.
const LIMIT: Duration = Duration::from_secs(5);

/// Pauses before a message is sent again that was not handled: none the first time, then these.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Reads one topic for one sink.
pub(super) struct Reader {
    pub(super) source: Source,
    pub(super) sink: Arc<dyn Sink>,
}

/// What came of a delivery.
struct Settled {
    sequence: u64,
    /// Whether the server will not send it again.
    is_final: bool,
}

impl Reader {
    /// Reads until `stop` is cancelled and what was begun until then is settled. Deliveries begin in the order in which
    /// messages come.
    pub(super) async fn run(self, mut line: Line, stop: CancellationToken) -> Result<()> {
        let mut hand = Hand::new(line.next);
        let mut delivering = FuturesUnordered::new();
        let mut checking = pin!(Fuse::terminated());
        let mut attaching = pin!(Fuse::terminated());
        let mut stopped = pin!(stop.cancelled());
        let mut checks = time::interval_at(time::Instant::now() + CHECK, CHECK);
        let mut holds = time::interval((line.terms.ack_wait / 2).max(FIRST_PAUSE));
        holds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while delivering.len() < self.concurrency(&line)
                && let Some(message) = hand.queue.pop_front()
            {
                delivering.push(self.deliver(message, line.terms));
            }
            let has_room = attaching.is_terminated() && hand.queue.len() < line.depth;
            tokio::select! {
                biased;
                () = &mut stopped => break,
                Some(settled) = delivering.next() => hand.settle(&settled),
                message = line.messages.next(), if has_room => match message {
                    Some(Ok(message)) => hand.take(message),
                    // The server is late with its heartbeat.
                    Some(Err(_)) => checks.reset_immediately(),
                    None => attaching.set(self.source.attach_again(hand.resume_at()).fuse()),
                },
                _ = checks.tick(), if checking.is_terminated() && attaching.is_terminated() => {
                    checking.set(self.source.is_gone(line.stream.clone(), line.consumer.clone()).fuse());
                }
                is_gone = &mut checking => if is_gone && attaching.is_terminated() {
                    attaching.set(self.source.attach_again(hand.resume_at()).fuse());
                },
                again = &mut attaching => {
                    line = again;
                    hand.forget();
                }
                // They are not lost but wait for their turn.
                _ = holds.tick(), if line.terms.is_acknowledged => {
                    self.answer_all(&hand.queue, AckKind::Progress).await;
                }
            }
        }
        self.finish(line, hand, delivering).await;
        Ok(())
    }

    /// Gives back what was not begun, and waits for the rest.
    async fn finish(&self, mut line: Line, mut hand: Hand, mut delivering: impl Stream<Item = Settled> + Unpin) {
        hand.queue.extend(std::iter::from_fn(|| line.messages.next().now_or_never()??.ok()));
        let terms = line.terms;
        // What is given back must not come again here.
        drop(line);
        if terms.is_acknowledged {
            self.answer_all(&hand.queue, AckKind::Nak(None)).await;
        }
        while delivering.next().await.is_some() {}
        if time::timeout(LIMIT, self.source.client.flush()).await.is_err() {
            tracing::warn!(
                topic = self.source.topic,
                "the last acknowledgements did not get out; some messages may come again"
            );
        }
    }

    fn concurrency(&self, line: &Line) -> usize {
        match self.source.settings.concurrency {
            Concurrency::Single => 1,
            Concurrency::Parallel => line.depth,
        }
    }

    async fn deliver(&self, message: Received, terms: Terms) -> Settled {
        let Ok((sequence, delivered)) = message.info().map(|info| (info.stream_sequence, info.delivered)) else {
            // It does not come from a stream, and there is nobody to answer.
            return Settled { sequence: 0, is_final: true };
        };
        let topic = message.subject.to_string();
        let metadata = Metadata::from([("Topic".to_owned(), topic.clone())]);
        let data = message.payload.clone();
        let outcome = self.sink.deliver(Message { topic, data, content_type: None, metadata }).await;
        if !terms.is_acknowledged {
            return Settled { sequence, is_final: true };
        }
        let answer = if outcome.is_ok() { AckKind::Ack } else { AckKind::Nak(self.pause_after(delivered)) };
        self.answer(&message, answer).await;
        let was_last = terms.max_deliver > 0 && delivered >= terms.max_deliver;
        Settled { sequence, is_final: outcome.is_ok() || was_last }
    }

    async fn answer_all(&self, messages: &VecDeque<Received>, answer: AckKind) {
        for message in messages {
            if !self.answer(message, answer).await {
                return;
            }
        }
    }

    /// Whether the answer is on its way. The server notices for itself when one is lost, and sends the message again.
    async fn answer(&self, message: &Received, answer: AckKind) -> bool {
        matches!(time::timeout(LIMIT, message.ack_with(answer)).await, Ok(Ok(())))
    }

    fn pause_after(&self, delivered: i64) -> Option<Duration> {
        if !self.source.settings.ack_wait.is_zero() {
            return Some(self.source.settings.ack_wait);
        }
        let doublings = u32::try_from(delivered.checked_sub(2)?).ok()?;
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        Some(pause.min(LONGEST_PAUSE))
    }
}

/// What has been received and is not settled.
struct Hand {
    /// To be delivered, in the order in which it came.
    queue: VecDeque<Received>,
    /// Sequences of all that the server would have to send again.
    unsettled: BTreeSet<u64>,
    /// The first sequence that has not come yet.
    next: u64,
}

impl Hand {
    fn new(next: u64) -> Self {
        Self { queue: VecDeque::new(), unsettled: BTreeSet::new(), next }
    }

    fn take(&mut self, message: Received) {
        if let Ok(sequence) = message.info().map(|info| info.stream_sequence) {
            self.unsettled.insert(sequence);
            self.next = self.next.max(sequence + 1);
        }
        self.queue.push_back(message);
    }

    fn settle(&mut self, settled: &Settled) {
        if settled.is_final {
            self.unsettled.remove(&settled.sequence);
        }
    }

    /// The first message that a new consumer has to send.
    fn resume_at(&self) -> u64 {
        self.unsettled.first().copied().unwrap_or(self.next)
    }

    /// What waits here comes again from the new consumer, which knows nothing of the old one's messages.
    fn forget(&mut self) {
        self.queue.clear();
        self.unsettled.clear();
    }
}
