//! The HTTP requests that a command sends, to the hosts that it was granted.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::error::LoadReason;
use crate::source::connector;
use crate::wasi::AllowedHosts;

/// The connections of all runs of a command.
pub(super) struct Client(legacy::Client<HttpsConnector<HttpConnector>, WasiBody>);

impl Client {
    pub(super) fn new() -> Result<Self, LoadReason> {
        Ok(Self(legacy::Client::builder(TokioExecutor::new()).build(connector()?)))
    }
}

/// The way out of one run.
#[derive(Clone)]
pub(super) struct Outgoing {
    /// `None` if the command does not speak HTTP.
    pub(super) client: Option<Arc<Client>>,
    pub(super) hosts: Arc<AllowedHosts>,
}

impl Outgoing {
    /// Sends a request, and gives the answer when its body begins.
    ///
    /// # Errors
    ///
    /// `HttpRequestDenied` for a host that is not granted, others if there is no answer.
    pub(super) async fn send(&self, request: Request<WasiBody>) -> Result<Response<WasiBody>, HttpError> {
        let Some(client) = self.client.as_ref().filter(|_| self.hosts.allows(request.uri())) else {
            return Err(HttpError::HttpRequestDenied);
        };
        let response = client
            .0
            .request(request)
            .await
            .map_err(|error| if error.is_connect() { HttpError::DestinationUnavailable } else { failed(&error) })?;
        Ok(response.map(|body| body.map_err(|error| failed(&error)).boxed_unsync()))
    }
}

fn failed(error: &dyn std::error::Error) -> HttpError {
    HttpError::InternalError(Some(error.to_string()))
}

/// Outcome of the part of a request that goes on after the answer began. There is none: the body is the answer's own.
type Rest = Box<dyn Future<Output = Result<(), HttpError>> + Send>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Rest,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Rest), HttpError>> + Send> {
        let outgoing = self.clone();
        let patience = options.and_then(|options| options.first_byte_timeout);
        Box::new(async move {
            let sending = outgoing.send(request);
            let response = match patience {
                None => sending.await?,
                Some(patience) => {
                    tokio::time::timeout(patience, sending).await.map_err(|_| HttpError::ConnectionReadTimeout)??
                }
            };
            Ok((response, Box::new(async { Ok(()) }) as Rest))
        })
    }
}
