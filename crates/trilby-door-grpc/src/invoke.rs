//! `InvokeService`: a call of a method by its name, towards any kind of app.
//!
//! The block speaks HTTP, so metadata become headers on the way there and headers become metadata on the way back
//! (golden: grpc/invoke, app/invocations-over-grpc).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TE},
    request::Parts,
};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use prost_types::Any;
use tonic::Status;
use trilby_core::{Api, Body, Code, Ctx, Error, Request, Result, ctx::TRACEPARENT, invoke::NO_METHOD};
use trilby_proto::{
    common::v1::{HttpExtension, InvokeRequest, InvokeResponse, http_extension::Verb},
    runtime::v1::InvokeServiceRequest,
};

use crate::{
    app::{Answer, TypeUrl},
    codec::GRPC_TIMEOUT,
    error,
    unary::{self, Reply},
};

/// The content type of a message that names its type.
pub(crate) const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

const AUTHORITY: HeaderName = HeaderName::from_static("dapr-authority");
const HTTP_STATUS: HeaderName = HeaderName::from_static("dapr-http-status");
/// What belongs to the call itself and not to its metadata.
const OF_THE_CALL: [HeaderName; 9] = [
    CONTENT_TYPE,
    CONTENT_LENGTH,
    TE,
    GRPC_TIMEOUT,
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-message-type"),
    HeaderName::from_static("grpc-trace-bin"),
    Status::GRPC_STATUS,
    Status::GRPC_MESSAGE,
];

/// Headers that mean something to HTTP, so that they cannot keep their names as metadata: those with which Go's
/// gateway begins, which is where Dapr has them from.
const OF_HTTP: [&str; 22] = [
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "cache-control",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "referer",
    "via",
    "warning",
];

/// A method is text and not an escaped path, so that a `%` in it is a `%`.
const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b':').remove(b'@');
/// A query is escaped by the caller; only what no URI can hold is escaped here.
const IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

pub(crate) async fn call(
    api: &Api,
    ctx: &Ctx,
    parts: &Parts,
    message: InvokeServiceRequest,
    max_body_bytes: usize,
) -> Result<http::Response<Reply>> {
    let id = message.id;
    let request = request(api, &id, parts, message.message.unwrap_or_default())?;

    let response = api.invoke.call(ctx, &id, request).await?;

    let (head, body) = response.into_parts();
    let body = unary::collect(body, max_body_bytes).await.map_err(|status| failed(&id, &status.message()))?;
    let mut metadata = to_metadata(&head.headers);
    if !metadata.contains_key(TRACEPARENT) {
        ctx.trace.write_to(&mut metadata);
    }
    let answer = head.extensions.get::<Answer>();
    if answer.is_none() {
        metadata.insert(HTTP_STATUS, HeaderValue::from(head.status.as_u16()));
    }
    let status = match answer {
        Some(answer) => answer.status.clone(),
        None if head.status.is_success() => Status::ok(""),
        None => error::from_http(head.status, &String::from_utf8_lossy(&body)),
    };
    let content_type = match answer {
        Some(answer) => answer.content_type.clone(),
        None => head.headers.get(CONTENT_TYPE).map(to_text).unwrap_or_default(),
    };
    let type_url = answer.map(|answer| answer.type_url.clone()).unwrap_or_default();
    let message = InvokeResponse { data: Some(Any { type_url, value: body.into() }), content_type };
    let trailers = answer.map(|answer| answer.trailers.clone()).unwrap_or_default();
    Ok(unary::reply_with(metadata, &message, status, trailers, max_body_bytes))
}

fn failed(id: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Invoke, format!("failed to invoke, id: {id}, err: {reason}"))
}

/// The call as a block and an HTTP app know it.
fn request(api: &Api, id: &str, parts: &Parts, message: InvokeRequest) -> Result<Request> {
    let method = match method(message.http_extension.as_ref()) {
        Ok(method) => method,
        // Which protocol another app speaks is the block's secret. It gets a method that no HTTP app knows.
        Err(reason) if id == api.app.id && !is_grpc(api) => {
            let reason = format!("rpc error: code = InvalidArgument desc = {reason}");
            return Err(failed(id, &reason));
        }
        Err(_) => NO_METHOD.parse().expect("it is a token"),
    };
    let data = message.data.unwrap_or_default();
    let mut headers = to_headers(parts);
    let content_type = match data.type_url.as_str() {
        "" => HeaderValue::try_from(message.content_type).ok().filter(|value| !value.is_empty()),
        _ => Some(PROTOBUF),
    };
    headers.extend(content_type.map(|value| (CONTENT_TYPE, value)));

    let mut request = Request::new(Body::from(data.value));
    *request.method_mut() = method;
    *request.uri_mut() = uri(&message.method, message.http_extension.as_ref()).map_err(|error| failed(id, &error))?;
    *request.headers_mut() = headers;
    if !data.type_url.is_empty() {
        request.extensions_mut().insert(TypeUrl(data.type_url));
    }
    Ok(request)
}

fn is_grpc(api: &Api) -> bool {
    matches!(api.metadata.facts().app_connection.protocol.as_str(), "grpc" | "grpcs")
}

/// The HTTP method, or what an HTTP app has against the call, in Dapr's words.
fn method(extension: Option<&HttpExtension>) -> Result<Method, &'static str> {
    match extension.ok_or("missing HTTP extension field")?.verb() {
        Verb::None | Verb::Connect => Err("invalid HTTP verb"),
        verb => Ok(verb.as_str_name().parse().expect("the names are HTTP's")),
    }
}

fn uri(method: &str, extension: Option<&HttpExtension>) -> Result<Uri, http::uri::InvalidUri> {
    let path = utf8_percent_encode(method.trim_start_matches('/'), IN_PATH);
    match extension.map(|extension| extension.querystring.as_str()) {
        None | Some("") => format!("/{path}"),
        Some(query) => format!("/{path}?{}", utf8_percent_encode(query, IN_QUERY)),
    }
    .parse()
}

/// What an app sees of a caller's metadata: names that are gRPC's own come with a prefix.
fn to_headers(parts: &Parts) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(parts.headers.len() + 4);
    for (name, value) in parts.headers.iter().filter(|(name, _)| !is_of_the_call(name)) {
        let of_grpc = name.as_str().starts_with("grpc-");
        headers.append(if of_grpc { prefixed(name) } else { name.clone() }, value.clone());
    }
    if let Some(authority) = parts.uri.authority()
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(AUTHORITY, value);
    }
    headers
}

/// HTTP headers as metadata: names that are HTTP's own come with a prefix.
pub(crate) fn to_metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        let of_http = OF_HTTP.contains(&name.as_str());
        if of_http || !is_of_the_call(name) {
            metadata.append(if of_http { prefixed(name) } else { name.clone() }, value.clone());
        }
    }
    metadata
}

pub(crate) fn is_of_the_call(name: &HeaderName) -> bool {
    OF_THE_CALL.contains(name)
}

fn prefixed(name: &HeaderName) -> HeaderName {
    HeaderName::try_from(format!("dapr-{name}")).expect("a prefix leaves a name valid")
}

fn to_text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
