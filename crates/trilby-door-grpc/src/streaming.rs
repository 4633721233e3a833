//! Framing of streams: messages in as they arrive, messages out as they are made.

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message;
use tonic::{Code, Status};
use trilby_core::{Body, body::BoxError};

use crate::unary::{self, GRPC, Incoming, PREFIX_BYTES, Reply};

/// The messages of a call, one by one.
pub(crate) struct Messages {
    body: Body,
    /// What was read and not yet taken.
    read: BytesMut,
    max_bytes: usize,
}

impl Messages {
    pub(crate) fn new(body: impl Incoming, max_bytes: usize) -> Self {
        Self { body: Body::stream(body), read: BytesMut::new(), max_bytes }
    }

    /// The next message; `None` once the caller has said everything. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The caller is gone, or sent what is no message or one that is too long.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return unary::decode(message).map(Some);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(Status::cancelled(format!("the call broke off: {error}"))),
                None if self.read.is_empty() => return Ok(None),
                None => return Err(Status::internal("grpc: the message ends before its length")),
            }
        }
    }

    /// Takes a whole message, without its prefix, if one is there.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        unary::check_length(&self.read, self.max_bytes)?;
        let Some(mut prefix) = self.read.get(..PREFIX_BYTES) else { return Ok(None) };
        if prefix.get_u8() != 0 {
            return Err(unary::compressed());
        }
        let length = prefix.get_u32() as usize;
        if self.read.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        self.read.advance(PREFIX_BYTES);
        Ok(Some(self.read.split_to(length).freeze()))
    }
}

/// An answer of many messages, which ends with the first error, or well.
pub(crate) fn reply<M: Message>(
    messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
    max_bytes: usize,
) -> http::Response<Reply> {
    let frames = stream::unfold(Some(Box::pin(messages)), move |messages| async move {
        let mut messages = messages?;
        let framed = match messages.next().await {
            Some(message) => message.and_then(|message| unary::encode(&message, max_bytes)),
            None => return Some((Ok::<_, BoxError>(Frame::trailers(trailers(&Status::ok("")))), None)),
        };
        Some(match framed {
            Ok(framed) => (Ok(Frame::data(framed)), Some(messages)),
            Err(status) => (Ok(Frame::trailers(trailers(&status))), None),
        })
    });
    let mut response = http::Response::new(Reply::Stream(Body::stream(StreamBody::new(frames))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(Code::Internal as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use trilby_proto::runtime::v1::GetStateRequest;

    use super::*;

    fn request(key: &str) -> GetStateRequest {
        GetStateRequest { key: key.to_owned(), ..GetStateRequest::default() }
    }

    async fn keys(body: impl Incoming) -> Result<Vec<String>, Status> {
        let mut messages = Messages::new(body, 100);
        let mut keys = Vec::new();
        while let Some(message) = messages.next::<GetStateRequest>().await? {
            keys.push(message.key);
        }
        Ok(keys)
    }

    #[tokio::test]
    async fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let framed = ["a", "", "ccc"].map(|key| unary::encode(&request(key), 100).expect("short")).concat();
        for size in [1, 3, 5, 6, framed.len()] {
            let pieces = framed.chunks(size).map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::copy_from_slice(piece))));
            let body = StreamBody::new(stream::iter(pieces.collect::<Vec<_>>()));
            assert_eq!(keys(body).await.expect("whole"), ["a", "", "ccc"], "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_status() {
        let messages = stream::iter([Ok(request("a")), Err(Status::aborted("enough")), Ok(request("b"))]);
        let collected = reply(messages, 100).into_body().collect().await.expect("no error of the connection");
        let status = Status::from_header_map(collected.trailers().expect("a status")).expect("a status");
        assert_eq!((status.code(), status.message()), (Code::Aborted, "enough"));
        assert_eq!(keys(Body::from(collected.to_bytes())).await.expect("whole"), ["a"]);
    }

    #[tokio::test]
    async fn a_message_that_is_cut_or_too_long_ends_the_stream() {
        let framed = unary::encode(&request("key"), 100).expect("short");
        let cut = keys(Body::from(framed.slice(..framed.len() - 1))).await.expect_err("cut");
        assert_eq!(cut.code(), Code::Internal);
        let long = unary::encode(&request(&"k".repeat(200)), 300).expect("fits");
        assert_eq!(keys(Body::from(long)).await.expect_err("long").code(), Code::ResourceExhausted);
    }
}
