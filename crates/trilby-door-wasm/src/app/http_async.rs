//! Calls by `wasi:http/handler` of WASI 0.3: async, bodies as streams.
//!
//! An instance serves one call at a time here too, so that a guest which fails takes only its own call with it, and a
//! deadline ends only what is late: within one instance the host can end no single call.

use std::{future::poll_fn, sync::Arc};

use ::http::Method;
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::{mpsc, oneshot};
use trilby_core::{ChannelError, Ctx, Request, Response};
use trilby_wasm::Instance;
use wasmtime_wasi_http::{Error as HttpError, WasiBody, WasiHttpView as _, p3};

use super::{
    App, failure,
    http::{self, Head},
};
use crate::outgoing;

/// Frames of a body that wait for their reader.
const FRAMES: usize = 16;

pub(super) async fn call(app: &Arc<App>, ctx: &Ctx, mut request: Request) -> Result<Response, ChannelError> {
    http::address(&mut request, app);
    let is_head = request.method() == Method::HEAD;
    let (sender, receiver) = oneshot::channel();
    let ctx = ctx.clone();
    let handling = app.pool.call(move |Instance { store, exports, .. }: &mut Instance<_>| {
        Box::pin(async move {
            let guest = store.data_mut();
            guest.begin(ctx);
            let request = request.map(outgoing::to_wasi);
            let (request, sent) = p3::Request::from_http(guest.http().hooks, request);
            let handling = store.run_concurrent(async move |accessor| {
                match exports.http_async().handle(accessor, request).await? {
                    Err(code) => drop(sender.send(Err(format!("{code:?}")))),
                    Ok(response) => {
                        let response = accessor.with(|store| response.into_http(store, sent))?;
                        relay(response, sender).await;
                    }
                }
                poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                wasmtime::Result::Ok(())
            });
            handling.await.flatten().map_err(failure::named)
        })
    });
    http::respond(app, Box::pin(handling), receiver, is_head).await
}

/// Hands the response on, then its body as it comes. The guest writes only while its event loop runs, which is here.
async fn relay(response: ::http::Response<WasiBody>, to: oneshot::Sender<Head>) {
    let (head, mut from) = response.into_parts();
    let (sender, receiver) = mpsc::channel(FRAMES);
    if to.send(Ok(::http::Response::from_parts(head, body(receiver)))).is_err() {
        return;
    }
    while let Some(frame) = from.frame().await {
        if sender.send(frame).await.is_err() {
            return;
        }
    }
}

fn body(mut frames: mpsc::Receiver<Result<Frame<Bytes>, HttpError>>) -> WasiBody {
    StreamBody::new(stream::poll_fn(move |cx| frames.poll_recv(cx))).boxed_unsync()
}
