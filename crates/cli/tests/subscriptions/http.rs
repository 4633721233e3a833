//! An app that is an HTTP server.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{DaprdOptions, publish, start, until};
use crate::support::{Daprd, HttpReply, HttpServer};

/// An app that says what it subscribes to, and keeps what it gets.
pub(crate) struct App {
    pub(crate) server: HttpServer,
    events: Arc<Mutex<Vec<(String, Value)>>>,
}

impl App {
    /// `answer` decides by the path.
    pub(crate) async fn start(
        subscriptions: Value,
        answer: impl Fn(&str) -> (u16, &'static str) + Send + Sync + 'static,
    ) -> Self {
        let events = Arc::<Mutex<Vec<(String, Value)>>>::default();
        let kept = Arc::clone(&events);
        let server = HttpServer::start(move |request| {
            if request.path == "/dapr/subscribe" {
                return HttpReply::new(200, subscriptions.to_string());
            }
            if request.method == "POST" {
                let body = serde_json::from_slice(&request.body).unwrap_or_default();
                kept.lock().expect("not poisoned").push((request.path.clone(), body));
            }
            let (status, body) = answer(&request.path);
            HttpReply::new(status, body)
        });
        Self { server: server.await, events }
    }

    pub(crate) async fn daprd(&self, components: &str, args: &str) -> Daprd {
        start(DaprdOptions {
            app_port: Some(self.server.port),
            components: components.to_owned(),
            args: args.split_whitespace().map(str::to_owned).collect(),
            ..DaprdOptions::default()
        })
        .await
    }

    pub(crate) fn seen(&self) -> Vec<(String, Value)> {
        self.events.lock().expect("not poisoned").clone()
    }

    /// The paths and data of the first events.
    pub(crate) async fn got(&self, count: usize) -> Vec<(String, Value)> {
        until("delivery", async || {
            let seen = self.seen();
            let data = |(path, event): &(String, Value)| (path.clone(), event["data"].clone());
            (seen.len() >= count).then(|| seen.iter().map(data).collect())
        })
        .await
    }
}

fn ok(_: &str) -> (u16, &'static str) {
    (200, "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_and_the_app_subscribe_and_the_app_overrules() {
    let asked = json!([
        {"pubsubname": "mypub", "topic": "b", "route": "/own"},
        {"pubsubname": "mypub", "topic": "c", "routes": {"rules": [{"match": "event.data.n > 5", "path": "/big"}], "default": "/small"}},
        {"pubsubname": "mypub", "topic": "none"},
    ]);
    let app = App::start(asked, ok).await;
    let declared = "
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: one}
spec: {pubsubname: mypub, topic: a, route: /a}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: two}
spec: {pubsubname: mypub, topic: b, routes: {default: /declared}}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: another}
spec: {pubsubname: mypub, topic: x, routes: {default: /x}}
scopes: [anotherapp]
";
    let daprd = app.daprd(declared, "").await;
    for (index, (topic, data, path)) in [
        ("a", json!({"n": 1}), "/a"),
        ("b", json!({"n": 2}), "/own"),
        ("c", json!({"n": 9}), "/big"),
        ("c", json!({"n": 3}), "/small"),
        ("x", json!(0), ""),
        ("a", json!({"n": 4}), "/a"),
    ]
    .into_iter()
    .filter(|(_, _, path)| !path.is_empty())
    .enumerate()
    {
        publish(&daprd, topic, &data.to_string()).await;
        assert_eq!(app.got(index + 1).await[index], (path.to_owned(), data), "{topic}");
    }
    let answer = daprd.http("GET", "/v1.0/metadata", "").await;
    let metadata: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let rules = json!([{"match": "event.data.n > 5", "path": "/big"}, {"path": "/small"}]);
    let entry = |topic: &str, rules: Value, origin: &str| json!({"pubsubname": "mypub", "topic": topic, "rules": rules, "deadLetterTopic": "", "type": origin});
    let expect = json!([
        entry("a", json!([{"path": "/a"}]), "DECLARATIVE"),
        entry("b", json!([{"path": "/own"}]), "PROGRAMMATIC"),
        entry("c", rules, "PROGRAMMATIC"),
    ]);
    assert_eq!(metadata["subscriptions"], expect);
    daprd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_goes_to_the_dead_letter_topic_and_what_is_dropped_too() {
    let asked = json!([
        {"pubsubname": "mypub", "topic": "bad", "route": "/bad", "deadLetterTopic": "dead"},
        {"pubsubname": "mypub", "topic": "drop", "route": "/drop", "deadLetterTopic": "dead"},
        {"pubsubname": "mypub", "topic": "dead", "route": "/dead"},
    ]);
    let answer = |path: &str| match path {
        "/bad" => (500, ""),
        "/drop" => (200, r#"{"status":"DROP"}"#),
        _ => (200, ""),
    };
    let app = App::start(asked, answer).await;
    let daprd = app.daprd("", "").await;
    publish(&daprd, "bad", "1").await;
    assert_eq!(app.got(2).await, [("/bad".to_owned(), json!(1)), ("/dead".to_owned(), json!(1))]);
    publish(&daprd, "drop", "2").await;
    assert_eq!(app.got(4).await[2..], [("/drop".to_owned(), json!(2)), ("/dead".to_owned(), json!(2))]);
    daprd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_events_come_in_one_envelope() {
    let bulk = json!({"enabled": true, "maxMessagesCount": 10, "maxAwaitDurationMs": 50});
    let app =
        App::start(json!([{"pubsubname": "mypub", "topic": "t", "route": "/bulk", "bulkSubscribe": bulk}]), |_| {
            (200, r#"{"statuses":[]}"#)
        });
    let app = app.await;
    let daprd = app.daprd("", "").await;
    publish(&daprd, "t", "1").await;
    app.got(1).await;
    let (path, envelope) = app.seen().swap_remove(0);
    assert_eq!((path.as_str(), &envelope["type"]), ("/bulk", &json!("com.dapr.event.sent.bulk")));
    assert_eq!((&envelope["pubsubname"], &envelope["topic"]), (&json!("mypub"), &json!("t")));
    assert_eq!(envelope["entries"][0]["event"]["data"], json!(1));
    assert_eq!(envelope["entries"][0]["contentType"], json!("application/cloudevents+json"));
    daprd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_not_to_be_asked_is_not_asked() {
    let app = App::start(json!([{"pubsubname": "mypub", "topic": "t", "route": "/t"}]), ok).await;
    let daprd = app.daprd("", "--disable-init-endpoints subscribe").await;
    let answer = daprd.http("GET", "/v1.0/metadata", "").await;
    let metadata: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(metadata.get("subscriptions"), None);
    daprd.stop().await;
}

#[tokio::test]
async fn a_declared_rule_that_is_no_cel_is_a_start_error_that_names_it() {
    let components = "
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: broken}
spec: {pubsubname: mypub, topic: t, routes: {rules: [{match: 'event.type =', path: /t}]}}
";
    let mut daprd = Daprd::spawn(DaprdOptions { components: components.to_owned(), ..DaprdOptions::default() }).await;
    assert_ne!(daprd.exit_code().await, Some(0));
    let log = daprd.log();
    let expect = "components.yaml: document 1, line 2: Subscription broken: rule";
    assert!(log.contains(expect) && log.contains("is not CEL"), "{log}");
}
