//! The segments of a document, sealed or opened while the other side is read: never more than one is in memory.

use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};

use super::file_key::{Sealer, TAG_BYTES};
use crate::{Body, Code, Error, body::BoxError};

/// Bytes of plaintext in every segment but the last, which may have fewer.
pub(super) const SEGMENT_BYTES: usize = 64 << 10;

/// A body that is read piece by piece, with the piece that is at hand.
pub(super) struct Source {
    piece: Bytes,
    body: Body,
}

impl Source {
    pub(super) fn new(body: Body) -> Self {
        match body {
            Body::Full(piece) => Self { piece, body: Body::Empty },
            body => Self { piece: Bytes::new(), body },
        }
    }

    /// What is at hand. Empty before the first [`fill`](Self::fill) and at the end.
    pub(super) fn piece(&self) -> &[u8] {
        &self.piece
    }

    /// Takes at most `length` bytes of what is at hand.
    pub(super) fn take(&mut self, length: usize) -> Bytes {
        self.piece.split_to(length.min(self.piece.len()))
    }

    /// Waits until something is at hand; false at the end.
    pub(super) async fn fill(&mut self) -> Result<bool, BoxError> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BoxError>> {
        while self.piece.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(frame) => self.piece = frame?.into_data().unwrap_or_default(),
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }

    /// How much there is still to come, as far as that is known and not above `limit`.
    fn expected(&self, limit: usize) -> usize {
        let to_come = self.body.size_hint().upper().and_then(|upper| usize::try_from(upper).ok());
        to_come.map_or(limit, |to_come| to_come.saturating_add(self.piece.len()).min(limit))
    }
}

/// Which way the segments go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Plaintext comes, sealed segments go.
    Seal,
    /// Sealed segments come, plaintext goes.
    Open,
}

impl Direction {
    /// Bytes of a whole segment as it comes.
    fn incoming_bytes(self) -> usize {
        match self {
            Self::Seal => SEGMENT_BYTES,
            Self::Open => SEGMENT_BYTES + TAG_BYTES,
        }
    }
}

/// A document, or its plaintext, as it is read.
pub(super) struct Segments {
    /// What goes before the first segment.
    header: Option<Bytes>,
    source: Source,
    sealer: Sealer,
    direction: Direction,
    /// The segment that is being gathered.
    segment: Vec<u8>,
    number: u32,
    ended: bool,
}

impl Segments {
    /// The document of a plaintext.
    pub(super) fn sealed(header: Bytes, source: Source, sealer: Sealer) -> Self {
        Self { header: Some(header), ..Self::new(source, sealer, Direction::Seal) }
    }

    /// The plaintext of a document whose header was read.
    pub(super) fn opened(source: Source, sealer: Sealer) -> Self {
        Self::new(source, sealer, Direction::Open)
    }

    fn new(source: Source, sealer: Sealer, direction: Direction) -> Self {
        Self { header: None, source, sealer, direction, segment: Vec::new(), number: 0, ended: false }
    }

    /// Waits for the next segment. It is known to be the last one when nothing follows, so one byte more is awaited.
    fn poll_segment(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let whole = self.direction.incoming_bytes();
        while ready!(self.source.poll_fill(cx))? {
            if self.segment.len() == whole {
                return Poll::Ready(Some(self.finish(false)));
            }
            if self.segment.is_empty() {
                self.segment.reserve(self.source.expected(whole) + TAG_BYTES);
            }
            let piece = self.source.take(whole - self.segment.len());
            self.segment.extend_from_slice(&piece);
        }
        self.ended = true;
        // No plaintext makes no segment.
        let nothing = self.segment.is_empty() && self.number == 0;
        Poll::Ready((!nothing).then(|| self.finish(true)))
    }

    fn finish(&mut self, last: bool) -> Result<Bytes, BoxError> {
        let mut segment = mem::take(&mut self.segment);
        let number = self.number;
        let (finished, verb) = match self.direction {
            Direction::Seal => (self.sealer.seal(number, last, &mut segment), "encrypt"),
            Direction::Open => (self.sealer.open(number, last, &mut segment), "decrypt"),
        };
        finished.map_err(|_| broken(format!("error processing segment {number}: failed to {verb} segment")))?;
        if !last {
            self.number = number.checked_add(1).ok_or_else(|| broken("input stream is too large"))?;
        }
        Ok(segment.into())
    }
}

fn broken(message: impl Into<String>) -> Error {
    Error::new(Code::CryptoStream, message)
}

impl HttpBody for Segments {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(header) = self.header.take() {
            return Poll::Ready(Some(Ok(Frame::data(header))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let segment = ready!(self.poll_segment(cx));
        // After a failure nothing is handed on.
        self.ended |= matches!(segment, Some(Err(_)));
        Poll::Ready(segment.map(|segment| segment.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.header.is_none() && self.ended
    }
}
