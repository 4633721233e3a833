//! Dapr's gRPC API: a door that decodes calls, passes them to the blocks and encodes their answers.
//!
//! [`GrpcDoor::handle`] is the whole door as a function from request to response; [`GrpcDoor::serve`] puts it behind a
//! listener. Calls of services that Dapr does not have are proxied to the app that their metadata names. The other
//! direction, calls into an app that is a gRPC server, is [`app`].

mod access;
mod auth;
mod bindings;
mod codec;
mod configuration;
mod conversation;
mod crypto;
mod dapr;
mod error;
mod event;
mod executor;
mod invoke;
mod lock;
mod metadata;
mod proxy;
mod pubsub;
mod reflection;
mod secrets;
mod server;
mod shutdown;
mod state;
mod streaming;
mod subscribe;
mod unary;

pub mod app;

use std::{sync::Arc, time::Duration};

use http::{Method, header::CONTENT_TYPE, request::Parts};
use tonic::Status;
use trilby_core::{Api, Body, Request, Response};

pub use access::Access;
pub use shutdown::{Hook as ShutdownHook, Shutdown};

use crate::{
    access::Refused,
    auth::Token,
    unary::{GRPC, Incoming, Reply},
};

/// How a door behaves. The defaults are daprd's.
pub struct Options {
    /// Longest message in bytes, received or sent. Default 4 MiB; Dapr's `--max-body-size`. What is proxied is not
    /// measured.
    pub max_body_bytes: usize,
    /// Most bytes of metadata in a call. Default 4 KiB; Dapr's `--read-buffer-size`.
    pub max_header_bytes: u32,
    /// How long [`GrpcDoor::serve`] waits for calls that are under way when it is told to stop. Default 10 s.
    pub drain_timeout: Duration,
    /// What a caller must send as `dapr-api-token`. Default none; Dapr's `DAPR_API_TOKEN`.
    pub api_token: Option<String>,
    /// Which APIs there are. Default all.
    pub access: Access,
    /// Called for `Shutdown`. Without it there is no such method.
    pub shutdown: Option<ShutdownHook>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            max_header_bytes: 4 << 10,
            drain_timeout: Duration::from_secs(10),
            api_token: None,
            access: Access::default(),
            shutdown: None,
        }
    }
}

/// The gRPC API of one app. Cloning is cheap.
#[derive(Clone)]
pub struct GrpcDoor(Arc<Inner>);

struct Inner {
    api: Api,
    token: Option<Token>,
    refused: Refused,
    options: Options,
}

impl GrpcDoor {
    /// A door to the blocks of one app.
    #[must_use]
    pub fn new(api: Api, options: Options) -> Self {
        Self(Arc::new(Inner {
            api,
            token: options.api_token.as_deref().and_then(Token::new),
            refused: options.access.refused(),
            options,
        }))
    }

    /// Answers one call; needs no socket. The status is in the trailers of the answer's body, or in its headers if it
    /// has no body.
    ///
    /// Dropping the future abandons the call; a write may then have happened or not.
    pub async fn handle(&self, request: Request) -> Response {
        self.answer(request).await.map(Body::from)
    }

    async fn answer<B: Incoming>(&self, request: http::Request<B>) -> http::Response<Reply> {
        let (mut parts, body) = request.into_parts();
        if let Some(refusal) = malformed(&parts) {
            return refusal;
        }
        if let Some(token) = &self.0.token
            && let Err(status) = token.admit(&mut parts.headers)
        {
            return status.into_http();
        }
        if let Some(method) = dapr::method(&parts) {
            return dapr::answer(&self.0, method, &parts, body).await;
        }
        // Boxed, so that the size of these futures is not part of every state call's.
        if reflection::serves(&parts) {
            return Box::pin(reflection::answer(parts, body)).await;
        }
        Box::pin(proxy::forward(&self.0.api, parts, body)).await
    }
}

/// The answer to what is no gRPC call at all, as gRPC's servers give it.
fn malformed(parts: &Parts) -> Option<http::Response<Reply>> {
    let (code, status) = if parts.method != Method::POST {
        let text = format!("Received a HEADERS frame with :method {:?} which should be POST", parts.method.as_str());
        (http::StatusCode::METHOD_NOT_ALLOWED, Status::internal(text))
    } else {
        let content_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        if content_type.starts_with(GRPC.as_bytes()) {
            return None;
        }
        let text = format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(content_type));
        (http::StatusCode::UNSUPPORTED_MEDIA_TYPE, Status::invalid_argument(text))
    };
    let mut response = status.into_http();
    *response.status_mut() = code;
    Some(response)
}
