//! The service `dapr.proto.runtime.v1.Dapr`: which of its methods this build has, and what answers them.
//!
//! The generated trait would be a boxed future a call and a stub for each of the sixty methods; a table of those that
//! exist is shorter and faster.

use http::request::Parts;
use prost::Message;
use tonic::Status;
use trilby_core::{Api, Ctx, Result};

use crate::{
    Inner, codec, error, invoke, metadata, secrets, shutdown, state,
    unary::{self, Incoming, Reply},
};

const PREFIX: &str = "/dapr.proto.runtime.v1.Dapr/";

/// Each method and the group that API access rules know it by.
pub(crate) const METHODS: &[(&str, &str)] = &[
    ("InvokeService", "v1/invoke"),
    ("GetState", "v1/state"),
    ("GetBulkState", "v1/state"),
    ("SaveState", "v1/state"),
    ("DeleteState", "v1/state"),
    ("DeleteBulkState", "v1/state"),
    ("ExecuteStateTransaction", "v1/state"),
    ("QueryStateAlpha1", "v1alpha1/state"),
    ("GetSecret", "v1/secrets"),
    ("GetBulkSecret", "v1/secrets"),
    ("GetMetadata", "v1/metadata"),
    ("SetMetadata", "v1/metadata"),
    ("Shutdown", "v1/shutdown"),
];

/// The method that is called, if the call is one of this service.
pub(crate) fn method(parts: &Parts) -> Option<&str> {
    parts.uri.path().strip_prefix(PREFIX)
}

pub(crate) async fn answer<B: Incoming>(door: &Inner, method: &str, parts: &Parts, body: B) -> http::Response<Reply> {
    if let Err(status) = door.refused.check(method) {
        return status.into_http();
    }
    let ctx = codec::ctx(&parts.headers);
    let call = Call { door, ctx: &ctx, method };
    match method {
        "GetState" => call.unary(body, state::get).await,
        "SaveState" => call.unary(body, state::save).await,
        "GetBulkState" => call.unary(body, state::bulk_get).await,
        "DeleteState" => call.unary(body, state::delete).await,
        "DeleteBulkState" => call.unary(body, state::bulk_delete).await,
        "ExecuteStateTransaction" => call.unary(body, state::transact).await,
        "QueryStateAlpha1" => call.unary(body, state::query).await,
        "GetSecret" => call.unary(body, secrets::get).await,
        "GetBulkSecret" => call.unary(body, secrets::bulk_get).await,
        "GetMetadata" => call.unary(body, metadata::get).await,
        "SetMetadata" => call.unary(body, metadata::set).await,
        // Boxed, so that the size of these futures is not part of every state call's.
        "InvokeService" => Box::pin(call.invoke(parts, body)).await,
        "Shutdown" => match &door.options.shutdown {
            Some(hook) => shutdown::answer(hook, &parts.headers),
            None => unknown(method),
        },
        _ => unknown(method),
    }
}

struct Call<'a> {
    door: &'a Inner,
    ctx: &'a Ctx,
    method: &'a str,
}

impl<'a> Call<'a> {
    /// Decodes the message, calls `block` with it, encodes what it answers.
    async fn unary<M, R, F>(
        &self,
        body: impl Incoming,
        block: impl FnOnce(&'a Api, &'a Ctx, M) -> F,
    ) -> http::Response<Reply>
    where
        M: Message + Default,
        R: Message,
        F: Future<Output = Result<R>>,
    {
        let max_bytes = self.door.options.max_body_bytes;
        let message = match unary::read(body, max_bytes).await {
            Ok(message) => message,
            Err(status) => return status.into_http(),
        };
        match block(&self.door.api, self.ctx, message).await {
            Ok(answer) => unary::encode(&answer, max_bytes).map_or_else(Status::into_http, unary::reply),
            Err(error) => self.fail(&error),
        }
    }

    async fn invoke(&self, parts: &Parts, body: impl Incoming) -> http::Response<Reply> {
        let max_bytes = self.door.options.max_body_bytes;
        let message = match unary::read(body, max_bytes).await {
            Ok(message) => message,
            Err(status) => return status.into_http(),
        };
        let invoked = invoke::call(&self.door.api, self.ctx, parts, message, max_bytes).await;
        invoked.unwrap_or_else(|error| self.fail(&error))
    }

    fn fail(&self, error: &trilby_core::Error) -> http::Response<Reply> {
        self.door.api.errors.record(error.code());
        error::log(error, &self.door.api.app.id, self.method);
        error::to_status(error).into_http()
    }
}

/// What a server says of a method that it does not have; those of later building blocks are such.
fn unknown(method: &str) -> http::Response<Reply> {
    Status::unimplemented(format!("unknown method {method} for service dapr.proto.runtime.v1.Dapr")).into_http()
}
