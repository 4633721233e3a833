//! The HTTP door, as an application with an HTTP client sees it.

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, StatusCode,
    http::{request::Builder, response::Parts},
};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json, value::RawValue};
use trilby_core::Api;

use super::Inbox;
use crate::client::{Answer, Failure, FailureKind, Item, SecretClient, StateClient, Step, Write};

/// Calls Dapr's HTTP API on loopback.
pub struct Http {
    client: HyperClient<HttpConnector, Full<Bytes>>,
    port: u16,
    pub(super) listener: Option<Api>,
    pub(super) inbox: Option<Inbox>,
}

impl Http {
    /// A client of the API on this port.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self { client: HyperClient::builder(TokioExecutor::new()).build_http(), port, listener: None, inbox: None }
    }

    /// With an app that listens to what is published.
    #[must_use]
    pub fn heard_by(self, listener: Api) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// With the server that the app of this door is.
    #[must_use]
    pub fn told_through(self, inbox: Inbox) -> Self {
        Self { inbox: Some(inbox), ..self }
    }

    pub(super) fn uri(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        etag: Option<&str>,
        body: String,
    ) -> Answer<(Parts, Bytes)> {
        let mut request = Request::builder().method(method).uri(self.uri(path));
        if let Some(etag) = etag {
            request = request.header("if-match", etag);
        }
        self.send(request, body.into()).await
    }

    pub(super) async fn send(&self, request: Builder, body: Bytes) -> Answer<(Parts, Bytes)> {
        let broken = |text: String| Failure { kind: FailureKind::Other, text };
        let request = request.body(Full::new(body)).map_err(|error| broken(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| broken(error.to_string()))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| broken(error.to_string()))?.to_bytes();
        if parts.status.is_success() {
            return Ok((parts, body));
        }
        let kind = match parts.status {
            StatusCode::CONFLICT => FailureKind::Conflict,
            StatusCode::BAD_REQUEST => FailureKind::Invalid,
            StatusCode::FORBIDDEN => FailureKind::Denied,
            _ => FailureKind::Other,
        };
        Err(Failure { kind, text: format!("{} {}", parts.status, String::from_utf8_lossy(&body)) })
    }
}

#[async_trait]
impl StateClient for Http {
    async fn get(&self, store: &str, key: &str) -> Answer<Option<Item>> {
        let (parts, body) = self.call(Method::GET, &path(store, key), None, String::new()).await?;
        if parts.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Some(Item { value: body.to_vec(), etag: header("etag"), expires: header("metadata.ttlExpireTime") }))
    }

    async fn bulk_get(&self, store: &str, keys: &[&str]) -> Answer<Vec<(String, Option<Item>)>> {
        #[derive(serde::Deserialize)]
        struct Row {
            key: String,
            data: Option<Box<RawValue>>,
            etag: Option<String>,
        }
        let body = json!({ "keys": keys }).to_string();
        let (_, body) = self.call(Method::POST, &format!("/v1.0/state/{store}/bulk"), None, body).await?;
        let rows: Vec<Row> = serde_json::from_slice(&body)
            .map_err(|error| Failure { kind: FailureKind::Other, text: format!("{error} in {body:?}") })?;
        let item = |row: Row| {
            let item = row.data.map(|data| Item { value: data.get().into(), etag: row.etag, expires: None });
            (row.key, item)
        };
        Ok(rows.into_iter().map(item).collect())
    }

    async fn save(&self, store: &str, writes: &[Write]) -> Answer<()> {
        let body = Value::from_iter(writes.iter().map(to_json)).to_string();
        self.call(Method::POST, &format!("/v1.0/state/{store}"), None, body).await.map(drop)
    }

    async fn delete(&self, store: &str, key: &str, etag: Option<&str>) -> Answer<()> {
        self.call(Method::DELETE, &path(store, key), etag, String::new()).await.map(drop)
    }

    async fn transact(&self, store: &str, steps: &[Step]) -> Answer<()> {
        let operations: Vec<_> = steps
            .iter()
            .map(|step| match step {
                Step::Upsert(write) => json!({ "operation": "upsert", "request": to_json(write) }),
                Step::Delete(key, etag) => json!({ "operation": "delete", "request": { "key": key, "etag": etag } }),
            })
            .collect();
        let body = json!({ "operations": operations }).to_string();
        self.call(Method::POST, &format!("/v1.0/state/{store}/transaction"), None, body).await.map(drop)
    }
}

#[async_trait]
impl SecretClient for Http {
    async fn get_secret(&self, store: &str, name: &str) -> Answer<Vec<(String, String)>> {
        let (_, body) = self.call(Method::GET, &format!("/v1.0/secrets/{store}/{name}"), None, String::new()).await?;
        let secret: std::collections::BTreeMap<_, _> = serde_json::from_slice(&body)
            .map_err(|error| Failure { kind: FailureKind::Other, text: error.to_string() })?;
        Ok(secret.into_iter().collect())
    }
}

fn path(store: &str, key: &str) -> String {
    format!("/v1.0/state/{store}/{}", utf8_percent_encode(key, NON_ALPHANUMERIC))
}

fn to_json(write: &Write) -> Value {
    let value: Value = serde_json::from_str(&write.json).unwrap_or_default();
    let mut item = json!({ "key": write.key, "value": value });
    if let Some(etag) = &write.etag {
        item["etag"] = json!(etag);
    }
    if write.first_write {
        item["options"] = json!({ "concurrency": "first-write" });
    }
    if let Some(ttl) = write.ttl_seconds {
        item["metadata"] = json!({ "ttlInSeconds": ttl.to_string() });
    }
    item
}
