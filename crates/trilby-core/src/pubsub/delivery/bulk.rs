//! Several messages at once: each is sorted for itself, those of one route go to the app together, and each has an
//! outcome of its own.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use trilby_component::{
    Metadata,
    pubsub::{Message, NotHandled},
};
use uuid::Uuid;

use super::{BulkDelivery, BulkEntry, Consumer, Fate, Outcome, Recipient, Sorted, Unsettled, ending, until_settled};
use crate::{ChannelError, Ctx};

/// What an entry is if nobody says it.
const CLOUD_EVENT: &str = "application/cloudevents+json";
const BYTES: &str = "application/octet-stream";

/// The entries that go to one route, by their places in the batch.
struct Group<'a> {
    path: &'a str,
    entries: Vec<(usize, BulkEntry)>,
}

impl Consumer {
    /// Delivers a batch; answers in its order.
    pub(super) async fn deliver_batch(&self, messages: Vec<Message>) -> Vec<Result<(), NotHandled>> {
        if self.stop.is_cancelled() {
            return messages.iter().map(|_| Err(ending())).collect();
        }
        let mut outcomes: Vec<Result<(), NotHandled>> = messages.iter().map(|_| Ok(())).collect();
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            match self.sort(message, self.topic(message)) {
                Sorted::Wanted(event, path) => {
                    let entry = self.entry(message, event);
                    match groups.iter_mut().find(|group| group.path == path) {
                        Some(group) => group.entries.push((index, entry)),
                        None => groups.push(Group { path, entries: vec![(index, entry)] }),
                    }
                }
                Sorted::Unwanted(_) => {
                    self.meter.record_bulk_event(Fate::Drop);
                    self.bury(message).await;
                }
                Sorted::Broken(reason) => outcomes[index] = Err(NotHandled(reason)),
            }
        }
        // In order, if an order is asked for: a batch has the turn of all keys.
        let _turn = match self.subscription.order_by {
            Some(_) => Some(self.turns.take("").await),
            None => None,
        };
        for group in groups {
            let topic = self.topic(&messages[group.entries[0].0]);
            for (index, outcome) in self.deliver_group(&group, topic).await {
                match outcome {
                    Ok(Outcome::Ack) => {}
                    Ok(_) => {
                        self.bury(&messages[index]).await;
                    }
                    Err(not_handled) => outcomes[index] = Err(not_handled),
                }
            }
        }
        if self.stop.is_cancelled() {
            return outcomes;
        }
        for (message, outcome) in messages.iter().zip(&mut outcomes) {
            let Err(NotHandled(reason)) = outcome else { continue };
            tracing::error!(pubsub = self.subscription.pubsub, topic = message.topic, reason, "message given up");
            let is_buried = self.bury(message).await;
            self.meter.record_bulk_event(if is_buried { Fate::Drop } else { Fate::Retry });
            if is_buried {
                *outcome = Ok(());
            }
        }
        outcomes
    }

    fn entry(&self, message: &Message, event: super::Event) -> BulkEntry {
        let said = message.content_type.as_deref().filter(|content_type| !content_type.is_empty());
        let (event, content_type) = match self.is_raw {
            true => (Err(message.data.clone()), said.unwrap_or(BYTES)),
            false => (Ok(event), said.unwrap_or(CLOUD_EVENT)),
        };
        BulkEntry {
            entry_id: Uuid::new_v4().to_string(),
            event,
            content_type: content_type.to_owned(),
            metadata: message.metadata.clone(),
        }
    }

    /// What became of each entry, by its place in the batch. Only what is not settled is tried again.
    async fn deliver_group(&self, group: &Group<'_>, topic: &str) -> Vec<(usize, Result<Outcome, NotHandled>)> {
        let settled: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; group.entries.len()]);
        let settled_now = || settled.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, metadata, ctx) = (Uuid::new_v4().to_string(), Metadata::new(), Ctx::default());
        let attempt = || async {
            let waiting: Vec<usize> = {
                let settled = settled_now();
                (0..settled.len()).filter(|&place| settled[place].is_none()).collect()
            };
            let entries: Vec<_> = waiting.iter().map(|&place| &group.entries[place].1).collect();
            let pubsub = &self.subscription.pubsub;
            let delivery =
                BulkDelivery { id: &id, entries: &entries, pubsub, topic, path: group.path, metadata: &metadata };
            let outcomes = self.attempt_group(&ctx, &delivery).await?;
            let mut settled = settled_now();
            for (place, outcome) in waiting.into_iter().zip(outcomes) {
                settled[place] = Some(outcome).filter(|outcome| *outcome != Outcome::Retry);
            }
            if settled.iter().all(Option::is_some) { Ok(()) } else { Err(Unsettled::Retry) }
        };

        let tried = until_settled(&self.broker.inbound, &self.stop, attempt).await;

        let reason = tried.err().map_or_else(String::new, |error| error.to_string());
        let settled = settled.into_inner().unwrap_or_else(PoisonError::into_inner);
        let outcome = |settled: Option<Outcome>| settled.ok_or_else(|| NotHandled(reason.clone()));
        group.entries.iter().zip(settled).map(|((index, _), settled)| (*index, outcome(settled))).collect()
    }

    /// One attempt; answers in order, with a retry for what the app says nothing about.
    async fn attempt_group(&self, ctx: &Ctx, delivery: &BulkDelivery<'_>) -> Result<Vec<Outcome>, Unsettled> {
        let Recipient::App(channel) = &self.recipient else {
            let message = "a stream takes its events one by one";
            return Err(Unsettled::Failed(ChannelError::new(trilby_component::ErrorKind::Unsupported, message)));
        };
        let started = Instant::now();
        let result = channel.deliver_bulk(ctx, delivery).await;
        self.meter.record_bulk(started.elapsed());
        let mut outcomes = match result {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let BulkDelivery { pubsub, topic, .. } = delivery;
                tracing::warn!(pubsub, topic, %error, "events not handled");
                return Err(Unsettled::Failed(error));
            }
        };
        outcomes.resize(delivery.entries.len(), Outcome::Retry);
        for outcome in &outcomes {
            self.meter.record_bulk_event(match outcome {
                Outcome::Ack => Fate::Success,
                Outcome::Retry => Fate::Retry,
                Outcome::Drop => Fate::Drop,
            });
        }
        Ok(outcomes)
    }
}
