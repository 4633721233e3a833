//! The only way from a block to a component.
//!
//! Every call passes [`Handle::call`]: span, metric, deadline, retries and circuit breakers are here, so that no block
//! and no door can forget them or do them differently.

use std::{pin::Pin, sync::Arc, time::Instant};

use trilby_component::{ComponentError, ErrorKind};

use crate::{
    Ctx,
    metrics::{Meter, Op},
    resiliency::{Failure, Policy},
};

/// A future of a component call; what `#[async_trait]` methods return.
pub type Calling<'a, R, E> = Pin<Box<dyn Future<Output = Result<R, E>> + Send + 'a>>;

/// A component as a block sees it. The component itself is private.
pub struct Handle<T: ?Sized> {
    component: Arc<T>,
    name: Arc<str>,
    meter: Arc<Meter>,
    policy: Policy,
}

impl<T: ?Sized> Handle<T> {
    /// Wraps a component that is open.
    pub fn new(name: &str, component: Arc<T>, meter: Arc<Meter>, policy: Policy) -> Self {
        Self { component, name: name.into(), meter, policy }
    }

    /// The component's name in its resource.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether an operation may run more than once.
    #[must_use]
    pub(crate) fn has_retries(&self) -> bool {
        self.policy.has_retries()
    }

    /// Performs one operation. `operation` may run more than once, so it borrows what it sends.
    ///
    /// # Errors
    /// The component's, or `Timeout` when the caller's deadline passes; the operation may then have happened.
    pub async fn call<'a, R, E>(
        &'a self,
        ctx: &Ctx,
        op: Op,
        operation: impl Fn(&'a T) -> Calling<'a, R, E>,
    ) -> Result<R, E>
    where
        E: Failure + From<ComponentError> + std::fmt::Debug,
    {
        let started = Instant::now();
        let calling = self.policy.run(|| operation(&self.component));
        let result = match ctx.deadline {
            None => calling.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), calling).await.unwrap_or_else(|_| {
                let message = format!("component {} did not answer before the caller's deadline", self.name);
                Err(ComponentError::new(ErrorKind::Timeout, message).into())
            }),
        };
        let elapsed = started.elapsed();
        self.meter.record(op, result.is_ok(), elapsed);
        match &result {
            Ok(_) => tracing::trace!(component = &*self.name, op = op.name(), ?elapsed, "component called"),
            Err(error) => {
                tracing::debug!(component = &*self.name, op = op.name(), ?elapsed, ?error, "component failed")
            }
        }
        result
    }

    /// Begins something that lasts, such as a subscription. It is no call: whoever owns it counts and repeats it.
    ///
    /// # Errors
    /// The component's.
    pub(crate) fn begin<'a, R, E>(&'a self, operation: impl FnOnce(&'a T) -> Calling<'a, R, E>) -> Calling<'a, R, E> {
        operation(&self.component)
    }

    /// What the component says about itself; never I/O.
    pub(crate) fn describe<R>(&self, question: impl Fn(&T) -> R) -> R {
        question(&self.component)
    }
}
