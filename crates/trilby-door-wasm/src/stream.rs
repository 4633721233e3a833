//! Streams of `wasi:io` as bodies, and bodies as streams: read on when their reader does, with nothing in between.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use trilby_core::Body;
use wasmtime_wasi::p2::{DynInputStream, InputStream, Pollable, StreamError, StreamResult};

/// Most bytes that are taken from a guest's stream at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// What a guest can read, as a body.
pub(crate) fn to_body(input: DynInputStream) -> Body {
    let chunks = stream::try_unfold(input, |mut input| async move {
        match input.blocking_read(CHUNK_BYTES).await {
            Ok(bytes) => Ok(Some((Frame::data(bytes), input))),
            Err(StreamError::Closed) => Ok(None),
            Err(StreamError::LastOperationFailed(error) | StreamError::Trap(error)) => {
                Err(io::Error::other(format!("{error:#}")))
            }
        }
    });
    Body::stream(StreamBody::new(chunks))
}

/// A body, for a guest to read.
pub(crate) fn of_body(body: Body) -> impl InputStream {
    BodyStream { body, next: Ok(Bytes::new()) }
}

struct BodyStream {
    body: Body,
    /// What was read and not yet handed on; or how the body ended.
    next: StreamResult<Bytes>,
}

#[async_trait]
impl Pollable for BodyStream {
    async fn ready(&mut self) {
        while matches!(&self.next, Ok(bytes) if bytes.is_empty()) {
            self.next = match self.body.frame().await {
                None => Err(StreamError::Closed),
                Some(Ok(frame)) => Ok(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => Err(StreamError::LastOperationFailed(wasmtime::Error::msg(error.to_string()))),
            };
        }
    }
}

impl InputStream for BodyStream {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        match &mut self.next {
            Ok(bytes) => Ok(bytes.split_to(size.min(bytes.len()))),
            // A failure is told once.
            Err(_) => std::mem::replace(&mut self.next, Err(StreamError::Closed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_gives_no_more_than_is_asked_for_and_then_closes() {
        let mut stream = of_body(Body::from("hello"));
        assert_eq!(stream.blocking_read(3).await.expect("there is more"), "hel");
        assert_eq!(stream.blocking_read(30).await.expect("there is more"), "lo");
        assert!(matches!(stream.blocking_read(30).await, Err(StreamError::Closed)));
        assert!(matches!(stream.blocking_read(30).await, Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_a_failed_stream_and_the_other_way_round() {
        let broken = StreamBody::new(stream::iter([
            Ok(Frame::data(Bytes::from_static(b"good"))),
            Err(io::Error::other("cut short")),
        ]));
        let back = to_body(Box::new(of_body(Body::stream(broken))));
        let error = back.collect(100).await.expect_err("it broke");
        assert!(error.to_string().contains("cut short"), "{error}");
    }

    #[tokio::test]
    async fn bytes_pass_unchanged() {
        let content: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let back = to_body(Box::new(of_body(Body::from(content.clone()))));
        assert_eq!(back.collect(1 << 20).await.expect("whole"), content);
    }
}
