//! A body that can be sent more than once, for calls that are tried again.
//!
//! It is passed on as it arrives and kept on the way, so that the first attempt waits for nothing.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::{Body, BoxError};

/// Length of what stands before each message of a gRPC call: a flag and four bytes of length.
const GRPC_PREFIX_BYTES: usize = 5;

/// How much of a body is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it. Its sender limits its length.
    Whole,
    /// One gRPC message; with a second one the body breaks off.
    OneMessage,
}

/// A body, and whatever has been read of it.
pub(crate) enum Replay {
    Bytes(Bytes),
    Stream(Arc<Mutex<Recorded>>),
}

/// What is kept of a stream.
pub(crate) struct Recorded {
    kept: Vec<Bytes>,
    rest: UnsyncBoxBody<Bytes, BoxError>,
    hint: SizeHint,
    extent: Extent,
    is_over: bool,
    has_overflowed: bool,
    /// Which of the bodies that were given out may read on. The transport may hold on to those of earlier attempts.
    reader: usize,
}

impl Replay {
    pub(crate) fn new(body: Body, extent: Extent) -> Self {
        match body {
            Body::Empty => Self::Bytes(Bytes::new()),
            Body::Full(bytes) => Self::Bytes(bytes),
            Body::Stream(rest) => Self::Stream(Arc::new(Mutex::new(Recorded {
                kept: Vec::new(),
                hint: rest.size_hint(),
                rest,
                extent,
                is_over: false,
                has_overflowed: false,
                reader: 0,
            }))),
        }
    }

    /// The body from its beginning. Those that were given out before break off.
    pub(crate) fn body(&self) -> Body {
        match self {
            Self::Bytes(bytes) => bytes.clone().into(),
            Self::Stream(shared) => {
                let mut recorded = shared.lock().unwrap_or_else(PoisonError::into_inner);
                recorded.reader += 1;
                let (reader, hint) = (recorded.reader, recorded.hint.clone());
                Body::stream(Reader { shared: Arc::clone(shared), reader, next: 0, hint })
            }
        }
    }

    /// Whether there was more than may be kept.
    pub(crate) fn has_overflowed(&self) -> bool {
        match self {
            Self::Bytes(_) => false,
            Self::Stream(shared) => shared.lock().unwrap_or_else(PoisonError::into_inner).has_overflowed,
        }
    }
}

impl Recorded {
    fn poll_piece(&mut self, place: usize, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        while place >= self.kept.len() && !self.is_over {
            match ready!(Pin::new(&mut self.rest).poll_frame(cx)) {
                None => self.is_over = true,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // Trailers of a request mean nothing to Dapr.
                Some(Ok(frame)) => self.kept.extend(frame.into_data()),
            }
            if self.extent == Extent::OneMessage && self.is_beyond_one_message() {
                self.has_overflowed = true;
            }
        }
        if self.has_overflowed {
            return Poll::Ready(Some(Err("a second message of a call that may be tried again".into())));
        }
        Poll::Ready(self.kept.get(place).cloned().map(Ok))
    }

    fn is_beyond_one_message(&self) -> bool {
        let length: usize = self.kept.iter().map(Bytes::len).sum();
        let mut prefix = self.kept.iter().flatten().copied().skip(1).take(GRPC_PREFIX_BYTES - 1);
        let prefix = [prefix.next(), prefix.next(), prefix.next(), prefix.next()];
        let [Some(a), Some(b), Some(c), Some(d)] = prefix else { return false };
        length > GRPC_PREFIX_BYTES + u32::from_be_bytes([a, b, c, d]) as usize
    }
}

/// One attempt's view of the body.
struct Reader {
    shared: Arc<Mutex<Recorded>>,
    reader: usize,
    next: usize,
    hint: SizeHint,
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let place = self.next;
        let polled = {
            let mut recorded = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            if recorded.reader != self.reader {
                return Poll::Ready(Some(Err("another attempt sends this body now".into())));
            }
            ready!(recorded.poll_piece(place, cx))
        };
        self.next += 1;
        Poll::Ready(polled.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.hint.clone()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn stream(pieces: &'static [&'static [u8]]) -> Body {
        let frames = pieces.iter().map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from_static(piece))));
        Body::stream(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn what_one_attempt_has_read_the_next_one_reads_again() {
        let replay = Replay::new(stream(&[b"ab", b"cd", b"ef"]), Extent::Whole);
        let mut first = replay.body();
        let piece = first.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert_eq!(piece, "ab");
        assert_eq!(replay.body().collect(10).await.expect("reads"), "abcdef");
        assert!(first.frame().await.expect("an end").is_err());
        assert_eq!(replay.body().collect(10).await.expect("reads"), "abcdef");
    }

    #[tokio::test]
    async fn a_second_message_ends_a_call_that_may_be_tried_again() {
        let one = Replay::new(stream(&[b"\0\0", b"\0\0\x02h", b"i"]), Extent::OneMessage);
        assert_eq!(one.body().collect(10).await.expect("reads"), "\0\0\0\0\x02hi");
        assert!(!one.has_overflowed());
        let two = Replay::new(stream(&[b"\0\0\0\0\x01x", b"\0\0\0\0\0"]), Extent::OneMessage);
        assert!(two.body().collect(20).await.is_err());
        assert!(two.has_overflowed());
    }
}
