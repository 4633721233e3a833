//! A plain HTTP client of the storefront.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::Result;

/// What the storefront answered, and after how long.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) took: Duration,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|error| format!("{error} in {:?}", self.body))
    }

    /// This answer, if it has that status.
    pub(crate) fn expect(self, status: u16) -> Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        Err(format!("status {} instead of {status}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

/// Keeps its connections open, as a browser or another service would.
#[derive(Clone)]
pub(crate) struct Client {
    http: HyperClient<HttpConnector, Full<Bytes>>,
    port: u16,
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        Self { http: HyperClient::builder(TokioExecutor::new()).build_http(), port }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &'static str) -> Result<Answer> {
        let started = Instant::now();
        let request = Request::builder().method(method).uri(format!("http://127.0.0.1:{}{path}", self.port));
        let request =
            request.body(Full::new(Bytes::from_static(body.as_bytes()))).map_err(|error| error.to_string())?;
        let response = self.http.request(request).await.map_err(|error| format!("{method} {path}: {error}"))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| format!("{method} {path}: {error}"))?;
        Ok(Answer { status, body: body.to_bytes(), took: started.elapsed() })
    }
}
