//! Downloads: a client that follows redirects within reason.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::bad;
use crate::error::LoadReason;

/// What a server sends.
pub(super) type Answer = Response<hyper::body::Incoming>;

/// Gets things by `http://` and `https://`.
pub(super) struct Client {
    client: legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    redirects: usize,
}

/// Connects, by TLS where the address wants it, and trusts what browsers trust.
pub(crate) fn connector() -> Result<HttpsConnector<HttpConnector>, LoadReason> {
    // The provider is named so that nothing depends on a default of the process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(provider)
        .map_err(|error| LoadReason::Fetch(error.to_string()))?;
    Ok(builder.https_or_http().enable_http1().build())
}

impl Client {
    pub(super) fn new(redirects: usize) -> Result<Self, LoadReason> {
        Ok(Self { client: legacy::Client::builder(TokioExecutor::new()).build(connector()?), redirects })
    }

    /// Asks for what is there, or where it leads to. A host that it leads to is not told any secret.
    pub(super) async fn get(&self, uri: &Uri, headers: &HeaderMap) -> Result<Answer, LoadReason> {
        let (mut uri, mut headers) = (uri.clone(), headers.clone());
        for _ in 0..=self.redirects {
            let mut request = Request::get(&uri).body(Empty::new()).map_err(bad)?;
            *request.headers_mut() = headers.clone();
            let agent = concat!("trilby/", env!("CARGO_PKG_VERSION"));
            request.headers_mut().insert(USER_AGENT, http::HeaderValue::from_static(agent));
            let response = self.client.request(request).await.map_err(|error| LoadReason::Fetch(chain(&error)))?;
            let Some(to) = location(&response) else { return Ok(response) };
            let next = follow(&uri, to)?;
            if next.authority() != uri.authority() {
                headers.remove(AUTHORIZATION);
            }
            uri = next;
        }
        Err(LoadReason::Redirects(self.redirects))
    }
}

/// The body of an answer that has one: any other success than 200 is of something else, or of a part.
pub(super) async fn body(response: Answer, limit: usize) -> Result<Bytes, LoadReason> {
    if response.status() != StatusCode::OK {
        return Err(LoadReason::Status(response.status()));
    }
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(LoadReason::TooLarge(limit)),
        Err(error) => Err(LoadReason::Fetch(chain(error.as_ref()))),
    }
}

fn location<B>(response: &Response<B>) -> Option<&str> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    redirects.then(|| response.headers().get(LOCATION)?.to_str().ok()).flatten()
}

/// Where a redirect leads, from where it was given.
fn follow(from: &Uri, to: &str) -> Result<Uri, LoadReason> {
    let next: Uri = if to.contains("://") {
        to.parse().map_err(bad)?
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = if to.starts_with('/') { to.to_owned() } else { format!("{folder}/{to}") };
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(bad)?);
        Uri::from_parts(parts).map_err(bad)?
    };
    match (from.scheme_str(), next.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => Ok(next),
        _ => Err(LoadReason::Fetch(format!("a redirect leads to {next}, which is not encrypted as {from} is"))),
    }
}

/// An error and what caused it: the first alone rarely says more than "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from: Uri = "https://host/a/b.wasm".parse().expect("valid");
        let to = |to| follow(&from, to).map(|uri| uri.to_string()).unwrap_or_default();
        assert_eq!(to("c.wasm"), "https://host/a/c.wasm");
        assert_eq!(to("/c.wasm"), "https://host/c.wasm");
        assert_eq!(to("https://other/c.wasm"), "https://other/c.wasm");
        assert_eq!(to("http://other/c.wasm"), "", "encryption is not given up on the way");
    }
}
