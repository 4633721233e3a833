//! The stories over Redis: state, configuration and locks, each in a database of its own.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    app::App,
    differences::Differences,
    mask::mask,
    recording,
    stories::{configured, recorded_arrivals, replay, story},
    support::{self, Daprd, DaprdOptions},
};

const STATE: &str = r#"
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: rd }
spec:
  type: state.redis
  version: v1
  metadata: [{ name: redisHost, value: "ADDRESS" }, { name: redisDB, value: "7" }]
"#;

const CONFIGURATION: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: conf }
spec:
  type: configuration.redis
  version: v1
  metadata: [{ name: redisHost, value: "ADDRESS" }, { name: redisDB, value: "8" }]
"#;

const LOCK: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: lock }
spec:
  type: lock.redis
  version: v1
  metadata: [{ name: redisHost, value: "ADDRESS" }, { name: redisDB, value: "9" }]
"#;

/// The server's address, or a NOT RUN line.
fn server(story: &str) -> Option<String> {
    support::backend("TRILBY_TEST_REDIS", story)
}

/// Sends commands that the server answers with OK.
async fn tell(address: &str, commands: &[&str]) {
    let mut stream = TcpStream::connect(address).await.expect("Redis answers");
    for command in commands {
        stream.write_all(format!("{command}\r\n").as_bytes()).await.expect("Redis reads");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.expect("Redis answers");
        assert_eq!(&answer, b"+OK\r\n", "{command}");
    }
}

#[tokio::test]
async fn state() {
    let Some(address) = server("golden state-rd") else { return };
    // Etags of Redis count the writes to a key, earlier runs included.
    tell(&address, &["SELECT 7", "FLUSHDB"]).await;
    let mut options = configured();
    options.components += &STATE.replace("ADDRESS", &address);
    story(options, &["http/state-rd.jsonl", "grpc/state-rd.jsonl"]).await;
}

#[tokio::test]
async fn locks() {
    let Some(address) = server("golden lock") else { return };
    tell(&address, &["SELECT 9", "FLUSHDB"]).await;
    let components = LOCK.replace("ADDRESS", &address);
    story(DaprdOptions { components, ..DaprdOptions::default() }, &["http/lock.jsonl"]).await;
}

#[tokio::test]
async fn configuration_and_what_the_app_hears_of_it() {
    let Some(address) = server("golden configuration") else { return };
    tell(&address, &["SELECT 8", "FLUSHDB", "SET color blue||7"]).await;
    let app = App::start().await;
    let components = CONFIGURATION.replace("ADDRESS", &address);
    let options = DaprdOptions { components, app_port: Some(app.server.port), ..DaprdOptions::default() };
    let daprd = Daprd::start(options).await;
    let mut differences = Differences::load();

    replay(&daprd, &recording("http/configuration.jsonl"), &mut differences).await;
    tell(&address, &["SELECT 8", "SET color red||8"]).await;

    let is_update = |call: &Value| call["path"].as_str().is_some_and(|path| path.starts_with("/configuration/"));
    let mut arrived = app.arrivals(|seen| seen.iter().any(is_update)).await;
    arrived.retain(is_update);
    let theirs = recorded_arrivals("app/configuration-updates.jsonl");
    assert_eq!(arrived.len(), theirs.len(), "{arrived:?}");
    for (call, (name, theirs)) in arrived.into_iter().zip(&theirs) {
        let ours = Value::Array(vec![call]).to_string();
        differences.compare(name, "what the app hears of a change", &mask(&ours), &mask(theirs));
    }
    differences.finish(&["http/configuration.jsonl", "app/configuration-updates.jsonl"]);
    daprd.stop().await;
}
