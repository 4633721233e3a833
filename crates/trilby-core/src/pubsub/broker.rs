//! One broker as one app may use it: topic names are completed, rules kept and calls counted here.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use trilby_component::{
    ComponentError,
    pubsub::{BulkEntry, BulkPublishError, BulkPublishRequest, Feature, PubSub, PublishRequest},
};

use super::{PubSubComponent, Scopes, envelope};
use crate::{
    Ctx,
    handle::Handle,
    metrics::{Egress, Ingress, Meter, Op},
    resiliency::{Block, Failure, Policy, Refusal},
    wiring::Wiring,
};

/// Most messages of a bulk publish that are on their way at once, to a broker that takes them one by one.
const MAX_CONCURRENT_PUBLISHES: usize = 100;

/// One broker as one app may use it.
pub(super) struct Broker {
    pub(super) handle: Handle<dyn PubSub>,
    /// Topics that the app may use, prefix not included.
    pub(super) scopes: Scopes,
    pub(super) topic_prefix: String,
    /// What holds for messages on their way to the app.
    pub(super) inbound: Policy,
    pub(super) ingress: Ingress,
    /// Whether messages expire in the broker.
    pub(super) expires: bool,
    publishes_in_bulk: bool,
    egress: Egress,
}

/// What went wrong with a bulk publish.
#[derive(Debug)]
pub(super) enum BulkFailure {
    /// These entries, by position, were not published.
    Some(Vec<(usize, ComponentError)>),
    /// What was still to be published was not.
    All(ComponentError),
}

impl Broker {
    pub(super) fn new(wiring: &Wiring<'_>, component: PubSubComponent) -> Self {
        let PubSubComponent { name, broker, scopes, topic_prefix } = component;
        let policy = wiring.policies.component_outbound(Block::PubSub, &name);
        Self {
            scopes,
            topic_prefix,
            expires: envelope::expires(&*broker),
            publishes_in_bulk: broker.features().contains(&Feature::BulkPublish),
            inbound: wiring.policies.component_inbound(Block::PubSub, &name),
            ingress: wiring.metrics.ingress(&name, wiring.app),
            egress: wiring.metrics.egress(&name, wiring.app),
            // Counted by topic, which a handle does not know.
            handle: Handle::new(&name, broker, Meter::unlisted(), policy),
        }
    }

    /// The component's name.
    pub(super) fn name(&self) -> &str {
        self.handle.name()
    }

    /// The topic as the broker has it.
    pub(super) fn complete(&self, mut topic: String) -> String {
        topic.insert_str(0, &self.topic_prefix);
        topic
    }

    /// The topic as the app has it.
    pub(super) fn strip<'a>(&self, topic: &'a str) -> &'a str {
        topic.strip_prefix(self.topic_prefix.as_str()).unwrap_or(topic)
    }

    /// Sends a message on, not counted. `request` has the topic as the broker has it.
    pub(super) async fn send(&self, ctx: &Ctx, request: &PublishRequest) -> Result<(), ComponentError> {
        self.handle.call(ctx, Op::Publish, |broker| broker.publish(request)).await
    }

    /// Publishes a message of the app's.
    pub(super) async fn publish(&self, ctx: &Ctx, request: &PublishRequest) -> Result<(), ComponentError> {
        let started = Instant::now();
        let published = self.send(ctx, request).await;
        self.egress.record(self.strip(&request.topic), published.is_ok(), started.elapsed());
        published
    }

    /// Publishes messages of the app's: a retry repeats only those that failed.
    pub(super) async fn bulk_publish(
        &self,
        ctx: &Ctx,
        request: BulkPublishRequest,
    ) -> Result<(), Vec<(usize, ComponentError)>> {
        let started = Instant::now();
        let total = request.entries.len();
        let topic = self.strip(&request.topic).to_owned();
        let pending = Mutex::new(Arc::new(Pending { positions: (0..total).collect(), request }));
        let pending = &pending;
        let published = self
            .handle
            .call(ctx, Op::BulkPublish, |broker| {
                Box::pin(async move {
                    let attempt = Arc::clone(&pending.lock().unwrap_or_else(PoisonError::into_inner));
                    let Err(BulkPublishError(failed)) = self.attempt(broker, &attempt.request).await else {
                        return Ok(());
                    };
                    let left = Arc::new(attempt.only(&failed));
                    *pending.lock().unwrap_or_else(PoisonError::into_inner) = left;
                    let position = |index: usize| attempt.positions.get(index).copied().unwrap_or(index);
                    Err(BulkFailure::Some(failed.into_iter().map(|(at, error)| (position(at), error)).collect()))
                })
            })
            .await
            .map_err(|failure| match failure {
                BulkFailure::Some(failed) => failed,
                BulkFailure::All(cause) => {
                    let left = Arc::clone(&pending.lock().unwrap_or_else(PoisonError::into_inner));
                    left.positions.iter().map(|at| (*at, again(&cause))).collect()
                }
            });
        let failed = published.as_ref().err().map_or(0, Vec::len);
        self.egress.record_bulk(&topic, failed == 0, total.saturating_sub(failed), started.elapsed());
        published
    }

    async fn attempt(&self, broker: &dyn PubSub, request: &BulkPublishRequest) -> Result<(), BulkPublishError> {
        if self.publishes_in_bulk {
            return broker.bulk_publish(request).await;
        }
        let publish = |(index, entry): (usize, &BulkEntry)| {
            let single = PublishRequest {
                topic: request.topic.clone(),
                data: entry.data.clone(),
                content_type: entry.content_type.clone(),
                metadata: entry.metadata.clone(),
            };
            async move { broker.publish(&single).await.err().map(|error| (index, error)) }
        };
        let publishing = stream::iter(request.entries.iter().enumerate().map(publish));
        let failed: Vec<_> =
            publishing.buffer_unordered(MAX_CONCURRENT_PUBLISHES).filter_map(std::future::ready).collect().await;
        if failed.is_empty() { Ok(()) } else { Err(BulkPublishError(failed)) }
    }
}

/// What is left to publish of a request, and where in the whole each entry stands.
struct Pending {
    positions: Vec<usize>,
    request: BulkPublishRequest,
}

impl Pending {
    /// Without the entries that were published.
    fn only(&self, failed: &[(usize, ComponentError)]) -> Self {
        let mut kept: Vec<_> = failed.iter().map(|(index, _)| *index).collect();
        kept.sort_unstable();
        let entries = kept.iter().filter_map(|index| self.request.entries.get(*index).cloned());
        let request = BulkPublishRequest {
            topic: self.request.topic.clone(),
            entries: entries.collect(),
            metadata: self.request.metadata.clone(),
        };
        Self { positions: kept.iter().filter_map(|index| self.positions.get(*index).copied()).collect(), request }
    }
}

/// The same error, for another entry.
fn again(error: &ComponentError) -> ComponentError {
    ComponentError::new(error.kind(), error.to_string())
}

impl From<ComponentError> for BulkFailure {
    fn from(cause: ComponentError) -> Self {
        Self::All(cause)
    }
}

impl Failure for BulkFailure {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Some(failed) => failed.iter().any(|(_, error)| error.is_retryable()),
            Self::All(cause) => cause.is_retryable(),
        }
    }

    fn timed_out(limit: Duration) -> Self {
        ComponentError::timed_out(limit).into()
    }

    fn refused(refusal: Refusal) -> Self {
        ComponentError::refused(refusal).into()
    }
}
