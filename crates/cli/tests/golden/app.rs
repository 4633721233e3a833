//! The app of the recordings, again: it answers as that one did and notes what arrives.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::support::{HttpReply, HttpRequest, HttpServer};

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
        "/e404" => HttpReply::new(404, "nothing"),
        "/e500" => HttpReply::new(500, "boom"),
        _ => HttpReply::new(200, ""),
    }
}
