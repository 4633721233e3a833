//! The body of a guest's answer, which runs the guest while it is read.

use std::{
    future::ready,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready as try_ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt as _, Full};
use tokio::task::unconstrained;
use trilby_core::{Body, ChannelError, body::CollectError};
use wasmtime_wasi_http::WasiBody;

use super::{App, failure, http::Handling};

/// A body that is being written. It ends when the guest returns; dropping it earlier ends the guest.
pub(super) struct Answer {
    app: Arc<App>,
    body: WasiBody,
    /// The guest, while it runs.
    handling: Option<Handling>,
    /// How the guest failed, if it did while there was still something to hand on.
    failed: Option<ChannelError>,
    /// How many bytes may still come.
    left: usize,
    is_over: bool,
}

impl Answer {
    pub(super) fn new(app: Arc<App>, body: WasiBody, handling: Option<Handling>) -> Self {
        let left = app.max_body_bytes;
        Self { app, body, handling, failed: None, left, is_over: false }
    }

    pub(super) fn is_running(&self) -> bool {
        self.handling.is_some()
    }

    fn invalid(&self, what: impl std::fmt::Display) -> ChannelError {
        failure::of_answer(&self.app.id, what)
    }

    /// Takes all of a body whose guest is done: what there is by now is all there will be.
    pub(super) fn take_whole(&mut self) -> Result<Body, ChannelError> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut whole = Bytes::new();
        let mut more = BytesMut::new();
        while let Poll::Ready(frame) = self.poll_body(&mut cx) {
            match frame.transpose()?.map(Frame::into_data) {
                None => return Ok(joined(whole, more).into()),
                Some(Ok(data)) if whole.is_empty() => whole = data,
                Some(Ok(data)) => more.extend_from_slice(&data),
                Some(Err(trailers)) => {
                    let trailers = trailers.into_trailers().ok();
                    let full = Full::new(joined(whole, more));
                    return Ok(Body::stream(full.with_trailers(ready(trailers.map(Ok)))));
                }
            }
        }
        Err(self.invalid("it returned and left the body unfinished"))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ChannelError>>> {
        // The body is a channel, and tokio makes a task that reads much from channels wait although there is more.
        // Here that would look like a guest which has nothing more to say.
        let mut next = unconstrained(self.body.frame());
        Poll::Ready(match try_ready!(Pin::new(&mut next).poll(cx)) {
            None => None,
            Some(Err(error)) => Some(Err(self.invalid(format_args!("its body broke off: {error}")))),
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, Bytes::len);
                Some(match self.left.checked_sub(len) {
                    None => Err(self.invalid(CollectError::TooLarge(self.app.max_body_bytes))),
                    Some(left) => {
                        self.left = left;
                        Ok(frame)
                    }
                })
            }
        })
    }

    /// Lets the guest go on.
    fn poll_guest(&mut self, cx: &mut Context<'_>) {
        let Some(handling) = &mut self.handling else { return };
        if let Poll::Ready(result) = handling.as_mut().poll(cx) {
            self.handling = None;
            self.failed = result.err().map(|error| failure::of_call(&self.app.id, &error));
        }
    }
}

fn joined(whole: Bytes, more: BytesMut) -> Bytes {
    if more.is_empty() {
        return whole;
    }
    let mut all = BytesMut::with_capacity(whole.len() + more.len());
    all.extend_from_slice(&whole);
    all.extend_from_slice(&more);
    all.freeze()
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = ChannelError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ChannelError>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        this.poll_guest(cx);
        let frame = match this.failed.take() {
            Some(error) => Some(Err(error)),
            None => match this.poll_body(cx) {
                Poll::Pending if this.is_running() => return Poll::Pending,
                Poll::Pending => Some(Err(this.invalid("it returned and left the body unfinished"))),
                // The guest may have something left to do after its last word.
                Poll::Ready(None) if this.is_running() => return Poll::Pending,
                Poll::Ready(frame) => frame,
            },
        };
        // A reader that knows the length does not ask again after the last byte, and would leave the guest hanging, which
        // may only have waited for somebody to take it.
        this.poll_guest(cx);
        if !matches!(frame, Some(Ok(_))) {
            this.is_over = true;
            this.handling = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}
