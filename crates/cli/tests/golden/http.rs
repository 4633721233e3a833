//! One recorded HTTP request sent to our daprd, and both answers in a comparable form.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{mask::mask, stories::keys_folder, support::Daprd};

/// Headers of the answer that belong to the connection or are volatile by nature.
const IGNORED: [&str; 5] = ["date", "content-length", "connection", "transfer-encoding", "server"];

/// Paths of APIs that this build does not have yet.
const NOT_BUILT: [&str; 3] = ["/actors/", "/workflows/", "/jobs/"];

/// Why a recorded request is not sent, if it is not.
pub(crate) fn not_built(request: &Value) -> Option<String> {
    let path = request["path"].as_str()?;
    let api = NOT_BUILT.iter().find(|api| path.starts_with("/v1.0") && path.contains(**api))?;
    Some(format!("{} {path}: the {} API is not built yet", request["method"].as_str()?, api.trim_matches('/')))
}

/// Sends it and returns our answer as text.
pub(crate) async fn send(daprd: &Daprd, request: &Value) -> String {
    let path = request["path"].as_str().expect("a path");
    let path = path.replace("@APP@", &daprd.app_port.to_string()).replace("47667", &daprd.app_port.to_string());
    let mut headers = vec![("user-agent", "Python-urllib/3.11"), ("accept-encoding", "identity")];
    let body = bytes(&request["body"]);
    if body.is_some() {
        headers.push(("content-type", "application/json"));
    }
    for (name, value) in request["headers"].as_object().expect("headers") {
        headers.retain(|(default, _)| !default.eq_ignore_ascii_case(name));
        headers.push((name, value.as_str().expect("text")));
    }
    let method = request["method"].as_str().expect("a method");
    let answer = daprd.raw_http(method, &path, &headers, body.as_deref().unwrap_or_default()).await;
    render(answer.status, answer.headers, &answer.body)
}

/// The recorded answer in the same form.
pub(crate) fn recorded(response: &Value) -> String {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let headers = response["headers"].as_array().expect("headers");
    let headers = headers.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
    let body = bytes(&response["body"]).expect("a body");
    let status = response["status"].as_u64().expect("a status");
    render(u16::try_from(status).expect("a status"), headers, &body)
}

/// A body of the recording: text, or base64 of what is none.
fn bytes(body: &Value) -> Option<Vec<u8>> {
    match body {
        Value::String(text) => Some(text.clone().into_bytes()),
        other => Some(STANDARD.decode(other["base64"].as_str()?).expect("base64")),
    }
}

fn render(status: u16, mut headers: Vec<(String, String)>, body: &[u8]) -> String {
    headers.retain(|(name, _)| !IGNORED.contains(&name.as_str()));
    headers.sort();
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {}", mask(value))).collect();
    let body = match std::str::from_utf8(body) {
        _ if body.starts_with(b"dapr.io/enc/v1\n") => describe_document(body),
        Ok(text) => mask(&text.replace(&keys_folder(), "@KEYS@")),
        Err(_) => format!("base64 {}", STANDARD.encode(body)),
    };
    format!("{status} [{}] {body}", headers.join(", "))
}

/// What two encryptions of one plaintext have in common.
fn describe_document(document: &[u8]) -> String {
    let lines: Vec<_> = document.splitn(4, |byte| *byte == b'\n').collect();
    let [_, manifest, mac, segments] = lines.as_slice() else { panic!("a document has three lines of text") };
    let mut manifest: Value = serde_json::from_slice(manifest).expect("a manifest");
    for random in ["wfk", "np"] {
        let bytes = STANDARD.decode(manifest[random].as_str().expect("base64")).expect("base64").len();
        manifest[random] = format!("{bytes} bytes").into();
    }
    format!("document {manifest}, signed in {} bytes, with {} bytes", mac.len(), segments.len())
}
