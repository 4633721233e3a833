//! Cryptography: documents as streams. Both directions run at once, and neither is ever whole in memory.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message;
use tonic::Status;
use trilby_core::{
    Api, Body, Code, Ctx, Error, Result,
    body::BoxError,
    crypto::{DecryptOptions, EncryptOptions},
};
use trilby_proto::{
    common::v1::StreamPayload,
    runtime::v1::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse},
};

use crate::{error, streaming::Messages};

/// How long a caller may take to say what it wants; Dapr's.
const FIRST_MESSAGE_LIMIT: Duration = Duration::from_secs(5);

/// `EncryptAlpha1`
pub(crate) async fn encrypt(
    api: &Api,
    ctx: &Ctx,
    mut messages: Messages,
) -> Result<impl Stream<Item = Result<EncryptResponse, Status>> + Send + use<>> {
    let first: EncryptRequest = first(&mut messages).await?;
    let given = first.options.ok_or_else(without_options)?;
    if given.key_name.is_empty() {
        return Err(bad_request("missing property 'keyName' in the options message"));
    }
    if given.key_wrap_algorithm.is_empty() {
        return Err(bad_request("missing property 'keyWrapAlgorithm' in the options message"));
    }
    let options = EncryptOptions {
        key_name: given.key_name,
        key_wrap_algorithm: given.key_wrap_algorithm,
        cipher: given.data_encryption_cipher,
        omit_decryption_key_name: given.omit_decryption_key_name,
        decryption_key_name: given.decryption_key_name,
    };
    let plaintext = body::<EncryptRequest>(messages, first.payload);

    let document = api.crypto.encrypt(ctx, &given.component_name, options, plaintext).await?;

    Ok(chunks(document, |payload| EncryptResponse { payload: Some(payload) }))
}

/// `DecryptAlpha1`
pub(crate) async fn decrypt(
    api: &Api,
    ctx: &Ctx,
    mut messages: Messages,
) -> Result<impl Stream<Item = Result<DecryptResponse, Status>> + Send + use<>> {
    let first: DecryptRequest = first(&mut messages).await?;
    let given = first.options.ok_or_else(without_options)?;
    let options = DecryptOptions { key_name: given.key_name };
    let document = body::<DecryptRequest>(messages, first.payload);

    let plaintext = api.crypto.decrypt(ctx, &given.component_name, options, document).await?;

    Ok(chunks(plaintext, |payload| DecryptResponse { payload: Some(payload) }))
}

/// The calls that Dapr has and that its builds leave out. Programs that embed this runtime, and guests, have them.
pub(crate) fn subtle() -> Error {
    Error::new(Code::ApiUnimplemented, "this API is currently not implemented")
}

/// A message of either call: options in the first, a piece of the data in any.
trait Request: Message + Default + 'static {
    fn has_options(&self) -> bool;
    fn payload(self) -> Option<StreamPayload>;
}

impl Request for EncryptRequest {
    fn has_options(&self) -> bool {
        self.options.is_some()
    }

    fn payload(self) -> Option<StreamPayload> {
        self.payload
    }
}

impl Request for DecryptRequest {
    fn has_options(&self) -> bool {
        self.options.is_some()
    }

    fn payload(self) -> Option<StreamPayload> {
        self.payload
    }
}

async fn first<M: Request>(messages: &mut Messages) -> Result<M> {
    let failed = |reason: &str| {
        let message = format!("failed to perform operation: error receiving the first message: {reason}");
        Error::new(Code::Crypto, message)
    };
    match tokio::time::timeout(FIRST_MESSAGE_LIMIT, messages.next()).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(failed("EOF")),
        Ok(Err(status)) => Err(failed(status.message())),
        Err(_) => Err(bad_request("error waiting for first message: context deadline exceeded")),
    }
}

fn without_options() -> Error {
    bad_request("first message does not contain the required options")
}

fn bad_request(reason: &str) -> Error {
    Error::new(Code::BadRequest, format!("invalid request: {reason}"))
}

/// What the messages carry, as one body. `payload` came with the first of them.
fn body<M: Request>(messages: Messages, payload: Option<StreamPayload>) -> Body {
    let pieces = stream::try_unfold(Pieces { messages, payload, next: 0 }, |mut pieces| async move {
        Ok::<_, BoxError>(pieces.next::<M>().await?.map(|data| (Frame::data(data), pieces)))
    });
    Body::stream(StreamBody::new(pieces))
}

struct Pieces {
    messages: Messages,
    /// What was received and not passed on.
    payload: Option<StreamPayload>,
    /// The number of the next piece.
    next: u64,
}

impl Pieces {
    /// The next piece; `None` at the end.
    async fn next<M: Request>(&mut self) -> Result<Option<Bytes>, BoxError> {
        loop {
            if let Some(payload) = self.payload.take() {
                if payload.seq != self.next {
                    let (received, expected) = (payload.seq, self.next);
                    return Err(format!("invalid sequence number received: {received} (expected: {expected})").into());
                }
                self.next += 1;
                return Ok(Some(payload.data));
            }
            let received = self.messages.next::<M>().await;
            match received.map_err(|status| format!("error receiving message: {}", status.message()))? {
                None => return Ok(None),
                Some(message) if message.has_options() => return Err("options found in non-leading message".into()),
                Some(message) => self.payload = message.payload(),
            }
        }
    }
}

/// A body as numbered messages.
fn chunks<R>(
    body: Body,
    response: impl Fn(StreamPayload) -> R + Send + Copy + 'static,
) -> impl Stream<Item = Result<R, Status>> + Send {
    stream::try_unfold((body, 0), move |(mut body, seq)| async move {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if !data.is_empty() {
                return Ok(Some((response(StreamPayload { data, seq }), (body, seq + 1))));
            }
        }
        Ok(None)
    })
}

/// The status of a stream that ended badly.
fn broken(cause: BoxError) -> Status {
    tracing::debug!(error = %cause, "a document broke off");
    let error = cause
        .downcast::<Error>()
        .map_or_else(|cause| Error::new(Code::CryptoStream, cause.to_string()), |error| *error);
    error::to_status(&error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unary;

    fn piece(seq: u64, data: &'static str) -> EncryptRequest {
        EncryptRequest { options: None, payload: Some(StreamPayload { data: data.into(), seq }) }
    }

    fn messages(requests: &[EncryptRequest]) -> Messages {
        let framed: Vec<_> = requests.iter().map(|request| unary::encode(request, 100).expect("short")).collect();
        Messages::new(Body::from(framed.concat()), 100)
    }

    async fn read(requests: &[EncryptRequest], first: Option<StreamPayload>) -> Result<Bytes, String> {
        let body = body::<EncryptRequest>(messages(requests), first);
        body.collect(1000).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn pieces_are_joined_in_their_order() {
        let nothing = EncryptRequest::default();
        let joined = read(&[piece(0, "a"), nothing, piece(1, ""), piece(2, "b")], None).await;
        assert_eq!(joined.expect("whole"), "ab");
        let joined = read(&[piece(1, "b")], piece(0, "a").payload).await;
        assert_eq!(joined.expect("whole"), "ab", "the first message may hold the first piece");
    }

    #[tokio::test]
    async fn a_piece_out_of_order_and_options_that_come_late_end_the_stream() {
        let options = Some(trilby_proto::runtime::v1::EncryptRequestOptions::default());
        let late = EncryptRequest { options, payload: None };
        for (requests, expect) in [
            ([piece(0, "a"), piece(2, "b")], "invalid sequence number received: 2 (expected: 1)"),
            ([piece(1, "a"), piece(2, "b")], "invalid sequence number received: 1 (expected: 0)"),
            ([piece(0, "a"), late], "options found in non-leading message"),
        ] {
            assert!(read(&requests, None).await.expect_err(expect).ends_with(expect));
        }
    }

    #[tokio::test]
    async fn a_caller_that_says_nothing_is_told_so() {
        let error = first::<EncryptRequest>(&mut messages(&[])).await.expect_err("nothing was said");
        assert_eq!(error.message(), "failed to perform operation: error receiving the first message: EOF");
    }
}
