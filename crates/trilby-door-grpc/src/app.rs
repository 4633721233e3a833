//! The way to an app that is a gRPC server.

mod callbacks;

use std::{error::Error as StdError, fmt};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri, Version,
    header::{CONTENT_TYPE, TE},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use percent_encoding::percent_decode;
use prost_types::Any;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Code, Status};
use trilby_component::ErrorKind;
use trilby_core::{
    AppChannel, Body, ChannelError, Ctx, Request, Response,
    app::{BindingEvent, BindingReply},
    invoke::{GrpcStatus, NO_METHOD},
    pubsub::{BulkDelivery, Delivery, Outcome, Subscription},
};
use trilby_proto::common::v1::{HttpExtension, InvokeRequest, InvokeResponse, http_extension::Verb};

use crate::{
    auth::API_TOKEN,
    codec::{self, GRPC_TIMEOUT},
    error,
    invoke::{self, PROTOBUF},
    unary::{self, GRPC, Received},
};

const ON_INVOKE: PathAndQuery = PathAndQuery::from_static("/dapr.proto.runtime.v1.AppCallback/OnInvoke");
/// How much an app may send ahead of what is read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// What an app on gRPC speaks. Dapr's `--app-protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// gRPC in clear text.
    #[default]
    Grpc,
    /// gRPC under TLS. The app's certificate is not checked.
    Grpcs,
}

/// Where an app listens and how it wants to be called.
#[derive(Clone)]
pub struct Options {
    /// Default clear text.
    pub protocol: Protocol,
    /// Host name or IP address. Default `127.0.0.1`; Dapr's `--app-channel-address`.
    pub address: String,
    /// The app's port.
    pub port: u16,
    /// Sent to the app as `dapr-api-token` with every call. Dapr's `APP_API_TOKEN`.
    pub api_token: Option<String>,
    /// Most invocations at once; others wait. `None`, the default, means no limit. What is proxied is not counted.
    /// Dapr's `--app-max-concurrency`.
    pub max_concurrency: Option<usize>,
    /// Longest message in bytes, sent or received. Default 4 MiB; Dapr's `--max-body-size`.
    pub max_body_bytes: usize,
}

impl Options {
    /// An app on this machine that speaks clear text.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self {
            protocol: Protocol::Grpc,
            address: "127.0.0.1".to_owned(),
            port,
            api_token: None,
            max_concurrency: None,
            max_body_bytes: 4 << 20,
        }
    }
}

/// Options that no app can be called with. The message names the option.
#[derive(Debug)]
pub struct InvalidOption(String);

impl fmt::Display for InvalidOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for InvalidOption {}

/// An app that is a gRPC server. Calls share one connection, which is made when it is needed.
pub struct GrpcApp {
    client: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    scheme: Scheme,
    authority: Authority,
    api_token: Option<HeaderValue>,
    slots: Option<Semaphore>,
    max_body_bytes: usize,
}

/// The type that a caller over gRPC gave its data; rides along in the extensions of a request.
#[derive(Clone)]
pub(crate) struct TypeUrl(pub(crate) String);

/// What a gRPC app answered beyond what HTTP can say; rides along in the extensions of a response.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) content_type: String,
    pub(crate) type_url: String,
    pub(crate) trailers: HeaderMap,
}

impl GrpcApp {
    /// Connects when first called.
    ///
    /// # Errors
    /// If the address is no host, or the token cannot be sent as metadata.
    pub fn new(options: &Options) -> Result<Self, InvalidOption> {
        let host = &options.address;
        let bare_ipv6 = host.contains(':') && !host.starts_with('[');
        let authority =
            if bare_ipv6 { format!("[{host}]:{}", options.port) } else { format!("{host}:{}", options.port) };
        let authority = authority
            .parse()
            .map_err(|error| InvalidOption(format!("app channel address {host} is not a host: {error}")))?;
        let api_token = options.api_token.as_deref().filter(|token| !token.is_empty()).map(secret).transpose()?;
        Ok(Self {
            client: client(),
            scheme: if options.protocol == Protocol::Grpcs { Scheme::HTTPS } else { Scheme::HTTP },
            authority,
            api_token,
            slots: options.max_concurrency.map(|most| Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            max_body_bytes: options.max_body_bytes,
        })
    }

    /// Sends a request to the app, whatever its URI says of where it goes.
    async fn send(&self, mut request: Request) -> Result<http::Response<hyper::body::Incoming>, ChannelError> {
        let mut address = http::uri::Parts::default();
        address.scheme = Some(self.scheme.clone());
        address.authority = Some(self.authority.clone());
        address.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(address)
            .map_err(|error| ChannelError::new(ErrorKind::InvalidRequest, format!("method is not a path: {error}")))?;
        *request.version_mut() = Version::HTTP_2;
        if let Some(token) = &self.api_token {
            request.headers_mut().insert(API_TOKEN, token.clone());
        }
        self.client.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { ErrorKind::Unavailable } else { ErrorKind::Internal };
            let text = format!("app did not answer at {}://{}: {}", self.scheme, self.authority, explain(&error));
            ChannelError::new(kind, text)
        })
    }

    async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.as_ref()?.acquire().await.ok()
    }
}

#[async_trait]
impl AppChannel for GrpcApp {
    async fn invoke(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        let _slot = self.slot().await;
        let (parts, body) = request.into_parts();
        let body = unary::collect(body, self.max_body_bytes).await.map_err(|status| internal(status.message()))?;
        let framed = unary::encode(&message(&parts, body), self.max_body_bytes);
        let mut request = Request::new(Body::Full(framed.map_err(|status| internal(status.message()))?));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(ON_INVOKE);
        *request.headers_mut() = metadata(ctx, &parts.headers);

        let response = self.send(request).await?;

        let (head, body) = response.into_parts();
        let received = unary::receive(body, self.max_body_bytes).await;
        let received = received.map_err(|status| internal(format!("app's answer: {}", status.message())))?;
        answer(head.status, &head.headers, received)
    }

    async fn proxy(&self, _: &Ctx, mut request: Request) -> Result<Response, ChannelError> {
        // The caller's token is for this door and not for the app.
        request.headers_mut().remove(API_TOKEN);
        let response = self.send(request).await?;
        Ok(response.map(|body| if http_body::Body::is_end_stream(&body) { Body::Empty } else { Body::stream(body) }))
    }

    async fn subscriptions(&self, ctx: &Ctx) -> Result<Vec<Subscription>, ChannelError> {
        self.list_subscriptions(ctx).await
    }

    async fn deliver(&self, ctx: &Ctx, delivery: &Delivery<'_>) -> Result<Outcome, ChannelError> {
        self.on_topic_event(ctx, delivery).await
    }

    async fn deliver_bulk(&self, ctx: &Ctx, delivery: &BulkDelivery<'_>) -> Result<Vec<Outcome>, ChannelError> {
        self.on_bulk_topic_event(ctx, delivery).await
    }

    async fn listens_to_binding(&self, ctx: &Ctx, binding: &str, _: &str) -> Result<bool, ChannelError> {
        self.lists_binding(ctx, binding).await
    }

    async fn binding_event(&self, ctx: &Ctx, event: &BindingEvent<'_>) -> Result<BindingReply, ChannelError> {
        self.on_binding_event(ctx, event).await
    }

    async fn check_health(&self, ctx: &Ctx, _: &str) -> Result<(), ChannelError> {
        self.ask_health(ctx).await
    }
}

fn client() -> legacy::Client<HttpsConnector<HttpConnector>, Body> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trilby_tls::trusting_anyone())
        .https_or_http()
        .enable_http2()
        .wrap_connector(tcp);
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_only(true)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .build(connector)
}

/// What `OnInvoke` gets of an HTTP request.
fn message(parts: &Parts, body: Bytes) -> InvokeRequest {
    let querystring = parts.uri.query().unwrap_or_default().to_owned();
    let http_extension = match parts.method.as_str() {
        NO_METHOD => None,
        // Dapr takes a method that it does not know for a POST.
        name => Some(HttpExtension { verb: Verb::from_str_name(name).unwrap_or(Verb::Post).into(), querystring }),
    };
    let method = percent_decode(parts.uri.path().trim_start_matches('/').as_bytes());
    let type_url = parts.extensions.get().map_or_else(String::new, |TypeUrl(url)| url.clone());
    let content_type = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    InvokeRequest {
        method: method.decode_utf8_lossy().into_owned(),
        data: Some(Any { type_url, value: body.into() }),
        content_type: String::from_utf8_lossy(content_type).into_owned(),
        http_extension,
    }
}

fn metadata(ctx: &Ctx, headers: &HeaderMap) -> HeaderMap {
    let mut metadata = invoke::to_metadata(headers);
    metadata.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    metadata.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(deadline) = ctx.deadline {
        let timeout = HeaderValue::try_from(codec::format_timeout(deadline)).expect("digits and a letter");
        metadata.insert(GRPC_TIMEOUT, timeout);
    }
    metadata
}

/// The app's answer as HTTP, and beside it what HTTP cannot say.
fn answer(head: StatusCode, metadata: &HeaderMap, received: Received) -> Result<Response, ChannelError> {
    let status = status(&received.trailers).or_else(|| status(metadata)).ok_or_else(|| {
        internal(format!("app did not answer as a gRPC server does (HTTP status {head}); check its app protocol"))
    })?;
    let message = match received.message {
        Some(message) if status.code() == Code::Ok => {
            unary::decode(message).map_err(|status| internal(format!("app's answer: {}", status.message())))?
        }
        _ => InvokeResponse::default(),
    };
    let data = message.data.unwrap_or_default();
    let (body, content_type) = match status.code() {
        Code::Ok if !data.type_url.is_empty() => (Body::from(data.value), Some(PROTOBUF)),
        Code::Ok => (Body::from(data.value), HeaderValue::from_str(&message.content_type).ok()),
        code => {
            let shown = serde_json::json!({ "code": code as i32, "message": status.message() });
            (Body::from(shown.to_string()), Some(HeaderValue::from_static("application/json")))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = error::to_http(status.code());
    let own = metadata.iter().filter(|(name, _)| !is_of_the_answer(name));
    response.headers_mut().extend(own.map(|(name, value)| (name.clone(), value.clone())));
    response.headers_mut().extend(content_type.filter(|value| !value.is_empty()).map(|value| (CONTENT_TYPE, value)));
    let own = received.trailers.iter().filter(|(name, _)| !is_of_the_answer(name));
    let trailers = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    let code = u16::try_from(status.code() as i32).unwrap_or_default();
    response.extensions_mut().insert(GrpcStatus(code));
    response.extensions_mut().insert(Answer {
        status,
        content_type: message.content_type,
        type_url: data.type_url,
        trailers,
    });
    Ok(response)
}

fn is_of_the_answer(name: &http::HeaderName) -> bool {
    invoke::is_of_the_call(name) || name.as_str().starts_with("grpc-")
}

/// The status in trailers, or in the headers of an answer without a message. tonic's own reader panics on details that
/// are not base64.
fn status(trailers: &HeaderMap) -> Option<Status> {
    let code = Code::from_bytes(trailers.get(Status::GRPC_STATUS)?.as_bytes());
    let message = trailers.get(Status::GRPC_MESSAGE).map(HeaderValue::as_bytes).unwrap_or_default();
    let message = percent_decode(message).decode_utf8_lossy();
    let details = trailers.get(Status::GRPC_STATUS_DETAILS).map(HeaderValue::as_bytes).unwrap_or_default();
    let details = STANDARD_NO_PAD.decode(without_padding(details)).unwrap_or_default();
    Some(Status::with_details(code, message, details.into()))
}

/// Base64 in metadata comes with and without padding.
fn without_padding(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b'='] = text {
        text = rest;
    }
    text
}

fn secret(token: &str) -> Result<HeaderValue, InvalidOption> {
    let mut value = HeaderValue::from_str(token)
        .map_err(|_| InvalidOption("app API token has characters that no metadata may have".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn internal(message: impl Into<String>) -> ChannelError {
    ChannelError::new(ErrorKind::Internal, message)
}

/// What went wrong, from the outside in. The client's own outermost words only say that it is a client.
fn explain(error: &legacy::Error) -> String {
    let mut reasons = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        reasons.push(error.to_string());
        cause = error.source();
    }
    if reasons.is_empty() { error.to_string() } else { reasons.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_named() {
        let bad_address = Options { address: "no host".into(), ..Options::new(1) };
        let bad_token = Options { api_token: Some("a\nb".into()), ..Options::new(1) };
        for (options, expect) in
            [(bad_address, "app channel address no host is not a host"), (bad_token, "app API token")]
        {
            let error = GrpcApp::new(&options).err().expect(expect).to_string();
            assert!(error.starts_with(expect), "{error}");
        }
        assert!(GrpcApp::new(&Options { address: "::1".into(), ..Options::new(1) }).is_ok());
    }
}
