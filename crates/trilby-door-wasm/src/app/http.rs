//! Calls by `wasi:http/incoming-handler` of WASI 0.2, and what they share with those of WASI 0.3.
//!
//! The guest runs where its caller waits. Most guests have written their whole answer when they first give up their
//! turn; it is then handed on in one piece. For the others the caller gets what there is, and whoever reads the body
//! runs the guest on ([`Answer`]).

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use ::http::{HeaderMap, Method, StatusCode, Uri, header, uri::Scheme as UriScheme};
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use trilby_core::{Body, ChannelError, Ctx, Request, Response};
use trilby_wasm::{CallError, Instance};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _, p2::bindings::http::types::Scheme};

use super::{App, answer::Answer, failure};
use crate::{message, message::Invalid, outgoing};

/// A guest at work; done when its handler has returned.
pub(super) type Handling = BoxFuture<'static, Result<(), CallError>>;

/// What a guest answers before its body: a response, or the error that it chose instead.
pub(super) type Head = Result<::http::Response<WasiBody>, String>;

pub(super) async fn call(app: &Arc<App>, ctx: &Ctx, mut request: Request) -> Result<Response, ChannelError> {
    address(&mut request, app);
    let is_head = request.method() == Method::HEAD;
    let (sender, receiver) = oneshot::channel();
    let ctx = ctx.clone();
    let handling = app.pool.call(move |Instance { store, exports, .. }: &mut Instance<_>| {
        Box::pin(async move {
            let guest = store.data_mut();
            guest.begin(ctx);
            let request = guest.http().new_incoming_request(Scheme::Http, request.map(outgoing::to_wasi))?;
            // A caller that is gone hears no answer.
            let answer = move |head: Result<_, _>| drop(sender.send(head.map_err(|code| format!("{code:?}"))));
            let out = guest.http().new_response_outparam_from_callback(answer)?;
            exports.http().wasi_http_incoming_handler().call_handle(store, request, out).await.map_err(failure::named)
        })
    });
    respond(app, Box::pin(handling), receiver, is_head).await
}

/// Makes a response of what a guest answers, as soon as it has begun to.
pub(super) async fn respond(
    app: &Arc<App>,
    handling: Handling,
    receiver: oneshot::Receiver<Head>,
    is_head: bool,
) -> Result<Response, ChannelError> {
    let (head, handling) = first_word(handling, receiver).await.map_err(|error| failure::of_call(&app.id, &error))?;
    let response = match head {
        Some(Ok(response)) => response,
        Some(Err(code)) => {
            return Err(failure::of_answer(&app.id, format_args!("an error instead of a response: {code}")));
        }
        None => return Err(failure::of_answer(&app.id, "it returned without one")),
    };
    let (parts, body) = response.into_parts();
    message::status(parts.status.as_u16()).map_err(|Invalid(message)| failure::of_answer(&app.id, message))?;

    let mut answer = Answer::new(Arc::clone(app), body, handling);
    let body = if answer.is_running() { Body::stream(answer) } else { answer.take_whole()? };
    if matches!(body, Body::Empty) && !is_head && parts.status != StatusCode::NOT_MODIFIED && promises(&parts.headers) {
        return Err(failure::of_answer(&app.id, "no body, and a content-length that promises one"));
    }
    Ok(Response::from_parts(parts, body))
}

fn promises(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Says which host is meant, to a guest that asks, when the request does not.
pub(super) fn address(request: &mut Request, app: &App) {
    let uri = request.uri();
    if uri.authority().is_some() || request.headers().contains_key(header::HOST) {
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
