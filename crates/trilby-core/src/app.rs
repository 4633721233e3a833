//! The way out to an application, whatever it is: HTTP server, gRPC server, Wasm guest or Rust closure.

use std::{fmt, future::Future};

use async_trait::async_trait;
use trilby_component::ErrorKind;

use crate::{Ctx, Request, Response};

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
}

impl ChannelError {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ChannelError {}

/// Calls into one application.
///
/// A status that the app chose is an answer, not an error. Dropping the future abandons the call.
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
