//! What every block of an app is made with: who the app is, what counts calls, and which policies hold.

use std::sync::Arc;

use crate::{
    Identity,
    handle::Handle,
    metrics::Metrics,
    resiliency::{Block, Policies},
};

/// What every block of an app is made with.
#[derive(Clone, Copy)]
pub struct Wiring<'a> {
    /// The app.
    pub app: &'a Identity,
    /// Counts calls to components.
    pub metrics: &'a Metrics,
    /// Timeouts, retries and circuit breakers.
    pub policies: &'a Policies,
}

impl Wiring<'_> {
    /// The way to an open component: counted under its block, and guarded by the policy of its name.
    pub fn handle<T: ?Sized>(&self, block: Block, name: &str, component: Arc<T>) -> Handle<T> {
        let meter = self.metrics.meter(block.metric_name(), name, self.app);
        Handle::new(name, component, meter, self.policies.component_outbound(block, name))
    }
}
