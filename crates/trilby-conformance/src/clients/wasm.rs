//! The WIT door: a guest that does for the suite what a guest can do. Its source is `fixtures/guests/mirror`.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use trilby_core::{Api, Body, Ctx, Request};

use crate::client::{Answer, Failure, FailureKind, Item, SecretClient, StateClient, Step, Write};

/// The largest answer of the mirror guest that is read, in bytes.
const LARGEST_ANSWER: usize = 16 << 20;

/// Asks the mirror guest to call the blocks.
#[derive(Clone)]
pub struct Wasm {
    pub(super) api: Api,
    app_id: &'static str,
}

impl Wasm {
    /// `api` belongs to any app that may invoke the mirror guest, which runs as `app_id`.
    #[must_use]
    pub fn new(api: Api, app_id: &'static str) -> Self {
        Self { api, app_id }
    }

    pub(super) async fn call(&self, operation: Value) -> Answer<Value> {
        let broken = |text: String| Failure { kind: FailureKind::Other, text };
        let request = Request::new(Body::from(operation.to_string()));
        let response = self.api.invoke.call(&Ctx::default(), self.app_id, request).await;
        let (parts, body) = response.map_err(|error| broken(error.to_string()))?.into_parts();
        let body = body.collect(LARGEST_ANSWER).await.map_err(|error| broken(error.to_string()))?;
        if !parts.status.is_success() {
            return Err(broken(format!("{} {}", parts.status, String::from_utf8_lossy(&body))));
        }
        let mut answer: Value = serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))?;
        take(&mut answer)
    }
}

#[async_trait]
impl StateClient for Wasm {
    async fn get(&self, store: &str, key: &str) -> Answer<Option<Item>> {
        self.call(json!({ "op": "get", "store": store, "key": key })).await.map(|item| to_item(&item))
    }

    async fn bulk_get(&self, store: &str, keys: &[&str]) -> Answer<Vec<(String, Option<Item>)>> {
        let rows = self.call(json!({ "op": "get-bulk", "store": store, "keys": keys })).await?;
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.into_iter().map(|mut row| Ok((text(&row[0]).unwrap_or_default(), to_item(&take(&mut row[1])?)))).collect()
    }

    async fn save(&self, store: &str, writes: &[Write]) -> Answer<()> {
        let operation = match writes {
            [write] => {
                let mut operation = to_json(write);
                operation["op"] = json!("save");
                operation["store"] = json!(store);
                operation
            }
            many => json!({ "op": "save-bulk", "store": store, "items": Value::from_iter(many.iter().map(to_json)) }),
        };
        self.call(operation).await.map(drop)
    }

    async fn delete(&self, store: &str, key: &str, etag: Option<&str>) -> Answer<()> {
        let options = etag.map(|etag| json!({ "etag": etag }));
        self.call(json!({ "op": "delete", "store": store, "key": key, "options": options })).await.map(drop)
    }

    async fn transact(&self, store: &str, steps: &[Step]) -> Answer<()> {
        let operations: Vec<_> = steps
            .iter()
            .map(|step| match step {
                Step::Upsert(write) => json!({ "upsert": to_json(write) }),
                Step::Delete(key, etag) => {
                    json!({ "delete": { "key": key, "options": etag.as_ref().map(|etag| json!({ "etag": etag })) } })
                }
            })
            .collect();
        self.call(json!({ "op": "transact", "store": store, "operations": operations })).await.map(drop)
    }
}

#[async_trait]
impl SecretClient for Wasm {
    async fn get_secret(&self, store: &str, name: &str) -> Answer<Vec<(String, String)>> {
        let secret = self.call(json!({ "op": "get-secret", "store": store, "key": name })).await?;
        let pairs = secret.as_object().into_iter().flatten();
        Ok(pairs.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect())
    }
}

/// `{"ok": …}` or `{"error": …}`.
fn take(answer: &mut Value) -> Answer<Value> {
    let error = answer["error"].take();
    if error.is_null() {
        return Ok(answer["ok"].take());
    }
    let kind = match error["kind"].as_str() {
        Some("conflict") => FailureKind::Conflict,
        Some("invalid") => FailureKind::Invalid,
        Some("denied") => FailureKind::Denied,
        _ => FailureKind::Other,
    };
    Err(Failure { kind, text: error.to_string() })
}

fn to_json(write: &Write) -> Value {
    json!({
        "key": write.key,
        "value": STANDARD.encode(&write.json),
        "options": {
            "etag": write.etag,
            "concurrency": write.first_write.then_some("first-write"),
            "ttl-seconds": write.ttl_seconds,
            "content-type": "application/json",
        },
    })
}

fn to_item(item: &Value) -> Option<Item> {
    let value = STANDARD.decode(item["value"].as_str()?).ok()?;
    Some(Item { value, etag: text(&item["etag"]), expires: text(&item["metadata"]["ttlExpireTime"]) })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
