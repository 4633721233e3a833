//! The stories of bindings: calls out, and what a schedule brings to the app.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{
    Line,
    app::App,
    differences::Differences,
    mask::mask,
    recording,
    stories::{brief, recorded_arrivals, replay},
    support::{Daprd, DaprdOptions},
};

/// The components of the recordings. `APP` is the port of the app.
const BINDINGS: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: files }
spec: { type: bindings.localstorage, version: v1, metadata: [{ name: rootPath, value: "FILES/files" }] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: web }
spec: { type: bindings.http, version: v1, metadata: [{ name: url, value: "http://127.0.0.1:APP/web" }] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: tick }
spec: { type: bindings.cron, version: v1, metadata: [{ name: schedule, value: "SCHEDULE" }] }
"#;

/// Where the recorded daprd had the files.
const RECORDED_FILES: &str = "/tmp/golden-files";

async fn start(app: &App, schedule: &str) -> Daprd {
    let components = BINDINGS.replace("APP", &app.server.port.to_string()).replace("SCHEDULE", schedule);
    let options = DaprdOptions { components, app_port: Some(app.server.port), ..DaprdOptions::default() };
    Daprd::start(options).await
}

/// The recording with our folder in it.
fn lines(files: &str) -> Vec<Line> {
    let mut lines = recording("http/bindings.jsonl");
    for Line { response, .. } in &mut lines {
        for path in ["/body", "/message"] {
            if let Some(text) = response.pointer_mut(path)
                && let Some(recorded) = text.as_str()
            {
                *text = recorded.replace("@FILES@", files).into();
            }
        }
        if let Some(data) = response.pointer_mut("/message/data") {
            let recorded = STANDARD.decode(data.as_str().expect("base64")).expect("base64");
            let recorded = String::from_utf8(recorded).expect("UTF-8").replace(RECORDED_FILES, files);
            *data = STANDARD.encode(recorded).into();
        }
    }
    lines
}

#[tokio::test]
async fn calls() {
    let app = App::start().await;
    // It never comes: what it would bring is another story.
    let daprd = start(&app, "0 0 1 1 *").await;
    let files = std::fs::canonicalize(daprd.files()).expect("a folder").join("files");
    let mut differences = Differences::load();
    let mut arrivals = recorded_arrivals("app/binding-calls.jsonl").into_iter();
    app.arrivals(|seen| seen.iter().any(|call| call["method"] == "OPTIONS")).await;

    for line in lines(&files.to_string_lossy()) {
        replay(&daprd, std::slice::from_ref(&line), &mut differences).await;
        let ours = app.take();
        if ours == "[]" {
            continue; // Only calls that arrived were recorded.
        }
        let Some((name, theirs)) = arrivals.next() else { panic!("{} arrived but was not recorded", line.name) };
        differences.compare(&name, &brief(&line.request), &ours, &theirs);
    }
    assert_eq!(arrivals.count(), 0, "every recorded call arrived");
    differences.finish(&["http/bindings.jsonl", "app/binding-calls.jsonl"]);
    daprd.stop().await;
}

#[tokio::test]
async fn start_and_schedule() {
    let app = App::start().await;
    let daprd = start(&app, "@every 1s").await;
    // The first two are questions about actors, which this build has not, and about topics, which are asked only where
    // there is a broker.
    let theirs = recorded_arrivals("app/startup-and-cron.jsonl").split_off(2);
    let ours = app.arrivals(|seen| seen.len() >= theirs.len()).await;
    let mut differences = Differences::load();
    for (call, (name, theirs)) in ours.iter().zip(&theirs) {
        let ours = Value::Array(vec![call.clone()]).to_string();
        differences.compare(name, "what reaches the app by itself", &mask(&ours), &mask(theirs));
    }
    differences.finish(&["app/startup-and-cron.jsonl"]);
    daprd.stop().await;
}
