//! Reads a queue for as long as nobody stops it, over as many connections as that takes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture};
use lapin::{
    BasicProperties, Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use tokio::{task::JoinSet, time};
use trilby_component::{CancellationToken, Result};

use super::{Link, explain, link};

/// What is read, and who handles it.
#[async_trait]
pub(crate) trait Source: Send + Sync + 'static {
    /// Declares what it needs, on a channel that is new; gives the queue.
    ///
    /// # Errors
    /// The server refuses it, or is gone.
    async fn declare(&self, channel: &Channel) -> lapin::Result<ShortString>;

    /// Hands on one message; says whether it was handled.
    async fn deliver(&self, data: Bytes, properties: BasicProperties) -> bool;
}

/// How a queue is read.
pub(crate) struct Consumer<S> {
    pub(crate) link: Arc<Link>,
    pub(crate) source: Arc<S>,
    pub(crate) stop: CancellationToken,
    /// Most messages that the server sends ahead. At least 1.
    pub(crate) prefetch: u16,
    /// Most messages at once; one keeps them in order.
    pub(crate) at_once: usize,
    /// Whether a message counts as handled as soon as it is here.
    pub(crate) auto_ack: bool,
    /// Whether what was not handled goes back into the queue; otherwise it is dropped, or dead-lettered.
    pub(crate) requeue: bool,
    /// Between two attempts to connect.
    pub(crate) reconnect_wait: Duration,
}

/// A queue that is being read.
struct Reading {
    channel: Arc<link::Channel>,
    consumer: lapin::Consumer,
}

impl<S: Source> Consumer<S> {
    /// Begins to read.
    ///
    /// # Errors
    /// `Unavailable` if the server cannot be reached; `Denied` or `Internal` if it refuses what is declared.
    pub(crate) async fn open(self) -> Result<BoxFuture<'static, Result<()>>> {
        let reading = self.consume().await.map_err(|error| explain(&error))?;
        Ok(Box::pin(async move {
            self.run(reading).await;
            Ok(())
        }))
    }

    async fn run(self, reading: Reading) {
        // Outlives a connection: what is in hand is handled, although the server will send it again.
        let mut in_hand = JoinSet::new();
        let mut reading = Some(reading);
        while let Some(mut current) = reading {
            self.read(&mut current, &mut in_hand).await;
            if self.stop.is_cancelled() {
                let Reading { channel, consumer } = &current;
                // What was sent ahead and not begun goes back to the queue when the channel is closed.
                let _ = channel.answer(channel.inner.basic_cancel(consumer.tag(), Default::default())).await;
                while in_hand.join_next().await.is_some() {}
                let _ = channel.close().await;
                return;
            }
            reading = self.reconnect().await;
        }
        while in_hand.join_next().await.is_some() {}
    }

    /// Returns when it is stopped, or the connection is lost.
    async fn read(&self, reading: &mut Reading, in_hand: &mut JoinSet<()>) {
        loop {
            let has_room = in_hand.len() < self.at_once;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                Some(_) = in_hand.join_next(), if !in_hand.is_empty() => {}
                next = reading.consumer.next(), if has_room => match next {
                    Some(Ok(delivery)) => {
                        let (source, channel) = (Arc::clone(&self.source), Arc::clone(&reading.channel));
                        in_hand.spawn(settle(source, channel, delivery, self.auto_ack, self.requeue));
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "rabbitmq subscription lost; reconnecting");
                        return;
                    }
                    None => return,
                },
            }
        }
    }

    /// Tries until it works; `None` if it is stopped first.
    async fn reconnect(&self) -> Option<Reading> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = time::sleep(self.reconnect_wait) => {}
            }
            match self.consume().await {
                Ok(reading) => return Some(reading),
                Err(error) => tracing::warn!(%error, "rabbitmq cannot be read; trying again"),
            }
        }
    }

    async fn consume(&self) -> lapin::Result<Reading> {
        let channel = self.link.channel().await?;
        let consume = async {
            let queue = self.source.declare(&channel.inner).await?;
            channel.inner.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            // Without a tag of ours the server makes one up, which no other consumer has.
            channel.inner.basic_consume(queue, "".into(), options, FieldTable::default()).await
        };
        let consumer = channel.answer(consume).await?;
        let channel = Arc::new(channel);
        Ok(Reading { channel, consumer })
    }
}

/// Hands on one message and tells the server what became of it.
async fn settle<S: Source>(
    source: Arc<S>,
    channel: Arc<link::Channel>,
    delivery: Delivery,
    auto_ack: bool,
    requeue: bool,
) {
    let Delivery { data, properties, acker, .. } = delivery;
    let ack = || channel.answer(acker.ack(BasicAckOptions::default()));
    // The server's own way to do this has no limit to what it sends ahead.
    let settled = if auto_ack {
        let settled = ack().await;
        source.deliver(data.into(), properties).await;
        settled
    } else if source.deliver(data.into(), properties).await {
        ack().await
    } else {
        channel.answer(acker.nack(BasicNackOptions { multiple: false, requeue })).await
    };
    if let Err(error) = settled {
        // The connection is gone, and the server sends the message again.
        tracing::debug!(%error, "rabbitmq was not told what became of a message");
    }
}
