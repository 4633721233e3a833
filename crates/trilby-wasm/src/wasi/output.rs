//! A guest's output as a stream that never blocks: whatever takes the bytes decides what to keep.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::limits::Exceeded;

/// Bytes a guest may write at a time.
const CHUNK: usize = 64 << 10;

/// Takes what a guest writes, quickly and within bounds of its own.
pub(crate) trait Write: Send + 'static {
    /// # Errors
    ///
    /// The limit that the guest has run into, which ends it.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Exceeded>;
}

/// Output of a guest to `W`, in each form that WASI wants it in.
pub(crate) struct Output<W>(Arc<Mutex<W>>);

impl<W: Write> Output<W> {
    pub(crate) fn new(to: W) -> Self {
        Self(Arc::new(Mutex::new(to)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, W> {
        self.0.lock().expect("no code that holds this lock panics")
    }
}

// Not derived: that would ask for `W: Clone`.
impl<W> Clone for Output<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W> IsTerminal for Output<W> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<W: Write> StdoutStream for Output<W> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl<W: Write> Pollable for Output<W> {
    async fn ready(&mut self) {}
}

impl<W: Write> OutputStream for Output<W> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.lock().write(&bytes).map_err(|exceeded| StreamError::Trap(exceeded.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl<W: Write> AsyncWrite for Output<W> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.lock().write(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
