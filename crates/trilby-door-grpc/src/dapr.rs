//! The service `dapr.proto.runtime.v1.Dapr`: which of its methods this build has, and what answers them.
//!
//! The generated trait would be a boxed future a call and a stub for each of the sixty methods; a table of those that
//! exist is shorter and faster.

use futures_util::Stream;
use http::{HeaderMap, request::Parts};
use prost::Message;
use tonic::Status;
use trilby_core::{Api, Ctx, Result};

use crate::{
    Inner, bindings, codec, configuration, conversation, crypto, error, invoke, lock, metadata, pubsub, secrets,
    shutdown, state,
    streaming::{self, Messages},
    subscribe,
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
    ("PublishEvent", "v1/publish"),
    ("BulkPublishEvent", "v1/publish"),
    ("BulkPublishEventAlpha1", "v1alpha1/publish"),
    ("SubscribeTopicEventsAlpha1", "v1alpha1/subscribe"),
    ("InvokeBinding", "v1/bindings"),
    ("GetSecret", "v1/secrets"),
    ("GetBulkSecret", "v1/secrets"),
    ("GetConfiguration", "v1/configuration"),
    ("GetConfigurationAlpha1", "v1alpha1/configuration"),
    ("SubscribeConfiguration", "v1/configuration"),
    ("SubscribeConfigurationAlpha1", "v1alpha1/configuration"),
    ("UnsubscribeConfiguration", "v1/configuration"),
    ("UnsubscribeConfigurationAlpha1", "v1alpha1/configuration"),
    ("EncryptAlpha1", "v1alpha1/crypto"),
    ("DecryptAlpha1", "v1alpha1/crypto"),
    ("SubtleGetKeyAlpha1", "v1alpha1/subtlecrypto"),
    ("SubtleEncryptAlpha1", "v1alpha1/subtlecrypto"),
    ("SubtleDecryptAlpha1", "v1alpha1/subtlecrypto"),
    ("SubtleWrapKeyAlpha1", "v1alpha1/subtlecrypto"),
    ("SubtleUnwrapKeyAlpha1", "v1alpha1/subtlecrypto"),
    ("SubtleSignAlpha1", "v1alpha1/subtlecrypto"),
    ("SubtleVerifyAlpha1", "v1alpha1/subtlecrypto"),
    ("ConverseAlpha1", "v1alpha1/conversation"),
    ("ConverseAlpha2", "v1alpha2/conversation"),
    ("TryLockAlpha1", "v1alpha1/lock"),
    ("UnlockAlpha1", "v1alpha1/unlock"),
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
        "PublishEvent" => call.unary(body, pubsub::publish).await,
        "BulkPublishEvent" | "BulkPublishEventAlpha1" => call.unary(body, pubsub::bulk_publish).await,
        "GetSecret" => call.unary(body, secrets::get).await,
        "GetBulkSecret" => call.unary(body, secrets::bulk_get).await,
        "GetConfiguration" | "GetConfigurationAlpha1" => call.unary(body, configuration::get).await,
        "SubscribeConfiguration" | "SubscribeConfigurationAlpha1" => call.stream(body, configuration::subscribe).await,
        "UnsubscribeConfiguration" | "UnsubscribeConfigurationAlpha1" => {
            call.unary(body, configuration::unsubscribe).await
        }
        "TryLockAlpha1" => call.unary(body, lock::try_lock).await,
        "UnlockAlpha1" => call.unary(body, lock::unlock).await,
        "EncryptAlpha1" => call.exchange(body, crypto::encrypt).await,
        "DecryptAlpha1" => call.exchange(body, crypto::decrypt).await,
        "SubtleGetKeyAlpha1"
        | "SubtleEncryptAlpha1"
        | "SubtleDecryptAlpha1"
        | "SubtleWrapKeyAlpha1"
        | "SubtleUnwrapKeyAlpha1"
        | "SubtleSignAlpha1"
        | "SubtleVerifyAlpha1" => call.fail(&crypto::subtle()),
        "ConverseAlpha1" => Box::pin(call.unary(body, conversation::converse_alpha1)).await,
        "ConverseAlpha2" => Box::pin(call.unary(body, conversation::converse_alpha2)).await,
        "GetMetadata" => call.unary(body, metadata::get).await,
        "SetMetadata" => call.unary(body, metadata::set).await,
        // Boxed, so that the size of these futures is not part of every state call's.
        "InvokeService" => Box::pin(call.invoke(parts, body)).await,
        "SubscribeTopicEventsAlpha1" => Box::pin(call.subscribe(body)).await,
        "InvokeBinding" => Box::pin(call.invoke_binding(parts, body)).await,
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

    /// Decodes the message, calls `block` with it, and sends on what comes of that, as it comes.
    async fn stream<M, R, S, F>(
        &self,
        body: impl Incoming,
        block: impl FnOnce(&'a Api, &'a Ctx, M) -> F,
    ) -> http::Response<Reply>
    where
        M: Message + Default,
        R: Message,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        F: Future<Output = Result<S>>,
    {
        let max_bytes = self.door.options.max_body_bytes;
        let message = match unary::read(body, max_bytes).await {
            Ok(message) => message,
            Err(status) => return status.into_http(),
        };
        match block(&self.door.api, self.ctx, message).await {
            Ok(answers) => streaming::reply(answers, max_bytes),
            Err(error) => self.fail(&error),
        }
    }

    /// Passes what the caller says to `block`, and sends on what comes of it, while the caller is still speaking.
    async fn exchange<R, S, F>(
        &self,
        body: impl Incoming,
        block: impl FnOnce(&'a Api, &'a Ctx, Messages) -> F,
    ) -> http::Response<Reply>
    where
        R: Message,
        S: Stream<Item = Result<R, Status>> + Send + 'static,
        F: Future<Output = Result<S>>,
    {
        let max_bytes = self.door.options.max_body_bytes;
        match block(&self.door.api, self.ctx, Messages::new(body, max_bytes)).await {
            Ok(answers) => streaming::reply(answers, max_bytes),
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

    async fn invoke_binding(&self, parts: &Parts, body: impl Incoming) -> http::Response<Reply> {
        let max_bytes = self.door.options.max_body_bytes;
        let message = match unary::read(body, max_bytes).await {
            Ok(message) => message,
            Err(status) => return status.into_http(),
        };
        let (answer, metadata) = bindings::invoke(&self.door.api, self.ctx, parts, message).await;
        let (answer, status) = match answer {
            Ok(answer) => (answer, Status::ok("")),
            Err(error) => (Default::default(), self.status_of(&error)),
        };
        unary::reply_with(metadata, &answer, status, HeaderMap::new(), max_bytes)
    }

    async fn subscribe(&self, body: impl Incoming) -> http::Response<Reply> {
        let max_bytes = self.door.options.max_body_bytes;
        let messages = Messages::new(body, max_bytes);
        match subscribe::open(&self.door.api, self.ctx, messages).await {
            Ok(subscribed) => streaming::reply(subscribe::run(subscribed), max_bytes),
            Err(subscribe::Refused::Stream(status)) => status.into_http(),
            Err(subscribe::Refused::Block(error)) => self.fail(&error),
        }
    }

    fn fail(&self, error: &trilby_core::Error) -> http::Response<Reply> {
        self.status_of(error).into_http()
    }

    /// The status of a failed call, which is counted and noted.
    fn status_of(&self, error: &trilby_core::Error) -> Status {
        self.door.api.errors.record(error.code());
        error::log(error, &self.door.api.app.id, self.method);
        error::to_status(error)
    }
}

/// What a server says of a method that it does not have; those of later building blocks are such.
fn unknown(method: &str) -> http::Response<Reply> {
    Status::unimplemented(format!("unknown method {method} for service dapr.proto.runtime.v1.Dapr")).into_http()
}
