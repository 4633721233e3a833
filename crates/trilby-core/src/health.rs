//! Whether the runtime is ready: for outbound calls, and as a whole.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Code, Error, Result};

/// Readiness of one app's runtime. Starts as not ready.
#[derive(Debug, Default)]
pub struct Health {
    outbound: AtomicBool,
    ready: AtomicBool,
}

impl Health {
    /// Components and servers are up: the app may call out, although it may not be reachable itself yet.
    pub fn set_outbound_ready(&self, ready: bool) {
        self.outbound.store(ready, Ordering::Release);
    }

    /// The app is up too.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// `GET /v1.0/healthz/outbound`.
    ///
    /// # Errors
    /// [`Code::OutboundNotReady`].
    pub fn check_outbound(&self) -> Result<()> {
        if self.outbound.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(Error::new(Code::OutboundNotReady, "dapr outbound is not ready"))
        }
    }

    /// `GET /v1.0/healthz`.
    ///
    /// # Errors
    /// [`Code::NotReady`].
    pub fn check(&self) -> Result<()> {
        if self.ready.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(Error::new(Code::NotReady, "dapr is not ready: [app]"))
        }
    }
}
