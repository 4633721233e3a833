//! The HTTP client of components whose backend is an HTTP server.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::pki_types::ServerName;
use trilby_component::{ComponentError, ErrorKind, Result};

use crate::tls;

/// Calls HTTP servers over HTTP/1.1 and HTTP/2, with TLS where the address says `https`. Cloning is cheap and shares the
/// connections.
#[derive(Clone)]
pub(crate) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    /// A client that trusts whom `tls` trusts, and shows what it has to show.
    ///
    /// # Errors
    /// `InvalidMetadata` for a certificate or key that cannot be used.
    pub(crate) fn new(tls: &tls::Settings) -> Result<Self> {
        Self::for_server(tls, "")
    }

    /// As [`new`](Self::new), for one server, whose certificate is for `name`; if that is empty, for its address.
    ///
    /// # Errors
    /// Also `InvalidMetadata` for a name that no certificate can be for.
    pub(crate) fn for_server(tls: &tls::Settings, name: &str) -> Result<Self> {
        let tls = Arc::unwrap_or_clone(tls.client_config()?);
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let mut connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        if !name.is_empty() {
            let name = ServerName::try_from(name.to_owned())
                .map_err(|_| ComponentError::metadata(format!("{name:?} cannot be the name of a server")))?;
            connector = connector.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let connector = connector.enable_all_versions().wrap_connector(tcp);
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        Ok(Self(builder.build(connector)))
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    ///
    /// # Errors
    /// `Unavailable` if nobody answers at that address, `Internal` if the answer breaks off.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        self.0.request(request).await.map_err(|error| {
            let kind = if error.is_connect() { ErrorKind::Unavailable } else { ErrorKind::Internal };
            ComponentError::new(kind, format!("{authority}: {}", explain(&error))).with_source(error)
        })
    }

    /// Sends a request and reads the whole answer, of at most `max_bytes`, within `limit` where there is one.
    ///
    /// # Errors
    /// Those of [`send`](Self::send); `Timeout`; `Internal` for an answer that is too long.
    pub(crate) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        max_bytes: usize,
        limit: Option<Duration>,
    ) -> Result<Response<Bytes>> {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let exchange = async {
            let (parts, body) = self.send(request).await?.into_parts();
            Ok(Response::from_parts(parts, collect(body, max_bytes, &authority).await?))
        };
        match limit {
            None => exchange.await,
            Some(limit) => tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
                let message = format!("{authority} did not answer within {limit:?}");
                Err(ComponentError::new(ErrorKind::Timeout, message))
            }),
        }
    }
}

async fn collect(mut body: Incoming, max_bytes: usize, authority: &str) -> Result<Bytes> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let message = format!("{authority}: the answer broke off: {error}");
            ComponentError::new(ErrorKind::Internal, message).with_source(error)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > max_bytes {
            let message = format!("{authority}: the answer is longer than {max_bytes} bytes");
            return Err(ComponentError::new(ErrorKind::Internal, message));
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

/// The innermost reason. The client's own words only say that it is a client.
fn explain(error: &legacy::Error) -> String {
    let mut reason: &dyn StdError = error;
    while let Some(cause) = reason.source() {
        reason = cause;
    }
    reason.to_string()
}
