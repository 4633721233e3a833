//! Calls of services that are not Dapr's: passed on to the app that their metadata names, frames and trailers
//! untouched.

use http::request::Parts;
use tonic::Status;
use trilby_core::{
    Api, Body,
    invoke::{CALLEE_APP_ID, DAPR_APP_ID},
};

use crate::{
    codec, error,
    unary::{Incoming, Reply},
};

pub(crate) async fn forward<B: Incoming>(api: &Api, mut parts: Parts, body: B) -> http::Response<Reply> {
    // The older name of the two is never passed on.
    let older = parts.headers.remove(DAPR_APP_ID);
    let Some(target) = parts.headers.remove(CALLEE_APP_ID).or(older) else {
        let text = format!("failed to proxy request: required metadata {CALLEE_APP_ID} or {DAPR_APP_ID} not found");
        return Status::unknown(text).into_http();
    };
    let target = String::from_utf8_lossy(target.as_bytes());
    let ctx = codec::ctx(&parts.headers);
    let method = parts.uri.path().to_owned();
    let request = http::Request::from_parts(parts, Body::stream(body));

    match api.invoke.proxy(&ctx, &target, request).await {
        Ok(response) => response.map(Reply::Stream),
        Err(error) => {
            api.errors.record(error.code());
            error::log(&error, &api.app.id, &method);
            error::to_status(&error).into_http()
        }
    }
}
