//! Calls to apps under a policy: what counts as a failure, and what is sent again.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use trilby_component::ErrorKind;

use super::GrpcStatus;
use crate::{
    Body, ChannelError, Request, Response,
    body::{BoxError, Extent, Replay},
    resiliency::{Failure, Policy, Refusal},
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// gRPC's code for what can only succeed after something else has changed.
pub(super) const FAILED_PRECONDITION: u16 = 9;

/// One attempt that a policy takes for a failure.
enum Attempt {
    /// The app answered, but not well: with this status. The caller gets this answer if there is no better one.
    Answered(Response, u16),
    /// It did not answer.
    Failed(ChannelError),
}

impl Failure for Attempt {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Answered(..) => true,
            Self::Failed(error) => error.is_retryable(),
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(_, status) => Some(*status),
            Self::Failed(error) => error.status(),
        }
    }

    fn timed_out(limit: Duration) -> Self {
        Self::Failed(ChannelError::timed_out(limit))
    }

    fn refused(refusal: Refusal) -> Self {
        Self::Failed(ChannelError::refused(refusal))
    }
}

/// Calls a method as a policy says. A body of unknown length is passed on as it arrives, and once.
pub(super) async fn call<F>(
    policy: &Policy,
    request: Request,
    send: impl Fn(Request) -> F,
) -> Result<Response, ChannelError>
where
    F: Future<Output = Result<Response, ChannelError>>,
{
    if policy.has_retries() && request.body().size_hint().exact().is_none() {
        return attempts(&policy.without_retries(), request, Extent::Whole, send, answered).await;
    }
    attempts(policy, request, Extent::Whole, send, answered).await
}

/// Passes a gRPC call on as a policy says, as long as it is one message and its answer has not begun.
pub(super) async fn proxy<F>(
    policy: &Policy,
    request: Request,
    send: impl Fn(Request) -> F,
) -> Result<Response, ChannelError>
where
    F: Future<Output = Result<Response, ChannelError>>,
{
    attempts(policy, request, Extent::OneMessage, send, begun).await
}

/// Sends a request as often as a policy says. `judge` finds the status of an answer that is a failure.
async fn attempts<F, J>(
    policy: &Policy,
    request: Request,
    extent: Extent,
    send: impl Fn(Request) -> F,
    judge: impl Fn(Response) -> J,
) -> Result<Response, ChannelError>
where
    F: Future<Output = Result<Response, ChannelError>>,
    J: Future<Output = Result<(Response, Option<u16>), ChannelError>>,
{
    const STREAMED: &str = "cannot use resiliency policies with retries on streaming RPCs";

    let (head, body) = request.into_parts();
    // Nothing is kept of what is sent once.
    let (replay, mut once) =
        if policy.has_retries() { (Some(Replay::new(body, extent)), None) } else { (None, Some(body)) };
    let attempt = || {
        let body = replay.as_ref().map_or_else(|| once.take().unwrap_or_default(), Replay::body);
        let sent = send(Request::from_parts(head.clone(), body));
        let deadline = policy.timeout().map(|timeout| Instant::now() + timeout);
        let (replay, judge) = (&replay, &judge);
        async move {
            let judged = match sent.await {
                Ok(response) => judge(response).await,
                Err(error) => Err(error),
            };
            if replay.as_ref().is_some_and(Replay::has_overflowed) {
                let error = ChannelError::new(ErrorKind::InvalidRequest, STREAMED).with_status(FAILED_PRECONDITION);
                return Err(Attempt::Failed(error));
            }
            let (response, failure) = judged.map_err(Attempt::Failed)?;
            let response = match deadline {
                Some(deadline) => response.map(|body| body.until(deadline)),
                None => response,
            };
            match failure {
                None => Ok(response),
                Some(status) => Err(Attempt::Answered(response, status)),
            }
        }
    };
    match policy.run(attempt).await {
        Ok(response) | Err(Attempt::Answered(response, _)) => Ok(response),
        Err(Attempt::Failed(error)) => Err(error),
    }
}

/// An answer fails by its status: gRPC's if the app speaks it.
async fn answered(response: Response) -> Result<(Response, Option<u16>), ChannelError> {
    let failure = match response.extensions().get() {
        Some(GrpcStatus(code)) => Some(*code).filter(|code| *code != 0),
        None => Some(response.status().as_u16()).filter(|status| !(200..400).contains(status)),
    };
    Ok((response, failure))
}

/// Waits until an answer shows whether it is a failure. A call of one message that fails answers with a status alone;
/// once there is a message, the caller shall have it.
async fn begun(response: Response) -> Result<(Response, Option<u16>), ChannelError> {
    let failed = |code: u16| Some(code).filter(|code| *code != 0);
    if let Some(code) = grpc_status(response.headers()) {
        return Ok((response, failed(code)));
    }
    let (head, mut body) = response.into_parts();
    let first = match body.frame().await.transpose() {
        Ok(first) => first,
        Err(error) => return Err(ChannelError::new(ErrorKind::Internal, format!("app's answer broke off: {error}"))),
    };
    let code = first.as_ref().and_then(Frame::trailers_ref).and_then(grpc_status);
    let body = Body::stream(Begun { first, rest: body });
    Ok((Response::from_parts(head, body), code.and_then(failed)))
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// A body whose first frame has been looked at.
struct Begun {
    first: Option<Frame<Bytes>>,
    rest: Body,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
