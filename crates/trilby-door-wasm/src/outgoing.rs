//! Requests that a guest sends through `wasi:http`: to apps of this runtime, to Dapr's HTTP API, or to the world.
//!
//! Where a request goes is read from its address:
//!
//! - `APP-ID` or `APP-ID.dapr`, without a port, and `APP-ID.NAMESPACE.dapr`: that app, by service invocation. No socket
//!   is opened for an app of this process.
//! - `localhost` or `127.0.0.1` at the app's own Dapr port: the HTTP API, answered in this process.
//! - Anything else: an outside host, which must have been granted.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request as HttpRequest, Response as HttpResponse, Uri, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use trilby_component::ErrorKind;
use trilby_core::{Api, Body, ChannelError, Ctx, Request, Response, error::Kind, invoke::HttpClient};
use trilby_wasm::{AllowedHosts, Logs, Stream};
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::message;

/// Bytes of one write to a body that is on its way, and how many such writes are kept before the guest has to wait for
/// its reader. Enough for most answers to be complete before anybody reads them.
const BODY_CHUNK_BYTES: usize = 64 << 10;
const BODY_CHUNKS: usize = 16;

/// Dapr's HTTP API as a guest reaches it: `localhost` at this port.
#[derive(Clone)]
pub struct DaprHttp {
    /// The port that the guest was told, `DAPR_HTTP_PORT`.
    pub port: u16,
    /// Answers the requests.
    pub door: Arc<dyn HttpClient>,
}

/// Where the requests of an app may go.
pub(crate) struct Routes {
    pub(crate) api: Api,
    pub(crate) hosts: Arc<AllowedHosts>,
    pub(crate) logs: Logs,
    pub(crate) outside: Option<Arc<dyn HttpClient>>,
    pub(crate) dapr_http: Option<DaprHttp>,
}

#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    App(&'a str),
    DaprHttp,
    Outside,
}

impl Routes {
    fn of<'a>(&self, uri: &'a Uri) -> Route<'a> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16();
        if let Some(dapr) = &self.dapr_http
            && matches!(host, "localhost" | "127.0.0.1")
            && port == Some(dapr.port)
        {
            return Route::DaprHttp;
        }
        match (port, host.strip_suffix(".dapr")) {
            (None, Some(app)) => Route::App(app),
            (None, None) if !host.is_empty() && host != "localhost" && !host.contains(['.', ':']) => Route::App(host),
            _ => Route::Outside,
        }
    }

    async fn send(&self, ctx: &Ctx, mut request: Request) -> Result<Response, HttpError> {
        let uri = request.uri().clone();
        match self.of(&uri) {
            Route::App(app_id) => {
                *request.uri_mut() = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")).into();
                let answer = self.api.invoke.call(ctx, app_id, request).await;
                answer.map_err(|error| failure(error.kind(), error.message()))
            }
            Route::DaprHttp => match &self.dapr_http {
                Some(dapr) => dapr.door.send(request).await.map_err(channel_failure),
                None => Err(HttpError::DestinationNotFound),
            },
            Route::Outside => self.send_outside(request).await,
        }
    }

    async fn send_outside(&self, request: Request) -> Result<Response, HttpError> {
        // In the app's own log, which is limited: a guest can ask for as many hosts as it likes.
        let denied = |reason: &str| {
            let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            self.logs.line(Stream::Stderr, &format!("guest was denied a host, {host}: {reason}"));
            Err(HttpError::HttpRequestDenied)
        };
        if !self.hosts.allows(request.uri()) {
            return denied("add it to the app's allowed hosts if it may call it");
        }
        let Some(client) = &self.outside else {
            return denied("this runtime has no client for outside addresses");
        };
        client.send(request).await.map_err(channel_failure)
    }
}

/// What wasmtime asks while a guest speaks HTTP, and the context in which the guest does.
pub(crate) struct Outgoing {
    routes: Arc<Routes>,
    pub(crate) ctx: Ctx,
}

impl Outgoing {
    pub(crate) fn new(routes: Arc<Routes>) -> Self {
        Self { routes, ctx: Ctx::default() }
    }
}

/// Outcome of the part of a request that goes on after the answer began. There is none: the body is the answer's own.
type Rest = Box<dyn Future<Output = Result<(), HttpError>> + Send>;

impl WasiHttpHooks for Outgoing {
    // The default makes a closure on the heap for every header of every message.
    fn is_forbidden_header(&mut self, name: &http::HeaderName) -> bool {
        message::is_hop_by_hop(name)
    }

    fn send_request(
        &mut self,
        request: HttpRequest<WasiBody>,
        options: Option<RequestOptions>,
        _: Rest,
    ) -> Box<dyn Future<Output = Result<(HttpResponse<WasiBody>, Rest), HttpError>> + Send> {
        let routes = Arc::clone(&self.routes);
        let ctx = self.ctx.clone();
        let patience = options.and_then(|options| options.first_byte_timeout);
        Box::new(async move {
            let sending = routes.send(&ctx, request.map(Body::stream));
            let response = match patience {
                None => sending.await?,
                Some(patience) => {
                    tokio::time::timeout(patience, sending).await.map_err(|_| HttpError::ConnectionReadTimeout)??
                }
            };
            Ok((response.map(to_wasi), Box::new(async { Ok(()) }) as Rest))
        })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

/// A body as wasmtime takes it.
pub(crate) fn to_wasi(
    body: impl http_body::Body<Data = Bytes, Error = trilby_core::body::BoxError> + Send + 'static,
) -> WasiBody {
    body.map_err(|error| HttpError::InternalError(Some(error.to_string()))).boxed_unsync()
}

fn channel_failure(error: ChannelError) -> HttpError {
    let kind = match error.kind {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::Denied => Kind::Denied,
        ErrorKind::Timeout => Kind::Timeout,
        ErrorKind::Unavailable => Kind::Unavailable,
        _ => Kind::Internal,
    };
    failure(kind, &error.message)
}

fn failure(kind: Kind, message: &str) -> HttpError {
    match kind {
        Kind::NotFound => HttpError::DestinationNotFound,
        Kind::Denied => HttpError::HttpRequestDenied,
        Kind::Timeout => HttpError::ConnectionReadTimeout,
        Kind::Unavailable => HttpError::DestinationUnavailable,
        _ => HttpError::InternalError(Some(message.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use trilby_core::{Blocks, Identity};
    use trilby_wasm::LogSink;

    use super::*;

    struct Nobody;

    #[async_trait]
    impl HttpClient for Nobody {
        async fn send(&self, _: Request) -> Result<Response, ChannelError> {
            Ok(Response::new("answered".into()))
        }
    }

    struct Unread;

    impl LogSink for Unread {
        fn line(&self, _: Stream, _: &str) {}
    }

    fn routes(hosts: &[&str]) -> Routes {
        let api = Api::new(Blocks::empty(Identity::new("a")));
        let hosts = hosts.iter().map(|host| host.parse().expect("a host")).collect::<AllowedHosts>();
        let dapr_http = Some(DaprHttp { port: 3500, door: Arc::new(Nobody) });
        let logs = Logs::new(Unread);
        Routes { api, hosts: Arc::new(hosts), logs, outside: Some(Arc::new(Nobody)), dapr_http }
    }

    #[test]
    fn addresses_say_where_a_request_goes() {
        let routes = routes(&[]);
        for (address, expect) in [
            ("http://inventory/x", Route::App("inventory")),
            ("https://inventory.dapr/x", Route::App("inventory")),
            ("http://inventory.shop.dapr/", Route::App("inventory.shop")),
            ("http://localhost:3500/v1.0/state/s/k", Route::DaprHttp),
            ("http://127.0.0.1:3500/", Route::DaprHttp),
            ("http://localhost:3501/", Route::Outside),
            ("http://localhost/", Route::Outside),
            ("http://inventory:80/", Route::Outside),
            ("http://example.com/", Route::Outside),
            ("http://[::1]/", Route::Outside),
        ] {
            assert_eq!(routes.of(&address.parse().expect("a URI")), expect, "{address}");
        }
    }

    #[tokio::test]
    async fn only_granted_hosts_are_called() {
        let routes = routes(&["example.com"]);
        let send = |uri: &str| {
            let request = HttpRequest::get(uri).body(Body::Empty).expect("a request");
            let (routes, ctx) = (&routes, Ctx::default());
            async move { routes.send(&ctx, request).await.map(|_| ()) }
        };
        assert!(send("http://example.com/").await.is_ok());
        assert!(matches!(send("http://example.org/").await, Err(HttpError::HttpRequestDenied)));
        assert!(matches!(send("http://noapp/").await, Err(HttpError::DestinationNotFound)));
        assert!(send("http://localhost:3500/").await.is_ok(), "no grant is needed for Dapr itself");
    }
}
