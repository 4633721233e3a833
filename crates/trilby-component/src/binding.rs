//! Bindings: calls out to a system (output) and events that come from one (input).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    CancellationToken, Metadata,
    error::{ComponentError, Result},
};

/// Calls an output binding.
#[derive(Debug, Clone, Default)]
pub struct InvokeRequest {
    /// One of [`OutputBinding::operations`].
    pub operation: String,
    /// What to send. JSON as the caller wrote it: a JSON string comes with its quotes.
    pub data: Bytes,
    /// What this binding understands, and the trace context.
    pub metadata: Metadata,
}

/// What an output binding answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InvokeResponse {
    /// `None` if there is nothing to say, which callers over HTTP see as 204.
    pub data: Option<Bytes>,
    /// Its media type, where the binding knows it.
    pub content_type: Option<String>,
    /// What this binding says besides.
    pub metadata: Metadata,
}

/// A failed call, and what the system said all the same.
#[derive(Debug)]
pub struct InvokeError {
    /// Why it failed.
    pub error: ComponentError,
    /// For example the metadata of an HTTP answer with a status of failure.
    pub response: Option<InvokeResponse>,
}

impl From<ComponentError> for InvokeError {
    fn from(error: ComponentError) -> Self {
        Self { error, response: None }
    }
}

/// A way out to a system.
#[async_trait]
pub trait OutputBinding: Send + Sync {
    /// The operations that it knows, by Dapr's names.
    fn operations(&self) -> &[&'static str];

    /// Performs one operation. The block has checked that it is known.
    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError>;

    /// Whether the system answers.
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    /// Releases connections. Called once, after the last request.
    async fn close(&self) {}
}

/// An event of an input binding.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// What came.
    pub data: Bytes,
    /// Its media type, where the system carries one.
    pub content_type: Option<String>,
    /// What the binding says about it, by Dapr's names; an HTTP app sees it as headers.
    pub metadata: Metadata,
}

/// An event was not handled: the system is to send it again if it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotHandled(pub String);

impl std::fmt::Display for NotHandled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the events of an input binding go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Hands on one event. `Ok` means that it is done with, and holds what the app answered, if anything.
    async fn deliver(&self, event: Event) -> Result<Option<Bytes>, NotHandled>;
}

/// An input binding at work; as [`pubsub::Subscription`](crate::pubsub::Subscription).
pub type Reading = BoxFuture<'static, Result<()>>;

/// A way in from a system.
#[async_trait]
pub trait InputBinding: Send + Sync {
    /// Begins to read: when this returns, what happens from then on will be delivered.
    ///
    /// # Errors
    /// If the system cannot be reached or refuses it.
    async fn read(&self, sink: Arc<dyn Sink>, stop: CancellationToken) -> Result<Reading>;

    /// Releases connections. Called once, after reading has ended.
    async fn close(&self) {}
}

/// A binding: a way in, a way out, or both over the same connection.
#[derive(Clone, Default)]
pub struct Binding {
    /// `None` if nothing comes from it.
    pub input: Option<Arc<dyn InputBinding>>,
    /// `None` if nothing can be sent to it.
    pub output: Option<Arc<dyn OutputBinding>>,
}
