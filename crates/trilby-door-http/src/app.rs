//! The way to an app that is an HTTP server.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    HeaderValue, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::{Frame, SizeHint};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use trilby_component::ErrorKind;
use trilby_core::{
    AppChannel, Body, ChannelError, Ctx, Request, Response,
    body::BoxError,
    invoke::{HttpClient as _, check_method},
};

use crate::{auth::API_TOKEN, client::Client};

/// How often [`wait_for_port`] tries, as daprd.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// How long [`wait_for_port`] lets one try take, as daprd.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// What an app on HTTP speaks. Dapr's `--app-protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 under TLS. The app's certificate is not checked.
    Https,
    /// HTTP/2 in clear text.
    H2c,
}

/// Where an app listens and how it wants to be called.
#[derive(Clone)]
pub struct Options {
    /// Default HTTP/1.1.
    pub protocol: Protocol,
    /// Host name or IP address. Default `127.0.0.1`; Dapr's `--app-channel-address`.
    pub address: String,
    /// The app's port.
    pub port: u16,
    /// Sent to the app as `dapr-api-token` with every call. Dapr's `APP_API_TOKEN`.
    pub api_token: Option<String>,
    /// Most calls at once; others wait. `None`, the default, means no limit. Dapr's `--app-max-concurrency`.
    pub max_concurrency: Option<usize>,
}

impl Options {
    /// An app on this machine that speaks HTTP/1.1.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self { protocol: Protocol::Http, address: "127.0.0.1".to_owned(), port, api_token: None, max_concurrency: None }
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

impl std::error::Error for InvalidOption {}

/// An app that is an HTTP server. Bodies stream both ways; redirects are the caller's business.
pub struct HttpApp {
    client: Client,
    scheme: Scheme,
    authority: Authority,
    api_token: Option<HeaderValue>,
    slots: Option<Arc<Semaphore>>,
}

impl HttpApp {
    /// Connects when first called.
    ///
    /// # Errors
    /// If the address is no host, or the token cannot be sent in a header.
    pub fn new(options: &Options) -> Result<Self, InvalidOption> {
        let authority = authority(&options.address, options.port);
        let authority = authority.parse().map_err(|error| {
            InvalidOption(format!("app channel address {} is not a host: {error}", options.address))
        })?;
        let api_token = options.api_token.as_deref().filter(|token| !token.is_empty()).map(secret).transpose()?;
        Ok(Self {
            client: Client::for_app(options.protocol == Protocol::H2c),
            scheme: if options.protocol == Protocol::Https { Scheme::HTTPS } else { Scheme::HTTP },
            authority,
            api_token,
            slots: options.max_concurrency.map(|most| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))),
        })
    }
}

#[async_trait]
impl AppChannel for HttpApp {
    async fn invoke(&self, _: &Ctx, mut request: Request) -> Result<Response, ChannelError> {
        check_method(&request)?;
        let mut address = http::uri::Parts::default();
        address.scheme = Some(self.scheme.clone());
        address.authority = Some(self.authority.clone());
        address.path_and_query =
            Some(request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        *request.uri_mut() = Uri::from_parts(address)
            .map_err(|error| ChannelError::new(ErrorKind::InvalidRequest, format!("method is not a path: {error}")))?;
        if let Some(token) = &self.api_token {
            request.headers_mut().insert(API_TOKEN, token.clone());
        }
        let slot = match &self.slots {
            Some(slots) => Arc::clone(slots).acquire_owned().await.ok(),
            None => None,
        };

        let response = self.client.send(request).await.map_err(|error| {
            ChannelError::new(error.kind, format!("app did not answer at {}://{error}", self.scheme))
        })?;

        // A call is under way until its answer has been passed on.
        Ok(match slot {
            Some(slot) => response.map(|body| Body::stream(Held { body, _slot: slot })),
            None => response,
        })
    }
}

/// A body that holds a slot until it is dropped.
struct Held {
    body: Body,
    _slot: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Waits until something listens on a port, however long that takes.
pub async fn wait_for_port(address: &str, port: u16) {
    let authority = authority(address, port);
    while !matches!(timeout(PROBE_TIMEOUT, TcpStream::connect(&authority)).await, Ok(Ok(_))) {
        sleep(PROBE_INTERVAL).await;
    }
}

/// Host and port; an IPv6 address in brackets.
fn authority(address: &str, port: u16) -> String {
    if address.contains(':') && !address.starts_with('[') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

fn secret(token: &str) -> Result<HeaderValue, InvalidOption> {
    let mut value = HeaderValue::from_str(token)
        .map_err(|_| InvalidOption("app API token has characters that no header may have".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
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
            let error = HttpApp::new(&options).err().expect(expect).to_string();
            assert!(error.starts_with(expect), "{error}");
        }
        assert!(HttpApp::new(&Options { address: "::1".into(), ..Options::new(1) }).is_ok());
    }
}
