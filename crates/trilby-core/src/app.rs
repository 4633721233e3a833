//! The way out to an application, whatever it is: HTTP server, gRPC server, Wasm guest or Rust closure.

mod contract;

use std::{fmt, future::Future, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use trilby_component::{ErrorKind, Metadata, configuration::Items};

use crate::{
    Ctx, Request, Response,
    pubsub::{BulkDelivery, Delivery, Outcome, Subscription},
    resiliency::{Failure, Refusal, TIMED_OUT},
};

/// Who an app is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The app id.
    pub id: String,
    /// Its namespace, where one is set. Dapr's `NAMESPACE`.
    pub namespace: Option<String>,
}

impl Identity {
    /// An app without a namespace of its own.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), namespace: None }
    }

    /// The namespace, or Dapr's name for none.
    #[must_use]
    pub fn namespace_or_default(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

/// An app could not be asked, or did not answer as an app does.
#[derive(Debug)]
pub struct ChannelError {
    /// `Unavailable` if the app was not reached, so that asking again is safe; `Timeout`; `Unsupported` if this kind
    /// of app cannot take this kind of call; else `Internal`.
    pub kind: ErrorKind,
    /// For people; names the app's address or the limit that it broke.
    pub message: String,
    /// What the app answered instead, for retry policies that match on it: an HTTP status from 100, or a gRPC code up
    /// to 16.
    pub status: Option<u16>,
}

impl ChannelError {
    /// An error of `kind`, without an answer of the app's.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), status: None }
    }

    /// Says what the app answered.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ChannelError {}

impl Failure for ChannelError {
    fn is_retryable(&self) -> bool {
        !matches!(self.kind, ErrorKind::InvalidRequest | ErrorKind::Unsupported | ErrorKind::Denied)
    }

    fn status(&self) -> Option<u16> {
        self.status
    }

    fn timed_out(_: Duration) -> Self {
        Self::new(ErrorKind::Timeout, TIMED_OUT)
    }

    fn refused(refusal: Refusal) -> Self {
        Self::new(ErrorKind::Unavailable, refusal.to_string())
    }
}

/// An event of an input binding, on its way to an app.
#[derive(Debug, Clone, Copy)]
pub struct BindingEvent<'a> {
    /// The component's name.
    pub binding: &'a str,
    /// Where an app with routes gets it: the component's `route`, else its name. Begins with a slash.
    pub path: &'a str,
    /// What came.
    pub data: &'a Bytes,
    /// Its media type, where the system carries one.
    pub content_type: Option<&'a str>,
    /// What the binding says about it.
    pub metadata: &'a Metadata,
}

/// What an app answers to an event of an input binding.
#[derive(Debug, Clone, Default)]
pub struct BindingReply {
    /// For the binding, which may answer the system with it.
    pub data: Option<Bytes>,
    /// Output bindings that are called with `data`, by the operation `create`.
    pub to: Vec<String>,
    /// Whether they are called at the same time. Default: one after the other.
    pub parallel: bool,
    /// Items that are saved in `store`.
    pub state: Vec<trilby_component::state::SetRequest>,
    /// The state store of `state`.
    pub store: String,
}

/// A change that an app asked to hear of.
#[derive(Debug, Clone, Copy)]
pub struct ConfigurationUpdate<'a> {
    /// The component's name.
    pub store: &'a str,
    /// Id of the subscription.
    pub id: &'a str,
    /// What changed.
    pub items: &'a Items,
}

/// Calls into one application.
///
/// A status that the app chose is an answer, not an error. Dropping the future abandons the call.
///
/// What Dapr itself says to an app (events, discovery, health) has a default: the HTTP contract of Dapr's apps, spoken
/// through [`invoke`](Self::invoke). An app that is called in another way overrides it.
#[async_trait]
pub trait AppChannel: Send + Sync {
    /// Calls a method: the path is the method's, headers are already those that the app may see.
    async fn invoke(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError>;

    /// Passes a gRPC call through unchanged, framing and trailers included.
    ///
    /// # Errors
    /// `Unsupported` unless the app speaks gRPC.
    async fn proxy(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        let _ = (ctx, request);
        Err(ChannelError::new(ErrorKind::Unsupported, "this app does not speak gRPC; set its app protocol to grpc"))
    }

    /// The subscriptions that the app itself asks for.
    ///
    /// # Errors
    /// If the app could not be asked; asking again can help.
    async fn subscriptions(&self, ctx: &Ctx) -> Result<Vec<Subscription>, ChannelError> {
        contract::subscriptions(self, ctx).await
    }

    /// Delivers one event.
    ///
    /// # Errors
    /// The app did not handle it; trying again can help.
    async fn deliver(&self, ctx: &Ctx, delivery: &Delivery<'_>) -> Result<Outcome, ChannelError> {
        contract::deliver(self, ctx, delivery).await
    }

    /// Delivers several events of one topic; answers in their order.
    ///
    /// # Errors
    /// The app handled none of them; trying again can help.
    async fn deliver_bulk(&self, ctx: &Ctx, delivery: &BulkDelivery<'_>) -> Result<Vec<Outcome>, ChannelError> {
        contract::deliver_bulk(self, ctx, delivery).await
    }

    /// Whether the app wants the events of a binding. `path` is where an app with routes would get them.
    async fn listens_to_binding(&self, ctx: &Ctx, binding: &str, path: &str) -> Result<bool, ChannelError> {
        contract::listens_to_binding(self, ctx, binding, path).await
    }

    /// Delivers an event of an input binding.
    ///
    /// # Errors
    /// The app did not handle it; trying again can help.
    async fn binding_event(&self, ctx: &Ctx, event: &BindingEvent<'_>) -> Result<BindingReply, ChannelError> {
        contract::binding_event(self, ctx, event).await
    }

    /// The configuration keys that the app itself asks to watch: store and keys. An app with routes asks through the
    /// API instead.
    async fn watched_configuration(&self, ctx: &Ctx) -> Result<Vec<(String, Vec<String>)>, ChannelError> {
        let _ = ctx;
        Ok(Vec::new())
    }

    /// Tells the app of a configuration change.
    async fn configuration_changed(&self, ctx: &Ctx, update: &ConfigurationUpdate<'_>) -> Result<(), ChannelError> {
        contract::configuration_changed(self, ctx, update).await
    }

    /// Asks the app whether it is healthy. `path` is where an app with routes answers that.
    ///
    /// # Errors
    /// It is not, or it did not answer.
    async fn check_health(&self, ctx: &Ctx, path: &str) -> Result<(), ChannelError> {
        contract::check_health(self, ctx, path).await
    }
}

/// An app that is a Rust function. Made by [`from_fn`].
struct FnApp<F>(F);

/// Makes an app of an async function from request to response.
pub fn from_fn<F, Fut>(function: F) -> impl AppChannel
where
    F: Fn(Request) -> Fut + Send + Sync,
    Fut: Future<Output = Response> + Send,
{
    FnApp(function)
}

#[async_trait]
impl<F, Fut> AppChannel for FnApp<F>
where
    F: Fn(Request) -> Fut + Send + Sync,
    Fut: Future<Output = Response> + Send,
{
    async fn invoke(&self, _: &Ctx, request: Request) -> Result<Response, ChannelError> {
        Ok(self.0(request).await)
    }
}
