//! The time limit of a request head, which runs from the head's first byte, as in Go.
//!
//! hyper starts its limit when it begins to wait for a head, which would also close idle connections. It asks the
//! timer for a sleep then, and polls that only when it lacks bytes. So the sleep can wait until some have come; most
//! heads come whole, and then no clock is set at all.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Read, ReadBufCursor, Sleep, Timer, Write};

/// A stream that counts how often something was read from it.
pub(super) struct CountedReads<I> {
    io: I,
    reads: Arc<AtomicUsize>,
}

impl<I> CountedReads<I> {
    pub(super) fn new(io: I, reads: Arc<AtomicUsize>) -> Self {
        Self { io, reads }
    }
}

impl<I: Read + Unpin> Read for CountedReads<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        read
    }
}

impl<I: Write + Unpin> Write for CountedReads<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

/// The timer of one HTTP/1.1 connection.
pub(super) struct HeadTimer {
    limit: Duration,
    reads: Arc<AtomicUsize>,
    /// Whether a sleep was asked for before. What was read until the first belongs to the first head already.
    used: AtomicBool,
}

impl HeadTimer {
    pub(super) fn new(limit: Duration, reads: Arc<AtomicUsize>) -> Self {
        Self { limit, reads, used: AtomicBool::new(false) }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, limit: Duration) -> Pin<Box<dyn Sleep>> {
        let seen = if self.used.swap(true, Ordering::Relaxed) { self.reads.load(Ordering::Relaxed) } else { 0 };
        Box::pin(HeadSleep { limit, reads: Arc::clone(&self.reads), seen, running: None })
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(self.limit)
    }
}

struct HeadSleep {
    limit: Duration,
    reads: Arc<AtomicUsize>,
    /// Reads that belong to what came before this head.
    seen: usize,
    running: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Nothing has come yet. The read that brings it wakes the connection, which polls this again.
        if self.running.is_none() && self.reads.load(Ordering::Relaxed) == self.seen {
            return Poll::Pending;
        }
        let limit = self.limit;
        self.running.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx)
    }
}
