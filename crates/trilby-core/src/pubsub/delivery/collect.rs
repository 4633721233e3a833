//! Collecting the messages of a broker that gives them one by one, for an app that wants several at once.

use std::convert::Infallible;

use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use trilby_component::pubsub::{Bulk, Message, NotHandled};

use super::{Consumer, ending};

/// A message that waits for others.
pub(super) struct Pending {
    message: Message,
    settled: oneshot::Sender<Result<(), NotHandled>>,
}

/// Puts a message into the queue of a collector, and waits for what becomes of it.
pub(super) async fn hand_over(queue: &mpsc::Sender<Pending>, message: Message) -> Result<(), NotHandled> {
    let (settled, outcome) = oneshot::channel();
    if queue.send(Pending { message, settled }).await.is_err() {
        return Err(ending());
    }
    outcome.await.unwrap_or_else(|_| Err(ending()))
}

/// Collects and delivers, one batch after the other, until it is dropped. A batch is full, or its first message has
/// waited long enough, or the subscription ends.
pub(super) async fn run(consumer: &Consumer, bulk: Bulk, queue: &mut mpsc::Receiver<Pending>) -> Infallible {
    let most = bulk.max_messages.max(1);
    let mut batch = Vec::with_capacity(most);
    loop {
        if queue.recv_many(&mut batch, most).await == 0 {
            // The consumer holds the other end.
            return std::future::pending().await;
        }
        let full_by = Instant::now() + bulk.max_await;
        while batch.len() < most {
            let room = most - batch.len();
            select! {
                biased;
                more = queue.recv_many(&mut batch, room) => if more == 0 { break },
                () = sleep_until(full_by) => break,
                () = consumer.stop.cancelled() => break,
            }
        }
        let (messages, settled): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|pending| (pending.message, pending.settled)).unzip();
        for (settled, outcome) in settled.into_iter().zip(consumer.deliver_batch(messages).await) {
            // Whoever has stopped waiting counts the message as not handled.
            let _ = settled.send(outcome);
        }
    }
}
