//! One recorded HTTP request sent to our daprd, and both answers in a comparable form.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{mask::mask, support::Daprd};

/// Headers of the answer that belong to the connection or are volatile by nature.
const IGNORED: [&str; 5] = ["date", "content-length", "connection", "transfer-encoding", "server"];

/// Paths of APIs that this build does not have yet.
const NOT_BUILT: [&str; 10] = [
    "/publish/",
    "/bindings/",
    "/configuration/",
    "/lock/",
    "/unlock/",
    "/crypto/",
    "/conversation/",
    "/actors/",
    "/workflows/",
    "/jobs/",
];

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
    let body = request["body"].as_str().map(str::as_bytes);
    if body.is_some() {
        headers.push(("content-type", "application/json"));
    }
    for (name, value) in request["headers"].as_object().expect("headers") {
        headers.retain(|(default, _)| !default.eq_ignore_ascii_case(name));
        headers.push((name, value.as_str().expect("text")));
    }
    let method = request["method"].as_str().expect("a method");
    let answer = daprd.raw_http(method, &path, &headers, body.unwrap_or_default()).await;
    render(answer.status, answer.headers, &answer.body)
}

/// The recorded answer in the same form.
pub(crate) fn recorded(response: &Value) -> String {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let headers = response["headers"].as_array().expect("headers");
    let headers = headers.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
    let body = match &response["body"] {
        Value::String(text) => text.clone().into_bytes(),
        other => STANDARD.decode(other["base64"].as_str().expect("base64")).expect("base64"),
    };
    let status = response["status"].as_u64().expect("a status");
    render(u16::try_from(status).expect("a status"), headers, &body)
}

fn render(status: u16, mut headers: Vec<(String, String)>, body: &[u8]) -> String {
    headers.retain(|(name, _)| !IGNORED.contains(&name.as_str()));
    headers.sort();
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {}", mask(value))).collect();
    let body = match std::str::from_utf8(body) {
        Ok(text) => mask(text),
        Err(_) => format!("base64 {}", STANDARD.encode(body)),
    };
    format!("{status} [{}] {body}", headers.join(", "))
}
