//! Trying until an event is settled, as often as the policy says, or until the subscription ends.

use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    time::Duration,
};

use trilby_component::CancellationToken;

use crate::{
    ChannelError,
    resiliency::{Failure, Policy, Refusal},
};

/// Why an event is not settled.
#[derive(Debug)]
pub(super) enum Unsettled {
    /// The app wants it again.
    Retry,
    /// The app could not be asked, or gave no answer.
    Failed(ChannelError),
    /// The subscription ends.
    Ending,
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry => f.write_str("the app wants it again"),
            Self::Failed(error) => error.fmt(f),
            Self::Ending => f.write_str("the subscription ends"),
        }
    }
}

impl Failure for Unsettled {
    fn is_retryable(&self) -> bool {
        !matches!(self, Self::Ending)
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Failed(error) => error.status,
            Self::Retry | Self::Ending => None,
        }
    }

    fn timed_out(limit: Duration) -> Self {
        Self::Failed(ChannelError::timed_out(limit))
    }

    fn refused(refusal: Refusal) -> Self {
        Self::Failed(ChannelError::refused(refusal))
    }
}

/// Attempts by the policy. When `stop` is cancelled, an attempt under way is finished and no other is made.
pub(super) async fn until_settled<R, F>(
    policy: &Policy,
    stop: &CancellationToken,
    attempt: impl Fn() -> F,
) -> Result<R, Unsettled>
where
    F: Future<Output = Result<R, Unsettled>>,
{
    if !policy.has_retries() {
        return policy.run(&attempt).await;
    }
    let is_trying = AtomicBool::new(false);
    let mut trying = pin!(policy.run(|| {
        let trying = Trying::new(&is_trying);
        let attempt = attempt();
        async move {
            let _trying = trying;
            attempt.await
        }
    }));
    let mut stopped = pin!(stop.cancelled());
    poll_fn(|cx| {
        if let Poll::Ready(result) = trying.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        // Looked at only while the policy waits, so that an attempt is never cut off.
        if !is_trying.load(Ordering::Relaxed) && stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Unsettled::Ending));
        }
        Poll::Pending
    })
    .await
}

/// Lasts as long as one attempt, however that ends.
struct Trying<'a>(&'a AtomicBool);

impl<'a> Trying<'a> {
    fn new(is_trying: &'a AtomicBool) -> Self {
        is_trying.store(true, Ordering::Relaxed);
        Self(is_trying)
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
