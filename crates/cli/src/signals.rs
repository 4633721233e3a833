//! Signals that a process is sent.

use std::io;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

/// Catches them from when it is made.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The end. Holds the signal's name in Go's words, which daprd logs.
    End(&'static str),
    /// A new beginning, with files read again.
    Restart,
}

impl Signals {
    /// # Errors
    /// If the system has no room for another handler.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Loses none when it is dropped.
    pub(crate) async fn next(&mut self) -> Wanted {
        select! {
            _ = self.interrupt.recv() => Wanted::End("interrupt"),
            _ = self.terminate.recv() => Wanted::End("terminated"),
            _ = self.hang_up.recv() => Wanted::Restart,
        }
    }

    /// Waits for one that wants the end.
    pub(crate) async fn end(&mut self) {
        while self.next().await == Wanted::Restart {}
    }
}
