//! The app of the recordings, again: it answers as that one did and notes what arrives.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    mask::mask,
    support::{HttpReply, HttpRequest, HttpServer},
};

/// Headers that depend on the client or the port, and not on the runtime.
const IGNORED: [&str; 7] = [
    "host",
    "content-length",
    "transfer-encoding",
    "accept-encoding",
    "user-agent",
    "dapr-grpc-accept-encoding",
    "connection",
];

/// What the app subscribes to, as `/v1.0/metadata` of the recording lists it.
const SUBSCRIPTIONS: &str = r#"[
  { "pubsubname": "ps", "topic": "a", "route": "/a" },
  { "pubsubname": "ps", "topic": "raw", "route": "/raw", "metadata": { "rawPayload": "true" } },
  { "pubsubname": "ps", "topic": "rules", "routes": { "default": "/def", "rules": [
      { "match": "event.type == \"x\"", "path": "/x" }, { "match": "event.data.n > 5", "path": "/big" } ] } },
  { "pubsubname": "ps", "topic": "retry", "route": "/retry", "deadLetterTopic": "dead" },
  { "pubsubname": "ps", "topic": "drop", "route": "/drop" },
  { "pubsubname": "ps", "topic": "dead", "route": "/dead" },
  { "pubsubname": "ps", "topic": "bulk", "route": "/bulk", "bulkSubscribe": { "enabled": true, "maxAwaitDurationMs": 50 } },
  { "pubsubname": "ps", "topic": "e404", "route": "/e404" },
  { "pubsubname": "ps", "topic": "e500", "route": "/e500", "deadLetterTopic": "dead" }
]"#;

/// The app and what reached it.
pub(crate) struct App {
    pub(crate) server: HttpServer,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl App {
    pub(crate) async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        let server = HttpServer::start(move |request| {
            notes.lock().unwrap().push(note(&request));
            reply(&request)
        });
        Self { server: server.await, seen }
    }

    /// What arrived since the last time, in the form of [`expected`].
    pub(crate) fn take(&self) -> String {
        Value::Array(std::mem::take(&mut *self.seen.lock().unwrap())).to_string()
    }

    /// What arrived since the last time, once there is enough of it.
    pub(crate) async fn arrivals(&self, are_enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let started = Instant::now();
        while !are_enough(&self.seen.lock().unwrap()) {
            assert!(started.elapsed() < Duration::from_secs(20), "too little arrived: {:?}", self.seen.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// As [`take`](Self::take), once `count` calls have arrived and no more come, in an order of its own: deliveries
    /// have none between topics, and entries of a bulk publish none at all.
    pub(crate) async fn deliveries(&self, count: usize) -> String {
        let started = Instant::now();
        while self.seen.lock().unwrap().len() < count && started.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        sorted(seen.iter().map(masked))
    }
}

/// Recorded deliveries in the form of [`App::deliveries`].
pub(crate) fn expected_deliveries<'a>(delivered: impl Iterator<Item = &'a Value>) -> String {
    let one = |call: &Value| {
        let mut call = call.clone();
        call["headers"]
            .as_array_mut()
            .expect("headers")
            .retain(|pair| !IGNORED.contains(&pair[0].as_str().expect("text")));
        masked(&call)
    };
    sorted(delivered.map(one))
}

fn sorted(calls: impl Iterator<Item = String>) -> String {
    let mut calls: Vec<_> = calls.collect();
    calls.sort();
    calls.join("\n")
}

/// A call without identifiers and times, also of an envelope that is the data of another.
fn masked(call: &Value) -> String {
    let mut call = call.clone();
    let inner = call["body"].as_str().and_then(|body| serde_json::from_str::<Value>(body).ok());
    let inner = inner.and_then(|body| STANDARD.decode(body["data_base64"].as_str()?).ok());
    if let Some(envelope) = inner.and_then(|data| String::from_utf8(data).ok()).filter(|data| data.starts_with('{')) {
        let body = call["body"].as_str().expect("it has one");
        call["body"] = body.replace(&STANDARD.encode(&envelope), &mask(&envelope)).into();
    }
    mask(&call.to_string())
}

/// What the app says to several events.
fn all_handled(body: &[u8]) -> String {
    let request: Value = serde_json::from_slice(body).expect("JSON");
    let entries = request["entries"].as_array().expect("entries").iter();
    let statuses: Vec<_> = entries.map(|entry| json!({ "entryId": entry["entryId"], "status": "SUCCESS" })).collect();
    json!({ "statuses": statuses }).to_string()
}

/// A line of app/invocations.jsonl in the same form.
pub(crate) fn expected(arrived: &Value) -> String {
    let mut arrived = arrived.clone();
    for call in arrived.as_array_mut().expect("a list") {
        let headers = call["headers"].as_array_mut().expect("headers");
        headers.retain(|pair| !IGNORED.contains(&pair[0].as_str().expect("text")));
        mask_authority(headers);
    }
    arrived.to_string()
}

fn note(request: &HttpRequest) -> Value {
    let headers = request.headers.iter().filter(|(name, _)| !IGNORED.contains(&name.as_str()));
    let mut headers: Vec<_> = headers.map(|(name, value)| json!([name, value])).collect();
    headers.sort_by_key(Value::to_string);
    mask_authority(&mut headers);
    json!({
        "body": String::from_utf8_lossy(&request.body),
        "headers": headers,
        "method": request.method,
        "path": request.path,
    })
}

/// The authority of a gRPC call is an address, which differs from run to run.
fn mask_authority(headers: &mut [Value]) {
    for pair in headers.iter_mut().filter(|pair| pair[0] == "dapr-authority") {
        pair[1] = "<address>".into();
    }
}

fn reply(request: &HttpRequest) -> HttpReply {
    let path = request.path.split('?').next().unwrap_or_default();
    match path {
        "/echo" => HttpReply::new(200, request.body.clone())
            .header("content-type", "application/octet-stream")
            .header("x-app", "yes"),
        "/teapot" => HttpReply::new(418, "short and stout").header("content-type", "text/plain").header("x-app", "1"),
        "/redirect" => HttpReply::new(302, "").header("location", "/elsewhere"),
        "/empty" => HttpReply::new(204, ""),
        // As the recorded app named its program.
        web if web.starts_with("/web") => HttpReply::new(200, "").header("server", "BaseHTTP/0.6 Python/3.11.7"),
        "/dapr/subscribe" => HttpReply::new(200, SUBSCRIPTIONS).header("content-type", "application/json"),
        "/bulk" => HttpReply::new(200, all_handled(&request.body)).header("content-type", "application/json"),
        "/retry" => HttpReply::new(200, r#"{"status": "RETRY"}"#),
        "/drop" => HttpReply::new(200, r#"{"status": "DROP"}"#),
        "/e404" => HttpReply::new(404, "nothing"),
        "/e500" => HttpReply::new(500, "boom"),
        _ => HttpReply::new(200, ""),
    }
}
