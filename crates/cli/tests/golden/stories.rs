//! The stories: which recordings are replayed, against a daprd set up as the recorded one was.

use serde_json::Value;

use super::{
    Line,
    app::{self, App},
    differences::Differences,
    grpc::{self, Messages},
    http, recording,
    support::{Daprd, DaprdOptions},
};

/// The components of the recordings. `FILES` is a folder of the test's own.
const COMPONENTS: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: sec }
spec: { type: secretstores.local.file, version: v1, metadata: [{ name: secretsFile, value: "FILES/secrets.json" }] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: mem }
spec: { type: state.in-memory, version: v1 }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: sq }
spec: { type: state.sqlite, version: v1, metadata: [{ name: connectionString, value: "FILES/sq.db" }] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: knone }
spec:
  type: state.sqlite
  version: v1
  metadata:
  - { name: connectionString, value: "FILES/k.db" }
  - { name: tableName, value: knone }
  - { name: keyPrefix, value: none }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: kns }
spec:
  type: state.sqlite
  version: v1
  metadata:
  - { name: connectionString, value: "FILES/kns.db" }
  - { name: tableName, value: kns }
  - { name: keyPrefix, value: namespace }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: kx }
spec:
  type: state.sqlite
  version: v1
  metadata:
  - { name: connectionString, value: "FILES/kx.db" }
  - { name: tableName, value: kx }
  - { name: keyPrefix, value: team }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: enc }
spec:
  type: state.sqlite
  version: v1
  metadata:
  - { name: connectionString, value: "FILES/enc.db" }
  - { name: primaryEncryptionKey, secretKeyRef: { name: enc, key: enc } }
auth: { secretStore: sec }
"#;

const BROKER: &str = r"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: ps }
spec: { type: pubsub.in-memory, version: v1 }
";

/// The keys are those of `tests/golden/keys`, with which a stock daprd made the documents of the recordings.
const KEYS: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: keys }
spec: { type: crypto.dapr.localstorage, version: v1, metadata: [{ name: path, value: "KEYS" }] }
"#;

const ECHO: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: echo }
spec: { type: conversation.echo, version: v1 }
";

pub(crate) const SECRETS: &str = r#"{
  "plain": "p",
  "nested": { "a": "1", "b": { "c": "2" } },
  "list": ["x", "y"],
  "num": 5,
  "enc": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}"#;

const SCOPED: &str = r"
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: scoped }
spec: { secrets: { scopes: [{ storeName: sec, defaultAccess: deny, allowedSecrets: [plain] }] } }
";

/// With every store of state and secrets that needs no server.
pub(crate) fn configured() -> DaprdOptions {
    DaprdOptions {
        components: COMPONENTS.into(),
        files: vec![("secrets.json", SECRETS.into())],
        ..DaprdOptions::default()
    }
}

/// Replays lines in order; a story may mix HTTP and gRPC.
pub(crate) async fn replay(daprd: &Daprd, lines: &[Line], differences: &mut Differences) {
    let messages = Messages::load();
    for Line { name, request, response } in lines {
        let rpc = request.get("call").is_some();
        if let Some(reason) = if rpc { grpc::not_built(request) } else { http::not_built(request) } {
            println!("left out {name}: {reason}");
            continue;
        }
        let (ours, theirs) = if rpc {
            (messages.send(daprd, request).await, messages.recorded(request, response))
        } else {
            (http::send(daprd, request).await, http::recorded(response))
        };
        differences.compare(name, &brief(request), &ours, &theirs);
    }
}

pub(crate) fn brief(request: &Value) -> String {
    request.to_string().chars().take(200).collect()
}

/// Replays recordings against a daprd of their own.
pub(crate) async fn story(options: DaprdOptions, files: &[&str]) {
    let daprd = Daprd::start(options).await;
    let mut differences = Differences::load();
    for file in files {
        replay(&daprd, &recording(file), &mut differences).await;
    }
    differences.finish(files);
    daprd.stop().await;
}

#[tokio::test]
async fn nothing_configured() {
    story(DaprdOptions::default(), &["http/nothing-configured.jsonl", "grpc/nothing-configured.jsonl"]).await;
}

#[tokio::test]
async fn state_in_memory() {
    story(configured(), &["http/state-mem.jsonl", "grpc/state-mem.jsonl"]).await;
}

#[tokio::test]
async fn state_sqlite() {
    story(configured(), &["http/state-sq.jsonl", "grpc/state-sq.jsonl"]).await;
}

#[tokio::test]
async fn key_prefixes_and_encryption() {
    let options = DaprdOptions { namespace: Some("prod".into()), ..configured() };
    story(options, &["http/state-key-prefix-and-encryption.jsonl"]).await;
}

#[tokio::test]
async fn secrets() {
    story(configured(), &["http/secrets.jsonl"]).await;
}

#[tokio::test]
async fn scoped_secrets() {
    story(DaprdOptions { config: Some(SCOPED.into()), ..configured() }, &["http/secrets-scoped.jsonl"]).await;
}

#[tokio::test]
async fn invocation() {
    let app = App::start().await;
    let options = DaprdOptions { app_port: Some(app.server.port), ..DaprdOptions::default() };
    let daprd = Daprd::start(options).await;
    let mut differences = Differences::load();
    let arrivals =
        [("http/invoke.jsonl", "app/invocations.jsonl"), ("grpc/invoke.jsonl", "app/invocations-over-grpc.jsonl")];
    app.take();
    for (answers, arrived) in arrivals {
        let expected = recorded_arrivals(arrived);
        let mut next = expected.iter();
        for line in recording(answers) {
            replay(&daprd, std::slice::from_ref(&line), &mut differences).await;
            let ours = app.take();
            if ours == "[]" && answers.starts_with("grpc") {
                continue; // Only calls that arrived were recorded there.
            }
            let Some((name, theirs)) = next.next() else { panic!("{} arrived but was not recorded", line.name) };
            differences.compare(name, &brief(&line.request), &ours, theirs);
        }
    }
    differences.finish(&arrivals.map(|(answers, _)| answers));
    daprd.stop().await;
}

#[tokio::test]
async fn publishing() {
    let app = App::start().await;
    let options =
        DaprdOptions { components: BROKER.into(), app_port: Some(app.server.port), ..DaprdOptions::default() };
    let daprd = Daprd::start(options).await;
    until_subscribed(&daprd).await;
    let mut differences = Differences::load();
    app.deliveries(0).await;

    for (line, (name, theirs)) in recording("http/publish.jsonl").iter().zip(deliveries("app/deliveries.jsonl")) {
        replay(&daprd, std::slice::from_ref(line), &mut differences).await;
        let ours = app.deliveries(theirs.len()).await;
        differences.compare(&name, &brief(&line.request), &ours, &app::expected_deliveries(theirs.iter()));
    }
    replay(&daprd, &recording("grpc/publish.jsonl"), &mut differences).await;
    // What came over gRPC was recorded without what it came of.
    let all: Vec<_> = deliveries("app/deliveries-of-grpc-publish.jsonl").into_iter().flat_map(|(_, one)| one).collect();
    let ours = app.deliveries(all.len()).await;
    let theirs = app::expected_deliveries(all.iter());
    differences.compare("app/deliveries-of-grpc-publish.jsonl:1", "all", &ours, &theirs);

    differences.finish(&[
        "http/publish.jsonl",
        "grpc/publish.jsonl",
        "app/deliveries.jsonl",
        "app/deliveries-of-grpc-publish.jsonl",
    ]);
    daprd.stop().await;
}

/// Waits until the subscriptions that the app asks for are open.
pub(crate) async fn until_subscribed(daprd: &Daprd) {
    let started = std::time::Instant::now();
    while !daprd.http("GET", "/v1.0/metadata", "").await.body.windows(12).any(|text| text == b"PROGRAMMATIC") {
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "no subscriptions; the log: {}", daprd.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// What was delivered to the app, a line each: over HTTP beside what was published, over gRPC alone.
fn deliveries(file: &str) -> Vec<(String, Vec<Value>)> {
    let text = std::fs::read_to_string(super::repository().join("tests/golden").join(file)).expect("a recording");
    let parse = |(index, line): (usize, &str)| {
        let line: Value = serde_json::from_str(line).expect("one JSON object a line");
        let delivered = line.get("delivered").and_then(Value::as_array).cloned();
        (format!("{file}:{}", index + 1), delivered.unwrap_or_else(|| vec![line]))
    };
    text.lines().enumerate().map(parse).collect()
}

/// What reached the app, a line each: over HTTP beside what was invoked, over gRPC alone.
pub(crate) fn recorded_arrivals(file: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(super::repository().join("tests/golden").join(file)).expect("a recording");
    let parse = |(index, line): (usize, &str)| {
        let line: Value = serde_json::from_str(line).expect("one JSON object a line");
        let arrived = line.get("arrived").cloned().unwrap_or_else(|| Value::Array(vec![line]));
        (format!("{file}:{}", index + 1), app::expected(&arrived))
    };
    text.lines().enumerate().map(parse).collect()
}

/// Where the keys of the recordings are.
pub(crate) fn keys_folder() -> String {
    let folder = super::repository().join("tests/golden/keys").canonicalize();
    folder.expect("the keys").to_string_lossy().into_owned()
}

#[tokio::test]
async fn cryptography() {
    let components = KEYS.replace("\"KEYS\"", &format!("{:?}", keys_folder()));
    let options = DaprdOptions { components, ..DaprdOptions::default() };
    story(options, &["http/crypto.jsonl", "http/crypto-documents.jsonl"]).await;
}

#[tokio::test]
async fn conversation() {
    let options = DaprdOptions { components: ECHO.into(), ..DaprdOptions::default() };
    story(options, &["http/conversation.jsonl", "http/conversation-more.jsonl"]).await;
}
