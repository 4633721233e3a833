//! Apps whose health is asked for.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use serde_json::{Value, json};

use super::{http::App, publish, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_gets_nothing_while_it_is_unwell() {
    let health = Arc::new(AtomicU16::new(500));
    let answered = Arc::clone(&health);
    let app = App::start(json!([{"pubsubname": "mypub", "topic": "t", "route": "/t"}]), move |path| {
        if path == "/healthz" { (answered.load(Ordering::Relaxed), "") } else { (200, "") }
    });
    let app = app.await;
    let flags = "--enable-app-health-check --app-health-probe-interval 1 --app-health-threshold 1";
    let daprd = app.daprd("", flags).await;
    let status = async || {
        let answer = daprd.http("POST", "/v1.0/invoke/myapp/method/m", "{}").await;
        (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
    };
    let unwell = |(status, body): (u16, String)| {
        let expect = json!({"errorCode": "ERR_DIRECT_INVOKE", "message": "failed to invoke, id: myapp, err: app is not in a healthy state"});
        assert_eq!((status, serde_json::from_str::<Value>(&body).expect("JSON")), (500, expect));
    };
    unwell(status().await);
    publish(&daprd, "t", "0").await;

    health.store(200, Ordering::Relaxed);
    until("health", async || (status().await.0 == 200).then_some(())).await;
    let metadata = daprd.http("GET", "/v1.0/metadata", "").await;
    let metadata: Value = serde_json::from_slice(&metadata.body).expect("JSON");
    assert_eq!(
        metadata["appConnectionProperties"]["health"],
        json!({
            "healthCheckPath": "/healthz", "healthProbeInterval": "1s", "healthProbeTimeout": "500ms", "healthThreshold": 1,
        })
    );
    until("subscription", async || {
        publish(&daprd, "t", "1").await;
        app.seen().iter().any(|(path, event)| path == "/t" && event["data"] == json!(1)).then_some(())
    })
    .await;

    health.store(503, Ordering::Relaxed);
    until("illness", async || (status().await.0 == 500).then_some(())).await;
    let before = app.seen().len();
    publish(&daprd, "t", "2").await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(app.seen().len(), before);
    assert!(app.seen().iter().all(|(_, event)| event["data"] != json!(0)), "published before it was well");
    daprd.stop().await;
}
