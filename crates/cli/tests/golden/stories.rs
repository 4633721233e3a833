//! The stories: which recordings are replayed, against a daprd set up as the recorded one was.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    Line,
    app::{self, App},
    differences::Differences,
    grpc::{self, Messages},
    http, recording,
    support::{self, Daprd, DaprdOptions},
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

const REDIS: &str = r#"
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: rd }
spec:
  type: state.redis
  version: v1
  metadata: [{ name: redisHost, value: "ADDRESS" }, { name: redisDB, value: "7" }]
"#;

const SECRETS: &str = r#"{
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

fn configured() -> DaprdOptions {
    DaprdOptions {
        components: COMPONENTS.into(),
        files: vec![("secrets.json", SECRETS.into())],
        ..DaprdOptions::default()
    }
}

/// Replays lines in order; a story may mix HTTP and gRPC.
async fn replay(daprd: &Daprd, lines: &[Line], differences: &mut Differences) {
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

fn brief(request: &Value) -> String {
    request.to_string().chars().take(200).collect()
}

async fn story(options: DaprdOptions, files: &[&str]) {
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
async fn state_redis() {
    let Some(address) = support::backend("TRILBY_TEST_REDIS", "golden state-rd") else { return };
    empty_redis(&address).await;
    let mut options = configured();
    options.components += &REDIS.replace("ADDRESS", &address);
    story(options, &["http/state-rd.jsonl", "grpc/state-rd.jsonl"]).await;
}

/// Empties the database of this story: etags of Redis count the writes to a key, earlier runs included.
async fn empty_redis(address: &str) {
    let mut stream = TcpStream::connect(address).await.expect("Redis answers");
    stream.write_all(b"SELECT 7\r\nFLUSHDB\r\n").await.expect("Redis reads");
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await.expect("Redis answers");
    assert_eq!(&answer, b"+OK\r\n+OK\r\n");
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

/// What reached the app, a line each: over HTTP beside what was invoked, over gRPC alone.
fn recorded_arrivals(file: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(super::repository().join("tests/golden").join(file)).expect("a recording");
    let parse = |(index, line): (usize, &str)| {
        let line: Value = serde_json::from_str(line).expect("one JSON object a line");
        let arrived = line.get("arrived").cloned().unwrap_or_else(|| Value::Array(vec![line]));
        (format!("{file}:{}", index + 1), app::expected(&arrived))
    };
    text.lines().enumerate().map(parse).collect()
}
