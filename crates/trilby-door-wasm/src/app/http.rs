//! Calls by `wasi:http/incoming-handler` of WASI 0.2.
//!
//! The guest runs where its caller waits. Most guests have written their whole answer when they first give up their
//! turn; it is then handed on in one piece. For the others the caller gets what there is, and whoever reads the body
//! runs the guest on ([`Answer`]).

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use ::http::{Method, Uri, uri::Scheme as UriScheme};
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use trilby_core::{Body, ChannelError, Ctx, Request, Response};
use trilby_wasm::{CallError, Instance, Pool};
use wasmtime_wasi_http::{
    WasiHttpView as _,
    p2::{
        bindings::{
            ProxyPre,
            http::types::{ErrorCode, Scheme},
        },
        body::HyperOutgoingBody,
    },
};

use super::{App, Plan, answer::Answer, failure};
use crate::{guest::Guest, message, message::Invalid, outgoing};

/// A guest at work; done when its handler has returned.
pub(super) type Handling = BoxFuture<'static, Result<(), CallError>>;

type Head = Result<::http::Response<HyperOutgoingBody>, ErrorCode>;

pub(super) async fn call(
    app: &Arc<App>,
    pool: &Pool<Plan<ProxyPre<Guest>>>,
    ctx: &Ctx,
    mut request: Request,
) -> Result<Response, ChannelError> {
    address(&mut request, app);
    let is_head = request.method() == Method::HEAD;
    let (sender, receiver) = oneshot::channel();
    let ctx = ctx.clone();
    let handling = pool.call(move |Instance { store, exports, .. }: &mut Instance<_>| {
        Box::pin(async move {
            let guest = store.data_mut();
            guest.begin(ctx);
            let request = guest.http().new_incoming_request(Scheme::Http, request.map(outgoing::to_wasi))?;
            let out = guest.http().new_response_outparam(sender)?;
            exports.wasi_http_incoming_handler().call_handle(store, request, out).await.map_err(failure::named)
        })
    });

    let (head, handling) = first_word(Box::pin(handling), receiver)
        .await
        .map_err(|error| failure::of_call(&app.id, &error))?;
    let response = match head {
        Some(Ok(response)) => response,
        Some(Err(code)) => return Err(failure::of_answer(&app.id, format_args!("an error instead of a response: {code:?}"))),
        None => return Err(failure::of_answer(&app.id, "it returned without one")),
    };
    let (parts, body) = response.into_parts();
    message::status(parts.status.as_u16()).map_err(|Invalid(message)| failure::of_answer(&app.id, message))?;
    let answer = Answer::new(Arc::clone(app), body, handling);
    let body = answer.into_body(&parts, is_head)?;
    Ok(Response::from_parts(parts, body))
}

/// Says which host is meant, to a guest that asks, when the request does not.
fn address(request: &mut Request, app: &App) {
    let uri = request.uri();
    if uri.authority().is_some() || request.headers().contains_key(::http::header::HOST) {
        return;
    }
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(UriScheme::HTTP);
    parts.authority = Some(app.authority.clone());
    // What cannot be completed, such as `*`, stays without a host, and the guest is not called.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// Runs the guest until it has sent the head of its answer, or is done. Gives the guest back if it is not.
async fn first_word(
    mut handling: Handling,
    mut receiver: oneshot::Receiver<Head>,
) -> Result<(Option<Head>, Option<Handling>), CallError> {
    let mut can_answer = true;
    let early = poll_fn(|cx| {
        if let Poll::Ready(result) = handling.as_mut().poll(cx) {
            return Poll::Ready(result.map(|()| None));
        }
        if can_answer && let Poll::Ready(head) = Pin::new(&mut receiver).poll(cx) {
            // Without a head the guest let go of its chance to answer. How it ends is still to be seen.
            can_answer = head.is_ok();
            return head.map_or(Poll::Pending, |head| Poll::Ready(Ok(Some(head))));
        }
        Poll::Pending
    });
    Ok(match early.await? {
        Some(head) => (Some(head), Some(handling)),
        None => (receiver.try_recv().ok(), None),
    })
}

impl Answer {
    /// The body to hand on: in one piece if the guest is done, else as it comes.
    fn into_body(mut self, head: &::http::response::Parts, is_head: bool) -> Result<Body, ChannelError> {
        if self.is_running() {
            return Ok(Body::stream(self));
        }
        let body = self.take_whole()?;
        let promised = head.headers.get(::http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let is_empty_promise = matches!(body, Body::Empty) && promised.is_some_and(|length| length != "0");
        if is_empty_promise && !is_head && head.status != ::http::StatusCode::NOT_MODIFIED {
            return Err(self.invalid("no body, and a content-length that promises one"));
        }
        Ok(body)
    }
}
