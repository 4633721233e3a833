//! Framing of unary calls: one message in, one message and a status out.
//!
//! tonic's generic server would box each body and each stream; a unary call needs neither.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use prost::Message;
use tonic::{Code, Status};
use trilby_core::{
    Body,
    body::{BoxError, CollectError},
};

/// Content type of every call and answer.
pub(crate) const GRPC: &str = "application/grpc";
/// Bytes in front of a message: a flag for compression and the length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The body of a call as it arrives: from a connection, or from a caller in this process.
pub(crate) trait Incoming: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static {}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static> Incoming for B {}

/// The body of an answer.
#[derive(Default)]
pub(crate) enum Reply {
    /// The message has been sent; these follow.
    Trailers(HeaderMap),
    /// One framed message and the trailers after it.
    Message(Bytes, HeaderMap),
    /// An answer made elsewhere, which brings its own trailers.
    Stream(Body),
    /// Nothing more: the status was in the headers or in the trailers.
    #[default]
    Ended,
}

/// What came of a body that holds at most one message.
pub(crate) struct Received {
    /// The message without its prefix, if there was one.
    pub(crate) message: Option<Bytes>,
    pub(crate) trailers: HeaderMap,
}

/// An answer of one message.
pub(crate) fn reply(message: Bytes) -> http::Response<Reply> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    let mut response = http::Response::new(Reply::Message(message, trailers));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

/// An answer with metadata and trailers: `message` if `status` is OK, else the status alone.
pub(crate) fn reply_with(
    metadata: HeaderMap,
    message: &impl Message,
    status: Status,
    mut trailers: HeaderMap,
    max_bytes: usize,
) -> http::Response<Reply> {
    let framed = if status.code() == Code::Ok { encode(message, max_bytes) } else { Err(status) };
    let status = framed.as_ref().err().cloned().unwrap_or_else(|| Status::ok(""));
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    let mut response = http::Response::new(match framed {
        Ok(message) => Reply::Message(message, trailers),
        Err(_) => Reply::Trailers(trailers),
    });
    *response.headers_mut() = metadata;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

/// Encodes a message with its prefix, in one allocation.
pub(crate) fn encode(message: &impl Message, max_bytes: usize) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    if length > max_bytes {
        let text = format!("grpc: trying to send message larger than max ({length} vs. {max_bytes})");
        return Err(Status::resource_exhausted(text));
    }
    let prefixed =
        u32::try_from(length).map_err(|_| Status::resource_exhausted("grpc: message is longer than 4 GiB"))?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(prefixed);
    message.encode(&mut framed).expect("the buffer is as long as the message");
    Ok(framed.freeze())
}

/// Reads and decodes the message of a unary call.
pub(crate) async fn read<M: Message + Default>(body: impl Incoming, max_bytes: usize) -> Result<M, Status> {
    let received = receive(body, max_bytes).await?;
    let message = received.message.ok_or_else(|| Status::internal("grpc: the call holds no message"))?;
    decode(message)
}

/// Decodes a message. Its `bytes` fields are slices of `message`.
pub(crate) fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}

/// Reads a body of at most one message to its end.
pub(crate) async fn receive(body: impl Incoming, max_bytes: usize) -> Result<Received, Status> {
    let (framed, trailers) = gather(body, |framed| check_length(framed, max_bytes)).await?;
    Ok(Received { message: strip_prefix(framed)?, trailers })
}

/// Reads a body that is not framed to its end.
pub(crate) async fn collect(body: Body, max_bytes: usize) -> Result<Bytes, Status> {
    let check = |read: &[u8]| match read.len() {
        length if length > max_bytes => Err(Status::resource_exhausted(CollectError::TooLarge(max_bytes).to_string())),
        _ => Ok(()),
    };
    Ok(gather(body, check).await?.0)
}

/// Reads a body and its trailers. `check` sees what there is after each piece.
async fn gather(
    body: impl Incoming,
    check: impl Fn(&[u8]) -> Result<(), Status>,
) -> Result<(Bytes, HeaderMap), Status> {
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| Status::internal(format!("body could not be read: {}", error.into())))?;
        match frame.into_data() {
            // A message mostly comes in one piece, which is then used as it is.
            Ok(data) if first.is_empty() => first = data,
            Ok(data) => {
                if joined.is_empty() {
                    joined.extend_from_slice(&first);
                }
                joined.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        check(if joined.is_empty() { &first } else { &joined })?;
    }
    Ok((if joined.is_empty() { first } else { joined.freeze() }, trailers))
}

/// Refuses a message as soon as its prefix says that it is too long.
pub(crate) fn check_length(framed: &[u8], max_bytes: usize) -> Result<(), Status> {
    let announced = framed.get(1..PREFIX_BYTES).map_or(0, |mut length| length.get_u32() as usize);
    let length = announced.max(framed.len().saturating_sub(PREFIX_BYTES));
    if length > max_bytes {
        let text = format!("grpc: received message larger than max ({length} vs. {max_bytes})");
        return Err(Status::resource_exhausted(text));
    }
    Ok(())
}

/// A message is compressed, which this server does not offer.
pub(crate) fn compressed() -> Status {
    Status::unimplemented("grpc: compressed messages are not supported; send identity encoding")
}

fn strip_prefix(mut framed: Bytes) -> Result<Option<Bytes>, Status> {
    if framed.is_empty() {
        return Ok(None);
    }
    let cut_short = || Status::internal("grpc: the message ends before its length");
    let is_compressed = framed.try_get_u8().map_err(|_| cut_short())? != 0;
    if is_compressed {
        return Err(compressed());
    }
    let length = framed.try_get_u32().map_err(|_| cut_short())? as usize;
    if framed.len() < length {
        return Err(cut_short());
    }
    framed.truncate(length);
    Ok(Some(framed))
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Self::Stream(stream) = &mut *self {
            return Pin::new(stream).poll_frame(cx);
        }
        let frame = match std::mem::take(&mut *self) {
            Self::Message(message, trailers) => {
                *self = Self::Trailers(trailers);
                Frame::data(message)
            }
            Self::Trailers(trailers) => Frame::trailers(trailers),
            Self::Stream(_) | Self::Ended => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ended => true,
            Self::Message(..) | Self::Trailers(_) => false,
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }
}

impl From<Reply> for Body {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Ended => Self::Empty,
            Reply::Stream(body) => body,
            framed => Self::stream(framed),
        }
    }
}

#[cfg(test)]
mod tests {
    use trilby_proto::runtime::v1::GetStateRequest;

    use super::*;

    fn request() -> GetStateRequest {
        GetStateRequest { store_name: "store".to_owned(), key: "key".to_owned(), ..GetStateRequest::default() }
    }

    /// A body that arrives in pieces of `size` bytes.
    fn pieces(framed: &Bytes, size: usize) -> impl Incoming + use<> {
        let frames: Vec<_> = framed.chunks(size).map(|piece| Frame::data(Bytes::copy_from_slice(piece))).collect();
        http_body_util::StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok::<_, BoxError>)))
    }

    #[tokio::test]
    async fn a_message_is_the_same_in_one_piece_and_in_many() {
        let framed = encode(&request(), 100).expect("short");
        for size in [1, 4, 5, 6, framed.len()] {
            let read: GetStateRequest = read(pieces(&framed, size), 100).await.expect("whole");
            assert_eq!(read, request(), "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let framed = encode(&request(), 100).expect("short");
        let cut = framed.slice(..framed.len() - 1);
        let compressed = Bytes::from([&[1], &framed[1..]].concat());
        let nonsense = Bytes::from_static(b"\0\0\0\0\x01\xff");
        for (framed, code) in [
            (Bytes::new(), Code::Internal),
            (cut, Code::Internal),
            (framed.slice(..3), Code::Internal),
            (nonsense, Code::Internal),
            (compressed, Code::Unimplemented),
        ] {
            let error = read::<GetStateRequest>(pieces(&framed, 7), 100).await.expect_err("not a message");
            assert_eq!(error.code(), code, "{framed:?}");
        }
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_refused_by_its_announced_length() {
        let framed = encode(&request(), 100).expect("short");
        let length = framed.len() - PREFIX_BYTES;
        let error = read::<GetStateRequest>(pieces(&framed, 5), length - 1).await.expect_err("too long");
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(error.message(), format!("grpc: received message larger than max ({length} vs. {})", length - 1));
        assert!(read::<GetStateRequest>(pieces(&framed, 5), length).await.is_ok());
        assert_eq!(encode(&request(), length - 1).expect_err("too long").code(), Code::ResourceExhausted);
    }
}
