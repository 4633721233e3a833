//! The HTTP client of this runtime: pooled, over HTTP/1.1 and HTTP/2, with TLS.

mod tls;

use std::error::Error as StdError;

use async_trait::async_trait;
use http::Version;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use trilby_component::ErrorKind;
use trilby_core::{Body, ChannelError, Request, Response, invoke::HttpClient};

pub use tls::{Tls, TlsError};

/// Calls HTTP servers. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Client(legacy::Client<HttpsConnector<HttpConnector>, Body>);

impl Client {
    /// A client for servers anywhere. Those with `https` must have a certificate that `tls` trusts.
    ///
    /// # Errors
    /// If a text in `tls` is not PEM or not what its name says.
    pub fn new(tls: &Tls) -> Result<Self, TlsError> {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.config()?).https_or_http();
        Ok(Self(builder().build(connector.enable_all_versions().wrap_connector(tcp()))))
    }

    /// A client for one app on this machine, or close by: certificates are not checked, as in daprd. `http2` means
    /// HTTP/2 from the first byte.
    pub(crate) fn for_app(http2: bool) -> Self {
        let connector = HttpsConnectorBuilder::new().with_tls_config(trilby_tls::trusting_anyone()).https_or_http();
        let connector = if http2 {
            connector.enable_http2().wrap_connector(tcp())
        } else {
            connector.enable_http1().wrap_connector(tcp())
        };
        Self(builder().http2_only(http2).build(connector))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send(&self, mut request: Request) -> Result<Response, ChannelError> {
        // The version of the call that led here says nothing about this one.
        *request.version_mut() = Version::HTTP_11;
        let target = request.uri().clone();
        let response = self.0.request(request).await.map_err(|error| {
            let authority = target.authority().map_or("", |authority| authority.as_str());
            let kind = if error.is_connect() { ErrorKind::Unavailable } else { ErrorKind::Internal };
            ChannelError::new(kind, format!("{authority}: {}", explain(&error)))
        })?;
        Ok(response.map(|body| if http_body::Body::is_end_stream(&body) { Body::Empty } else { Body::stream(body) }))
    }
}

fn builder() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
    builder
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    tcp
}

/// What went wrong, from the outside in. The client's own outermost words only say that it is a client.
fn explain(error: &legacy::Error) -> String {
    let mut reasons = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = match error.downcast_ref() {
            // Clients of daprd look for Go's words.
            Some(error @ rustls::Error::InvalidCertificate(_)) => format!("tls: failed to verify certificate: {error}"),
            _ => error.to_string(),
        };
        // An I/O error repeats what it wraps.
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
        cause = inner(error);
    }
    if reasons.is_empty() { error.to_string() } else { reasons.join(": ") }
}

/// The cause of an error; an I/O error that wraps another does not offer it as its source.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.get_ref().map(|wrapped| wrapped as &(dyn StdError + 'static)),
        None => error.source(),
    }
}
