//! The stories of metadata: what a daprd with many components and an app says of itself, and that it ends when told to.

use std::fmt::Write as _;

use super::{
    Line,
    app::App,
    differences::Differences,
    recording,
    stories::{SECRETS, keys_folder, replay, until_subscribed},
    support::{self, Daprd, DaprdOptions},
};

/// Name, type and metadata of each component of the recording with an app, in its order.
const WITH_APP: [(&str, &str, &str); 10] = [
    ("sec", "secretstores.local.file", r#"{ name: secretsFile, value: "FILES/secrets.json" }"#),
    ("ps", "pubsub.in-memory", ""),
    ("mem", "state.in-memory", ""),
    ("files", "bindings.localstorage", r#"{ name: rootPath, value: "FILES/files" }"#),
    ("web", "bindings.http", r#"{ name: url, value: "http://127.0.0.1:1" }"#),
    ("tick", "bindings.cron", r#"{ name: schedule, value: "@every 1h" }"#),
    ("lock", "lock.redis", r#"{ name: redisHost, value: "ADDRESS" }"#),
    ("conf", "configuration.redis", r#"{ name: redisHost, value: "ADDRESS" }"#),
    ("keys", "crypto.dapr.localstorage", r#"{ name: path, value: "KEYS" }"#),
    ("echo", "conversation.echo", ""),
];

/// Those of the recording with state stores.
const WITH_STATE: [(&str, &str, &str); 9] = [
    ("sec", "secretstores.local.file", r#"{ name: secretsFile, value: "FILES/secrets.json" }"#),
    ("mem", "state.in-memory", ""),
    ("sq", "state.sqlite", r#"{ name: connectionString, value: "FILES/sq.db" }"#),
    ("rd", "state.redis", r#"{ name: redisHost, value: "ADDRESS" }"#),
    ("kname", "state.in-memory", "{ name: keyPrefix, value: name }"),
    ("knone", "state.sqlite", r#"{ name: connectionString, value: "FILES/knone.db" }"#),
    ("kns", "state.sqlite", r#"{ name: connectionString, value: "FILES/kns.db" }"#),
    ("kx", "state.sqlite", r#"{ name: connectionString, value: "FILES/kx.db" }"#),
    ("enc", "state.sqlite", r#"{ name: connectionString, value: "FILES/enc.db" }"#),
];

fn options(components: &[(&str, &str, &str)], redis: &str) -> DaprdOptions {
    let mut text = String::new();
    for (name, kind, metadata) in components {
        let metadata = metadata.replace("ADDRESS", redis).replace("KEYS", &keys_folder());
        let _ = write!(
            text,
            "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: {name} }}\n\
             spec: {{ type: {kind}, version: v1, metadata: [{metadata}] }}\n"
        );
    }
    DaprdOptions { components: text, files: vec![("secrets.json", SECRETS.into())], ..DaprdOptions::default() }
}

/// The recording with our app's port in it.
fn lines(file: &str, app_port: u16) -> Vec<Line> {
    let mut lines = recording(file);
    for body in lines.iter_mut().filter_map(|line| line.response.get_mut("body")) {
        *body = body.as_str().expect("text").replace("@APP@", &app_port.to_string()).into();
    }
    lines
}

#[tokio::test]
async fn of_everything_with_an_app() {
    let Some(redis) = support::backend("TRILBY_TEST_REDIS", "golden metadata-app") else { return };
    let app = App::start().await;
    let options = DaprdOptions { app_port: Some(app.server.port), ..options(&WITH_APP, &redis) };
    let mut daprd = Daprd::start(options).await;
    until_subscribed(&daprd).await;
    let mut differences = Differences::load();
    replay(&daprd, &lines("http/metadata-app.jsonl", app.server.port), &mut differences).await;
    differences.finish(&["http/metadata-app.jsonl"]);
    // The last line asked for that.
    assert_eq!(daprd.exit_code().await, Some(0));
}

#[tokio::test]
async fn of_state_stores() {
    let Some(redis) = support::backend("TRILBY_TEST_REDIS", "golden metadata-state") else { return };
    let daprd = Daprd::start(options(&WITH_STATE, &redis)).await;
    let mut differences = Differences::load();
    let files = ["http/metadata-state.jsonl", "grpc/metadata-state.jsonl"];
    for file in files {
        replay(&daprd, &lines(file, 0), &mut differences).await;
    }
    differences.finish(&files);
    daprd.stop().await;
}
