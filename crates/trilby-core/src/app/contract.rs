//! What Dapr says to an app over HTTP: which path, which body, and what the status of the answer means.
//!
//! Every kind of app that has routes is spoken to like this: HTTP servers, `wasi:http` and `service` guests, Rust
//! functions.

mod bulk;
mod json;
mod subscribe;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{self, CONTENT_TYPE},
};
use serde::Deserialize;
use trilby_component::{ErrorKind, Metadata};

use super::{AppChannel, BindingEvent, BindingReply, ChannelError, ConfigurationUpdate};
use crate::{
    Body, Ctx, Request, Response,
    body::CollectError,
    ctx::{BAGGAGE, TRACEPARENT, TRACESTATE, UNTRACED},
    invoke::normalize_method,
    pubsub::{Delivery, Outcome},
};

pub(super) use bulk::deliver_bulk;
pub(super) use subscribe::subscriptions;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const CLOUD_EVENT: HeaderValue = HeaderValue::from_static("application/cloudevents+json");
/// The component that an event came from; Dapr puts it among the metadata of the message.
const PUBSUB_NAME: HeaderName = HeaderName::from_static("pubsubname");
/// Longest answer that is read, in bytes. An app that says more than this says nothing that is asked for here.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// `POST` to the route of the subscription.
pub(super) async fn deliver<A: AppChannel + ?Sized>(
    app: &A,
    ctx: &Ctx,
    delivery: &Delivery<'_>,
) -> Result<Outcome, ChannelError> {
    let Delivery { event, pubsub, topic, path, metadata } = *delivery;
    let mut request = post(path, CLOUD_EVENT, event.json())?;
    let headers = request.headers_mut();
    add_metadata(headers, metadata);
    add_pubsub(headers, pubsub);
    if let Some(parent) = &ctx.trace.parent {
        headers.insert(TRACEPARENT, parent.clone());
    }

    let response = app.invoke(ctx, request).await?;

    let (head, body) = response.into_parts();
    match head.status {
        status if status.is_success() => {
            // What cannot be read says nothing against the event.
            let body = body.collect(MAX_ANSWER_BYTES).await.unwrap_or_default();
            outcome(&body).map_err(|status| {
                let id = event.id();
                let text =
                    format!("unknown status returned from app while processing pub/sub event {id}, status: {status}");
                ChannelError::new(ErrorKind::Internal, text)
            })
        }
        // The one status that no retry mends: there is no such route.
        StatusCode::NOT_FOUND => {
            tracing::error!(pubsub, topic, path, id = event.id(), "app has no such route, event dropped");
            Ok(Outcome::Drop)
        }
        status => {
            let (id, body, code) = (event.id(), excerpt(body).await, status.as_u16());
            let text = format!(
                "retriable error returned from app while processing pub/sub event {id}, topic: {topic}, body: {body}. \
                 status code returned: {code}"
            );
            Err(ChannelError::new(ErrorKind::Internal, text).with_status(code))
        }
    }
}

/// `OPTIONS` to the route of the binding.
pub(super) async fn listens_to_binding<A: AppChannel + ?Sized>(
    app: &A,
    ctx: &Ctx,
    _binding: &str,
    path: &str,
) -> Result<bool, ChannelError> {
    let response = app.invoke(ctx, request(Method::OPTIONS, path, JSON, Bytes::new())?).await?;
    Ok(response.status().is_success() || response.status() == StatusCode::METHOD_NOT_ALLOWED)
}

/// `POST` to the route of the binding. The answer is the binding's, and is not looked into, as with Dapr.
pub(super) async fn binding_event<A: AppChannel + ?Sized>(
    app: &A,
    ctx: &Ctx,
    event: &BindingEvent<'_>,
) -> Result<BindingReply, ChannelError> {
    let mut request = post(event.path, JSON, event.data.clone())?;
    add_metadata(request.headers_mut(), event.metadata);
    request.headers_mut().insert(TRACEPARENT, ctx.trace.parent.clone().unwrap_or(UNTRACED));
    if let Some(state) = &ctx.trace.state {
        request.headers_mut().insert(TRACESTATE, state.clone());
    }

    let response = app.invoke(ctx, request).await?;

    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        let (code, body) = (head.status.as_u16(), excerpt(body).await);
        let text = format!("fails to send binding event to http app channel, status code: {code} body: {body}");
        return Err(ChannelError::new(ErrorKind::Internal, text).with_status(code));
    }
    let data = body.collect(MAX_ANSWER_BYTES).await.map_err(broken)?;
    Ok(BindingReply { data: Some(data).filter(|data| !data.is_empty()), ..BindingReply::default() })
}

/// `POST /configuration/STORE/KEY`, for each key.
pub(super) async fn configuration_changed<A: AppChannel + ?Sized>(
    app: &A,
    ctx: &Ctx,
    update: &ConfigurationUpdate<'_>,
) -> Result<(), ChannelError> {
    let body = json::configuration_update(update);
    for key in update.items.keys() {
        let path = format!("/configuration/{}/{key}", update.store);
        let response = app.invoke(ctx, post(&path, JSON, body.clone())?).await?;
        if !response.status().is_success() {
            let code = response.status().as_u16();
            let text = format!("error sending configuration item to application, status {code}");
            return Err(ChannelError::new(ErrorKind::Internal, text).with_status(code));
        }
    }
    Ok(())
}

/// `GET` of the health check path.
pub(super) async fn check_health<A: AppChannel + ?Sized>(app: &A, ctx: &Ctx, path: &str) -> Result<(), ChannelError> {
    let mut request = Request::new(Body::Empty);
    *request.uri_mut() = uri(path)?;
    let response = app.invoke(ctx, request).await?;
    let code = response.status().as_u16();
    if !response.status().is_success() {
        let text = format!("health check failed with status code: {code}");
        return Err(ChannelError::new(ErrorKind::Internal, text).with_status(code));
    }
    drain(response).await;
    Ok(())
}

fn post(path: &str, content_type: HeaderValue, body: Bytes) -> Result<Request, ChannelError> {
    request(Method::POST, path, content_type, body)
}

fn request(method: Method, path: &str, content_type: HeaderValue, body: Bytes) -> Result<Request, ChannelError> {
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri(path)?;
    request.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(request)
}

/// A route as Dapr calls it: absolute, without `.`, `..`, doubled slashes and a slash at the end.
fn uri(path: &str) -> Result<Uri, ChannelError> {
    let bad = |message: String| ChannelError::new(ErrorKind::InvalidRequest, format!("route {path:?}: {message}"));
    let parse = |text: &str| text.parse::<Uri>().map_err(|error| bad(error.to_string()));
    if is_plain(path) {
        return parse(path);
    }
    let (route, query) = path.split_once('?').map_or((path, None), |(route, query)| (route, Some(query)));
    let route = normalize_method(route).map_err(bad)?;
    match query {
        None => parse(&route),
        Some(query) => parse(&format!("{route}?{query}")),
    }
}

/// Whether a route is what [`normalize_method`] makes of it, as far as a glance can tell.
fn is_plain(path: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let words = path.strip_prefix('/').unwrap_or_default();
    !words.is_empty() && words.split('/').all(|word| !word.is_empty() && word.bytes().all(is_word))
}

/// What a component says about a message, as headers. What no header can hold is left out, and what belongs to the
/// connection or to the message of ours.
fn add_metadata(headers: &mut HeaderMap, metadata: &Metadata) {
    const OURS: [HeaderName; 7] = [
        CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::HOST,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        TRACEPARENT,
        TRACESTATE,
    ];
    for (name, value) in metadata {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && let Ok(value) = HeaderValue::from_str(value)
            && !(OURS.contains(&name) || (name.as_str().ends_with("-bin") && name != BAGGAGE))
        {
            headers.insert(name, value);
        }
    }
}

fn add_pubsub(headers: &mut HeaderMap, pubsub: &str) {
    if let Ok(pubsub) = HeaderValue::from_str(pubsub) {
        headers.insert(PUBSUB_NAME, pubsub);
    }
}

/// What an app says about an event. A status that there is not is the error.
fn outcome(body: &[u8]) -> Result<Outcome, String> {
    #[derive(Default, Deserialize)]
    struct Said {
        #[serde(default, alias = "Status", alias = "STATUS")]
        status: Option<String>,
    }

    // Only the first JSON value counts; what is none, or has a status that is no text, says nothing against the event.
    let said = serde_json::Deserializer::from_slice(body).into_iter::<Said>().next();
    let status = said.and_then(Result::ok).and_then(|said| said.status).unwrap_or_default();
    Outcome::parse(&status).ok_or(status)
}

impl Outcome {
    /// Dapr's word for it; nothing said is success.
    fn parse(status: &str) -> Option<Self> {
        match status {
            "" | "SUCCESS" => Some(Self::Ack),
            "RETRY" => Some(Self::Retry),
            "DROP" => Some(Self::Drop),
            _ => None,
        }
    }
}

/// The beginning of an answer, for people.
async fn excerpt(body: Body) -> String {
    const MOST_CHARACTERS: usize = 1000;

    let body = body.collect(MAX_ANSWER_BYTES).await.unwrap_or_default();
    String::from_utf8_lossy(&body).chars().take(MOST_CHARACTERS).collect()
}

/// Reads an answer that says nothing, so that its connection can be used again.
async fn drain(response: Response) {
    let _ = response.into_body().collect(MAX_ANSWER_BYTES).await;
}

fn broken(error: CollectError) -> ChannelError {
    ChannelError::new(ErrorKind::Internal, format!("failed to read response body: {error}"))
}

#[cfg(test)]
mod tests;
