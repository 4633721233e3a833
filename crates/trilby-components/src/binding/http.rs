//! `bindings.http`: requests to an HTTP server.
//!
//! The operation is the method. Entries of a call's metadata that begin with a capital letter become headers; `path` is
//! added to the address. What the server answers is what the binding answers, its status and headers as metadata.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, LOCATION},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, ext::ReasonPhrase};
use serde::{Deserialize, Deserializer, de::Error as _};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, OpenRequest, Result,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
    properties::{duration, is_truthy},
};

use crate::{byte_size, http::Client, tls};

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// As many redirects as Go's client follows.
const MAX_REDIRECTS: usize = 10;
/// Entries of metadata that become headers though they are not capitalised.
const TRACE: [HeaderName; 3] =
    [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate"), HeaderName::from_static("baggage")];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    /// Where requests go. Required.
    url: String,
    /// Longest time for one request. Default: none.
    #[serde(deserialize_with = "optional_duration")]
    response_timeout: Option<Duration>,
    /// The part of an answer that is read, in bytes or as `64Mi`; 0 or less means all of it. Default: 100 MiB.
    #[serde(deserialize_with = "byte_size::deserialize")]
    max_response_body_size: usize,
    /// Whether an answer whose status is not 2xx is an error. Default: true.
    #[serde(rename = "errorIfNot2XX")]
    error_if_not_2xx: bool,
    /// Sent with each request, as the header `securityTokenHeader`. Default: none.
    security_token: String,
    security_token_header: String,
    /// Authorities that vouch for the server, PEM or a file of it. Default: those that browsers trust.
    #[serde(rename = "mtlsRootCA")]
    root_ca: String,
    /// Our certificate, PEM or a file of it. Default: none.
    #[serde(rename = "mtlsClientCert")]
    client_cert: String,
    /// Its key.
    #[serde(rename = "mtlsClientKey")]
    client_key: String,
    /// Whether a server may ask to begin TLS again, which no TLS of today knows. Taken and not heeded.
    #[serde(rename = "mtlsRenegotiation")]
    renegotiation: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            response_timeout: None,
            max_response_body_size: 100 << 20,
            error_if_not_2xx: true,
            security_token: String::new(),
            security_token_header: String::new(),
            root_ca: String::new(),
            client_cert: String::new(),
            client_key: String::new(),
            renegotiation: String::new(),
        }
    }
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expected = || D::Error::custom(format!("invalid value {text:?}, expected a duration such as 30s or 1m30s"));
    duration::parse(&text).map(Some).ok_or_else(expected)
}

/// Reads the certificates. Nothing is sent yet.
///
/// # Errors
/// `InvalidMetadata` that names the property.
pub async fn open(request: OpenRequest) -> Result<Arc<Binding>> {
    let config: Config = request.properties.parse()?;
    match config.renegotiation.as_str() {
        "" | "RenegotiateNever" => {}
        "RenegotiateOnceAsClient" | "RenegotiateFreelyAsClient" => {
            tracing::warn!(component = request.name, "mtlsRenegotiation is not heeded: this TLS never renegotiates");
        }
        other => return Err(ComponentError::metadata(format!("invalid renegotiation value: {other}"))),
    }
    let token = match (config.security_token.as_str(), config.security_token_header.as_str()) {
        ("", _) | (_, "") => None,
        (token, name) => Some(header(name, token).map_err(|error| ComponentError::metadata(error.to_string()))?),
    };
    let tls = tls::Settings {
        ca_cert: pem("MTLSRootCA", &config.root_ca).await?,
        client_cert: pem("MTLSClientCert", &config.client_cert).await?,
        client_key: pem("MTLSClientKey", &config.client_key).await?,
        ..tls::Settings::default()
    };
    let output = Http { client: Client::new(&tls)?, token, config };
    Ok(Arc::new(Binding { input: None, output: Some(Arc::new(output)) }))
}

async fn pem(name: &str, given: &str) -> Result<String> {
    if given.is_empty() || given.contains("-----BEGIN ") {
        return Ok(given.to_owned());
    }
    tokio::fs::read_to_string(given).await.map_err(|error| {
        ComponentError::metadata(format!(
            "provided {name:?} value is neither a valid file path or nor a valid pem encoded string: {error}"
        ))
    })
}

struct Http {
    client: Client,
    token: Option<(HeaderName, HeaderValue)>,
    config: Config,
}

#[async_trait]
impl OutputBinding for Http {
    fn operations(&self) -> &[&'static str] {
        &["create", "get", "head", "post", "put", "patch", "delete", "options", "trace"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        let sent = self.request(request)?;
        let exchange = self.exchange(sent);
        let answer = match self.config.response_timeout {
            None => exchange.await,
            Some(limit) => tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
                let message = format!("{}: no answer within {limit:?}", self.config.url);
                Err(ComponentError::new(ErrorKind::Timeout, message))
            }),
        }?;
        let own = request.metadata.get("errorIfNot2XX").filter(|text| !text.is_empty());
        let is_checked = own.map_or(self.config.error_if_not_2xx, |text| is_truthy(text));
        let status = answer.status();
        let response = respond(answer);
        if is_checked && !status.is_success() {
            let message = format!("received status code {}", status.as_u16());
            let error = ComponentError::new(ErrorKind::Internal, message);
            return Err(InvokeError { error, response: Some(response) });
        }
        Ok(response)
    }
}

impl Http {
    fn request(&self, request: &InvokeRequest) -> Result<Request<Full<Bytes>>> {
        let method = match request.operation.as_str() {
            "create" => Method::POST,
            method => Method::from_bytes(method.to_ascii_uppercase().as_bytes())
                .map_err(|_| ComponentError::request(format!("invalid operation: {method}")))?,
        };
        let uri = address(&self.config.url, request.metadata.get("path").map(String::as_str).unwrap_or_default())?;
        let has_body = matches!(method, Method::POST | Method::PUT | Method::PATCH);
        let body = if has_body { request.data.clone() } else { Bytes::new() };
        let mut sent = Request::new(Full::new(body));
        (*sent.method_mut(), *sent.uri_mut()) = (method, uri);
        self.add_headers(&request.metadata, has_body, sent.headers_mut())?;
        Ok(sent)
    }

    fn add_headers(&self, metadata: &Metadata, has_body: bool, headers: &mut HeaderMap) -> Result<()> {
        if has_body {
            headers.insert(CONTENT_TYPE, JSON);
        }
        headers.insert(ACCEPT, JSON);
        if let Some((name, token)) = &self.token {
            headers.insert(name, token.clone());
        }
        for (name, value) in metadata.iter().filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_uppercase())) {
            let (name, value) = header(name, value)?;
            headers.insert(name, value);
        }
        for name in TRACE {
            if let Some(value) = metadata.get(name.as_str()).filter(|value| !value.is_empty()) {
                let (name, value) = header(name.as_str(), value)?;
                headers.insert(name, value);
            }
        }
        Ok(())
    }

    /// Sends it, to where redirects lead in the end, and reads as much of the answer as is wanted.
    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        for _ in 0..=MAX_REDIRECTS {
            let mut again = request.clone();
            let answer = self.client.send(request).await?;
            if !redirect(&mut again, &answer, self.token.as_ref().map(|(name, _)| name))? {
                return self.read(answer).await;
            }
            request = again;
        }
        Err(ComponentError::new(ErrorKind::Internal, format!("stopped after {MAX_REDIRECTS} redirects")))
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<Response<Bytes>> {
        let (parts, mut body) = answer.into_parts();
        let limit = match self.config.max_response_body_size {
            0 => usize::MAX,
            limit => limit,
        };
        let mut read = BytesMut::new();
        while read.len() < limit
            && let Some(frame) = body.frame().await
        {
            let frame = frame.map_err(|error| {
                ComponentError::new(ErrorKind::Internal, format!("the answer broke off: {error}")).with_source(error)
            })?;
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data[..data.len().min(limit - read.len())]);
            }
        }
        Ok(Response::from_parts(parts, read.freeze()))
    }
}

/// The address of the component with the path of a call, which is sent as it is written.
fn address(url: &str, path: &str) -> Result<Uri> {
    let whole = match path {
        "" => url.to_owned(),
        path => format!("{}/{}", url.trim_end_matches('/'), path.trim_start_matches('/')),
    };
    let bad = |reason: &dyn std::fmt::Display| ComponentError::request(format!("parse {whole:?}: {reason}"));
    let uri: Uri = whole.parse().map_err(|error| bad(&error))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => Err(bad(&"unsupported protocol scheme; use http:// or https://")),
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let bad = |what: &str| ComponentError::request(format!("{name:?} cannot be a header: its {what} is not valid"));
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad("value"))?;
    Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("name"))?, value))
}

/// Makes of a request the one that its answer leads to, as browsers and Go do; false if it leads nowhere. `token` is the
/// name of a header that only the first server may see.
fn redirect<B: Default>(
    request: &mut Request<B>,
    answer: &Response<Incoming>,
    token: Option<&HeaderName>,
) -> Result<bool> {
    let status = answer.status();
    let forgets_body = matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER);
    let keeps_body = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let to = answer.headers().get(LOCATION).filter(|_| forgets_body || keeps_body);
    let Some(to) = to.and_then(|to| to.to_str().ok()) else { return Ok(false) };

    let (from, base) = (request.uri().clone(), origin(request.uri()));
    let next = match to {
        whole if whole.contains("://") => address(whole, "")?,
        other_host if other_host.starts_with("//") => address(&format!("{}:{other_host}", scheme(&from)), "")?,
        path if path.starts_with('/') => address(&format!("{base}{path}"), "")?,
        sibling => {
            let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            address(&format!("{base}{folder}/{sibling}"), "")?
        }
    };
    if origin(&next) != base {
        // Secrets are for the server that they were meant for.
        for secret in [&AUTHORIZATION, &COOKIE].into_iter().chain(token) {
            request.headers_mut().remove(secret);
        }
    }
    *request.uri_mut() = next;
    if forgets_body && !matches!(*request.method(), Method::GET | Method::HEAD) {
        *request.method_mut() = Method::GET;
        *request.body_mut() = B::default();
        request.headers_mut().remove(CONTENT_TYPE);
    }
    Ok(true)
}

fn scheme(uri: &Uri) -> &str {
    uri.scheme_str().unwrap_or("http")
}

fn origin(uri: &Uri) -> String {
    format!("{}://{}", scheme(uri), uri.authority().map_or("", |authority| authority.as_str()))
}

fn respond(answer: Response<Bytes>) -> InvokeResponse {
    let status = answer.status();
    let own = answer.extensions().get::<ReasonPhrase>().map(|reason| String::from_utf8_lossy(reason.as_bytes()));
    let reason = own.or(status.canonical_reason().map(Into::into)).unwrap_or_default();
    let mut metadata = Metadata::from([
        ("statusCode".to_owned(), status.as_u16().to_string()),
        ("status".to_owned(), format!("{} {reason}", status.as_u16())),
    ]);
    for name in answer.headers().keys() {
        let values: Vec<_> =
            answer.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        metadata.insert(canonical(name), values.join(", "));
    }
    let content_type = metadata.get("Content-Type").cloned();
    InvokeResponse { data: Some(answer.into_body()), content_type, metadata }
}

/// A header's name in the case that Go writes: `Content-Type`.
fn canonical(name: &HeaderName) -> String {
    let mut at_start = true;
    let letter = |letter: char| {
        let shown = if at_start { letter.to_ascii_uppercase() } else { letter };
        at_start = letter == '-';
        shown
    };
    name.as_str().chars().map(letter).collect()
}

#[cfg(test)]
mod tests;
