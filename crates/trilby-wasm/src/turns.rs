//! Turns: how many calls of one app run at a time, and how many may wait for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::CallError;
use crate::limits::Limits;

/// The turns of one app, first come first served.
pub(crate) struct Turns {
    free: Arc<Semaphore>,
    running: u32,
    queued: AtomicU32,
    max_queue: u32,
    max_wait: Duration,
}

impl Turns {
    pub(crate) fn new(limits: &Limits) -> Self {
        let running = limits.max_concurrency.max(1);
        Self {
            free: Arc::new(Semaphore::new(running as usize)),
            running,
            queued: AtomicU32::new(0),
            max_queue: limits.max_queue,
            max_wait: limits.max_wait,
        }
    }

    /// A turn to call: at once, or after waiting in a bounded queue. It is over when it is dropped.
    pub(crate) async fn take(&self) -> Result<OwnedSemaphorePermit, CallError> {
        if let Ok(turn) = self.free.clone().try_acquire_owned() {
            return Ok(turn);
        }
        let running = self.running;
        let queued = Queued::enter(&self.queued);
        if queued.before >= self.max_queue {
            return Err(CallError::QueueFull { running, queued: queued.before });
        }
        match timeout(self.max_wait, self.free.clone().acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("nobody closes the semaphore")),
            Err(_) => Err(CallError::Busy { running, waited: self.max_wait }),
        }
    }
}

/// A place in the queue, left when dropped.
struct Queued<'a> {
    queue: &'a AtomicU32,
    before: u32,
}

impl<'a> Queued<'a> {
    fn enter(queue: &'a AtomicU32) -> Self {
        Self { queue, before: queue.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.queue.fetch_sub(1, Ordering::Relaxed);
    }
}
