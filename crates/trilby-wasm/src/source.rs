//! Where a program comes from: a file or an address.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::percent_decode_str;

use crate::error::{LoadError, LoadReason};

/// Where a program comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A local file.
    File(PathBuf),
    /// An `http://` or `https://` address.
    Address(Uri),
}

/// Bounds of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// Largest program. Default 256 MiB.
    pub bytes: usize,
    /// Redirects followed. Default 5.
    pub redirects: usize,
    /// Longest time for all of it. Default 60 s.
    pub timeout: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { bytes: 256 << 20, redirects: 5, timeout: Duration::from_secs(60) }
    }
}

impl Source {
    /// Reads a path, `file://`, `http://` or `https://`.
    ///
    /// # Errors
    ///
    /// `Scheme` for any other scheme, `Address` for what does not parse.
    pub fn parse(text: &str) -> Result<Self, LoadError> {
        let parsed = match text.split_once("://") {
            None => Ok(Self::File(text.into())),
            Some(("file", path)) => {
                percent_decode_str(path).decode_utf8().map(|path| Self::File(path.as_ref().into())).map_err(bad)
            }
            Some(("http" | "https", _)) => text.parse().map(Self::Address).map_err(bad),
            Some((scheme, _)) => Err(LoadReason::Scheme(scheme.into())),
        };
        parsed.map_err(|reason| reason.of(text))
    }

    /// Reads or downloads it whole.
    pub async fn fetch(&self, limits: &FetchLimits) -> Result<Bytes, LoadReason> {
        match self {
            Self::File(path) => read(path, limits).await,
            Self::Address(uri) => tokio::time::timeout(limits.timeout, download(uri, limits))
                .await
                .unwrap_or(Err(LoadReason::Timeout(limits.timeout))),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Address(uri) => uri.fmt(f),
        }
    }
}

async fn read(path: &Path, limits: &FetchLimits) -> Result<Bytes, LoadReason> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => LoadReason::NotFound,
        _ => LoadReason::Read(error),
    };
    let len = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if len > limits.bytes as u64 {
        return Err(LoadReason::TooLarge(limits.bytes));
    }
    Ok(tokio::fs::read(path).await.map_err(failed)?.into())
}

async fn download(uri: &Uri, limits: &FetchLimits) -> Result<Bytes, LoadReason> {
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector()?);
    let mut uri = uri.clone();
    for _ in 0..=limits.redirects {
        let request = Request::get(&uri)
            .header(header::USER_AGENT, concat!("trilby/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(bad)?;
        let response = client.request(request).await.map_err(|error| LoadReason::Fetch(chain(&error)))?;
        match location(&response) {
            Some(to) => uri = follow(&uri, to)?,
            None if response.status().is_success() => return body(response, limits.bytes).await,
            None => return Err(LoadReason::Status(response.status())),
        }
    }
    Err(LoadReason::Redirects(limits.redirects))
}

fn connector() -> Result<HttpsConnector<HttpConnector>, LoadReason> {
    // The provider is named so that nothing depends on a default of the process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(provider)
        .map_err(|error| LoadReason::Fetch(error.to_string()))?;
    Ok(builder.https_or_http().enable_http1().build())
}

async fn body<B>(response: Response<B>, limit: usize) -> Result<Bytes, LoadReason>
where
    B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
{
    match Limited::new(response.into_body(), limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(LoadReason::TooLarge(limit)),
        Err(error) => Err(LoadReason::Fetch(chain(error.as_ref()))),
    }
}

fn location<B>(response: &Response<B>) -> Option<&str> {
    let redirects = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    redirects.then(|| response.headers().get(header::LOCATION)?.to_str().ok()).flatten()
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

fn bad(error: impl std::error::Error) -> LoadReason {
    LoadReason::Address(error.to_string())
}

/// An error and what caused it: the first alone rarely says more than "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let found = Source::parse(text).map_or_else(|error| error.to_string(), |source| format!("{source:?}"));
        assert_eq!(found, expect);
    }

    #[test]
    fn sources_are_told_apart() {
        check("app.wasm", r#"File("app.wasm")"#);
        check("file:///tmp/a%20b.wasm", r#"File("/tmp/a b.wasm")"#);
        check("https://host/a.wasm?v=1", "Address(https://host/a.wasm?v=1)");
        check("oci://host/a", r#"oci://host/a: unknown scheme "oci"; use a path, file://, http:// or https://"#);
        check("http://", "http://: is not a valid address: empty string");
    }

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
