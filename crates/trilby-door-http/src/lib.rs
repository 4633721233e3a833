//! Dapr's HTTP API: a door that decodes requests, calls the blocks and encodes their answers.
//!
//! [`HttpDoor::handle`] is the whole door as a function from request to response; [`HttpDoor::serve`] puts it behind a
//! listener. The other direction, calls into an app that is an HTTP server, is [`app`]; calls to anything else is
//! [`client`].

mod access;
mod auth;
mod bindings;
mod codec;
mod configuration;
mod conversation;
mod cors;
mod crypto;
mod error;
mod health;
mod invoke;
mod lock;
mod metadata;
mod pubsub;
mod route;
mod secrets;
mod server;
mod shutdown;
mod state;

pub mod app;
pub mod client;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, StatusCode, Uri};
use trilby_core::{Api, Body, Ctx, Request, Response, Result, ctx::TRACEPARENT};

pub use access::Access;
pub use shutdown::{Hook as ShutdownHook, Shutdown};

use crate::{
    access::Permitted,
    auth::Token,
    codec::{Call, Query},
    cors::Cors,
    route::{Endpoint, Route},
};

/// How a door behaves. The defaults are daprd's.
pub struct Options {
    /// Longest request body in bytes. Default 4 MiB; Dapr's `--max-body-size`.
    pub max_body_bytes: usize,
    /// Longest request head in bytes; as in Go, 4 KiB more are let through. Default 4 KiB; Dapr's
    /// `--read-buffer-size`.
    pub max_header_bytes: usize,
    /// Longest time from the first byte of a request head to its last. An idle connection is never closed. Default
    /// 10 s.
    pub header_read_timeout: Duration,
    /// How long [`HttpDoor::serve`] waits for requests that are under way when it is told to stop. Default 10 s.
    pub drain_timeout: Duration,
    /// Whether clear-text HTTP/2 is spoken too. Default on; off is Dapr's `DAPR_HTTP_DISABLE_H2C`.
    pub h2c: bool,
    /// What a caller must send as `dapr-api-token`. Default none; Dapr's `DAPR_API_TOKEN`.
    pub api_token: Option<String>,
    /// Origins that browsers may call from, `*` for any. Empty, the default, leaves CORS out. Dapr's
    /// `--allowed-origins`.
    pub allowed_origins: Vec<String>,
    /// Which APIs there are. Default all.
    pub access: Access,
    /// Called for `POST /v1.0/shutdown`. Without it there is no such route.
    pub shutdown: Option<ShutdownHook>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            max_header_bytes: 4 << 10,
            header_read_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            h2c: true,
            api_token: None,
            allowed_origins: Vec::new(),
            access: Access::default(),
            shutdown: None,
        }
    }
}

/// The HTTP API of one app. Cloning is cheap.
#[derive(Clone)]
pub struct HttpDoor(Arc<Inner>);

struct Inner {
    api: Api,
    token: Option<Token>,
    cors: Option<Cors>,
    permitted: Permitted,
    options: Options,
}

impl HttpDoor {
    /// A door to the blocks of one app.
    #[must_use]
    pub fn new(api: Api, options: Options) -> Self {
        Self(Arc::new(Inner {
            api,
            token: options.api_token.as_deref().and_then(Token::new),
            cors: Cors::new(&options.allowed_origins),
            permitted: options.access.permitted(options.shutdown.is_some()),
            options,
        }))
    }

    /// A door for probes from elsewhere: health and metadata, to be read only and without a token. Dapr's
    /// `--dapr-public-port`.
    #[must_use]
    pub fn public(api: Api, options: Options) -> Self {
        Self(Arc::new(Inner { api, token: None, cors: None, permitted: Permitted::for_probes(), options }))
    }

    /// Answers one request; needs no socket.
    ///
    /// Dropping the future abandons the call; a write may then have happened or not.
    pub async fn handle(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        if !codec::is_well_escaped(parts.uri.path()) {
            return error::bad_request();
        }
        let path = route::clean(parts.uri.path());
        let route = route::find(&parts.method, &path).filter(|route| self.0.permitted.contains(route.endpoint));
        let ctx = Ctx::from_headers(&parts.headers);
        let for_browser = self.0.cors.as_ref().map(|cors| cors.headers(&parts.method, &parts.headers));

        let mut response = if for_browser.is_some() && cors::is_preflight(&parts.method, &parts.headers) {
            Response::new(Body::Empty)
        } else {
            self.answer(&ctx, route, parts.method, &parts.uri, parts.headers, body).await
        };

        for (name, value) in for_browser.into_iter().flatten() {
            response.headers_mut().append(name, value);
        }
        // Probes are not traced, and the trace of a callee that made its own is kept.
        if !route.is_some_and(|route| route.endpoint.is_probe()) && !response.headers().contains_key(TRACEPARENT) {
            ctx.trace.write_to(response.headers_mut());
        }
        response
    }

    async fn answer(
        &self,
        ctx: &Ctx,
        route: Option<Route<'_>>,
        method: Method,
        uri: &Uri,
        mut headers: HeaderMap,
        body: Body,
    ) -> Response {
        if let Some(token) = &self.0.token
            && !token.admit(&mut headers)
            && !route.is_some_and(|route| route.endpoint.is_probe())
        {
            return error::plain(StatusCode::UNAUTHORIZED, "invalid api token\n");
        }
        let answered = match route {
            Some(route) => match route.decode() {
                Some((store, key)) => {
                    let query = Query::of(uri);
                    let call = Call { door: &self.0, ctx, store, key, query, headers: &headers };
                    self.call_block(route.endpoint, &call, body).await
                }
                None => return error::plain(StatusCode::BAD_REQUEST, "request path is not UTF-8 once unescaped\n"),
            },
            // The target may stand in a header, so any path can be an invocation.
            None if self.0.permitted.invocation => {
                let limit = self.0.options.max_body_bytes;
                invoke::call(&self.0.api, ctx, method, uri, headers, body, limit).await
            }
            None => return error::plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        answered.unwrap_or_else(|error| {
            self.0.api.errors.record(error.code());
            error::respond(&error)
        })
    }

    async fn call_block(&self, endpoint: Endpoint, call: &Call<'_>, body: Body) -> Result<Response> {
        match endpoint {
            Endpoint::GetState => state::get(call).await,
            Endpoint::SaveState => state::save(call, body).await,
            Endpoint::DeleteState => state::delete(call).await,
            Endpoint::BulkGetState => state::bulk_get(call, body).await,
            Endpoint::TransactState => state::transact(call, body).await,
            Endpoint::QueryState => state::query(call, body).await,
            Endpoint::InvokeBinding => bindings::invoke(call, body).await,
            Endpoint::Publish => pubsub::publish(call, body).await,
            Endpoint::BulkPublish | Endpoint::BulkPublishAlpha1 => pubsub::bulk_publish(call, body).await,
            Endpoint::GetSecret => secrets::get(call).await,
            Endpoint::BulkGetSecrets => secrets::bulk_get(call).await,
            Endpoint::GetConfiguration | Endpoint::GetConfigurationAlpha1 => configuration::get(call).await,
            Endpoint::SubscribeConfiguration | Endpoint::SubscribeConfigurationAlpha1 => {
                configuration::subscribe(call).await
            }
            Endpoint::UnsubscribeConfiguration | Endpoint::UnsubscribeConfigurationAlpha1 => {
                configuration::unsubscribe(call)
            }
            Endpoint::Encrypt => crypto::encrypt(call, body).await,
            Endpoint::Decrypt => crypto::decrypt(call, body).await,
            Endpoint::SubtleCrypto => crypto::subtle(call, body).await,
            Endpoint::ConverseAlpha1 => conversation::converse_alpha1(call, body).await,
            Endpoint::ConverseAlpha2 => conversation::converse_alpha2(call, body).await,
            Endpoint::TryLock => lock::try_lock(call, body).await,
            Endpoint::Unlock => lock::unlock(call, body).await,
            Endpoint::GetMetadata => Ok(metadata::get(call)),
            Endpoint::SetMetadata => metadata::set(call, body).await,
            Endpoint::Health => health::check(call),
            Endpoint::OutboundHealth => health::check_outbound(call),
            Endpoint::Shutdown => Ok(shutdown::shut_down(call)),
        }
    }
}
