//! The body of a request to an app or of its reply: nothing, bytes in hand, or a stream.

mod replay;
mod timed;

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

pub(crate) use replay::{Extent, Replay};

/// Why a body could not be read to its end.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A message body. Bytes in hand cost no allocation; a stream is boxed once.
#[derive(Debug, Default)]
pub enum Body {
    /// No content.
    #[default]
    Empty,
    /// Complete content. Empty bytes are the same as [`Body::Empty`].
    Full(Bytes),
    /// Content that arrives over time.
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

/// A body that could not be collected.
#[derive(Debug)]
pub enum CollectError {
    /// It is longer than the limit, in bytes.
    TooLarge(usize),
    /// The sender failed.
    Broken(BoxError),
}

impl std::fmt::Display for CollectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge(limit) => write!(f, "body is larger than the limit of {limit} bytes; raise --max-body-size"),
            Self::Broken(error) => write!(f, "body could not be read: {error}"),
        }
    }
}

impl std::error::Error for CollectError {}

impl Body {
    /// A body that arrives over time.
    pub fn stream<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::Stream(body.map_err(Into::into).boxed_unsync())
    }

    /// Reads the body to its end, at most `limit` bytes.
    ///
    /// # Errors
    /// [`CollectError::TooLarge`] as soon as the limit is passed; [`CollectError::Broken`] if the sender fails.
    pub async fn collect(self, limit: usize) -> Result<Bytes, CollectError> {
        let mut stream = match self {
            Self::Empty => return Ok(Bytes::new()),
            Self::Full(bytes) if bytes.len() <= limit => return Ok(bytes),
            Self::Full(_) => return Err(CollectError::TooLarge(limit)),
            Self::Stream(stream) => stream,
        };
        // Not `Limited::collect`: the compiler cannot see that its future is `Send` inside a spawned one.
        let mut collected = BytesMut::new();
        while let Some(frame) = stream.frame().await {
            let Ok(data) = frame.map_err(CollectError::Broken)?.into_data() else { continue };
            if collected.len() + data.len() > limit {
                return Err(CollectError::TooLarge(limit));
            }
            collected.extend_from_slice(&data);
        }
        Ok(collected.freeze())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_whether_whole_or_streamed() {
        let whole = Body::from(vec![0; 11]);
        assert!(matches!(whole.collect(10).await, Err(CollectError::TooLarge(10))));
        let streamed = Body::stream(Body::from(vec![0; 11]));
        assert!(matches!(streamed.collect(10).await, Err(CollectError::TooLarge(10))));
        assert_eq!(Body::stream(Body::from(vec![1; 10])).collect(10).await.expect("fits").len(), 10);
    }
}
