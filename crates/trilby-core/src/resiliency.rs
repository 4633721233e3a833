//! Resiliency: timeouts, retries and circuit breakers, by Dapr's Resiliency resources.
//!
//! A [`Policy`] is what holds for one target; [`Policies`] finds it. Nothing else in the core waits, repeats or gives up.

mod breaker;
mod policies;
mod retry;

use std::{fmt, sync::Arc, time::Duration};

use trilby_component::{ComponentError, ErrorKind, state::BulkError};

use crate::metrics::PolicyMeter;

pub use breaker::{BreakerSettings, Refusal, Trip};
pub use policies::{AppTarget, ComponentTarget, Names, Policies, Resource};
pub use retry::{Backoff, Retry, StatusCodes};

pub(crate) use breaker::State;

use breaker::Breaker;

/// A building block, as far as policies and metrics tell blocks apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// Bindings.
    Binding,
    /// Configuration stores.
    Configuration,
    /// Language models.
    Conversation,
    /// Cryptography providers.
    Crypto,
    /// Lock stores.
    Lock,
    /// Brokers.
    PubSub,
    /// Secret stores.
    Secret,
    /// State stores.
    State,
}

impl Block {
    /// The part of a metric's name that says which block it is about.
    #[must_use]
    pub fn metric_name(self) -> &'static str {
        match self {
            Self::Binding => "output_binding",
            Self::Configuration => "configuration",
            Self::Conversation => "conversation",
            Self::Crypto => "crypto",
            Self::Lock => "lock",
            Self::PubSub => "pubsub_egress",
            Self::Secret => "secret",
            Self::State => "state",
        }
    }

    /// The part of a default policy's name that says which block it is for.
    #[must_use]
    pub fn policy_name(self) -> &'static str {
        match self {
            Self::Binding => "Binding",
            Self::Configuration => "Configuration",
            Self::Conversation => "Conversation",
            Self::Crypto => "Crypto",
            Self::Lock => "Lock",
            Self::PubSub => "Pubsub",
            Self::Secret => "Secretstore",
            Self::State => "Statestore",
        }
    }
}

/// A failure, as far as a policy looks at it.
pub trait Failure {
    /// Whether trying again can help at all.
    fn is_retryable(&self) -> bool;

    /// The status that the target answered with, for policies that match on it: HTTP from 100, gRPC up to 16.
    fn status(&self) -> Option<u16> {
        None
    }

    /// The failure of an operation that was given up after `limit`.
    fn timed_out(limit: Duration) -> Self;

    /// The failure of an operation that a circuit breaker did not let through.
    fn refused(refusal: Refusal) -> Self;
}

/// What holds for one target: retry(breaker(timeout(operation))). The default does nothing and costs nothing.
#[derive(Clone, Default)]
pub struct Policy {
    rules: Option<Arc<Rules>>,
    breaker: Option<Arc<Breaker>>,
}

/// The part of a policy that has no state.
#[derive(Clone)]
struct Rules {
    /// The target as the log names it: `component[statestore] output`.
    target: String,
    timeout: Option<Duration>,
    retry: Option<Arc<Retry>>,
    meter: Arc<PolicyMeter>,
}

/// How one attempt failed.
enum Failed<E> {
    Refused(Refusal),
    TimedOut(Duration),
    Answered(E),
}

impl Policy {
    /// Whether an operation may run more than once, so that what it sends must be kept.
    #[must_use]
    pub fn has_retries(&self) -> bool {
        let retry = self.rules.as_ref().and_then(|rules| rules.retry.as_ref());
        retry.is_some_and(|retry| retry.max_retries != Some(0))
    }

    /// The same, for an operation that can run only once.
    #[must_use]
    pub fn without_retries(&self) -> Self {
        let once = |rules: &Arc<Rules>| Arc::new(Rules { retry: None, ..Rules::clone(rules) });
        Self { rules: self.rules.as_ref().map(once), breaker: self.breaker.clone() }
    }

    /// How long an attempt may take.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.rules.as_ref().and_then(|rules| rules.timeout)
    }

    /// Whether there is nothing to keep to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_none()
    }

    /// Performs an operation as often as the policy says, and answers with its last result. An attempt that takes too
    /// long is dropped; dropping this future drops the attempt, which then counts as failed.
    ///
    /// # Errors
    /// The operation's own; or that of [`Failure::timed_out`] or [`Failure::refused`].
    pub async fn run<R, E, F>(&self, mut operation: impl FnMut() -> F) -> Result<R, E>
    where
        E: Failure,
        F: Future<Output = Result<R, E>>,
    {
        match &self.rules {
            None => operation().await,
            // Boxed, so that a call without a policy does not carry the room of one with.
            Some(rules) => Box::pin(self.run_by(rules, operation)).await,
        }
    }

    async fn run_by<R, E, F>(&self, rules: &Rules, mut operation: impl FnMut() -> F) -> Result<R, E>
    where
        E: Failure,
        F: Future<Output = Result<R, E>>,
    {
        let (timeout, breaker) = (rules.timeout.is_some(), self.breaker.as_ref().map(|breaker| breaker.state()));
        rules.meter.applied(timeout, rules.retry.is_some(), breaker);
        let mut waits = rules.retry.as_ref().map(|retry| retry.waits());
        let (mut attempts, mut has_timed_out) = (1_u64, false);
        loop {
            let error = match self.attempt(rules, operation()).await {
                Ok(value) => {
                    if attempts > 1 {
                        tracing::info!(target = rules.target, attempts, "recovered");
                    }
                    return Ok(value);
                }
                // Asking an open breaker again would only be refused again.
                Err(Failed::Refused(refusal)) => return Err(E::refused(refusal)),
                Err(Failed::TimedOut(limit)) => {
                    if !std::mem::replace(&mut has_timed_out, true) {
                        rules.meter.timeout_activated();
                    }
                    E::timed_out(limit)
                }
                Err(Failed::Answered(error)) => error,
            };
            let again = |retry: &Arc<Retry>| retry.applies_to(&error);
            let next =
                if rules.retry.as_ref().is_some_and(again) { waits.as_mut().and_then(Iterator::next) } else { None };
            let Some(wait) = next else { return Err(error) };
            if attempts == 1 {
                // Dapr says and counts once per operation that it is retried, not once per attempt.
                rules.meter.retry_activated();
                tracing::warn!(target = rules.target, ?wait, "operation failed, trying again");
            }
            attempts += 1;
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt<R, E>(
        &self,
        rules: &Rules,
        operation: impl Future<Output = Result<R, E>>,
    ) -> Result<R, Failed<E>> {
        let Some(breaker) = &self.breaker else { return within(rules.timeout, operation).await };
        let before = breaker.state();
        let permit = breaker.enter().map_err(Failed::Refused)?;
        let result = within(rules.timeout, operation).await;
        permit.finish(result.is_ok());
        let after = breaker.state();
        if after != before {
            rules.meter.breaker_activated(after);
        }
        result
    }
}

async fn within<R, E>(limit: Option<Duration>, operation: impl Future<Output = Result<R, E>>) -> Result<R, Failed<E>> {
    let Some(limit) = limit else { return operation.await.map_err(Failed::Answered) };
    match tokio::time::timeout(limit, operation).await {
        Ok(result) => result.map_err(Failed::Answered),
        Err(_) => Err(Failed::TimedOut(limit)),
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(rules) = &self.rules else { return f.write_str("Policy(none)") };
        f.debug_struct("Policy")
            .field("target", &rules.target)
            .field("timeout", &rules.timeout)
            .field("retry", &rules.retry)
            .field("breaker", &self.breaker.is_some())
            .finish()
    }
}

/// The words of Dapr's clients for an operation that was given up.
pub(crate) const TIMED_OUT: &str = "context deadline exceeded";

impl Failure for ComponentError {
    fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }

    fn timed_out(_: Duration) -> Self {
        Self::new(ErrorKind::Timeout, TIMED_OUT)
    }

    fn refused(refusal: Refusal) -> Self {
        Self::new(ErrorKind::Unavailable, refusal.to_string())
    }
}

impl Failure for BulkError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Whole(error) => error.is_retryable(),
            Self::Items(failed) => failed.iter().any(|(_, error)| error.is_retryable()),
        }
    }

    fn timed_out(limit: Duration) -> Self {
        ComponentError::timed_out(limit).into()
    }

    fn refused(refusal: Refusal) -> Self {
        ComponentError::refused(refusal).into()
    }
}

#[cfg(test)]
mod tests;
