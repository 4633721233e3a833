//! Apps whose health is asked for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
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
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(app.seen().len(), before);
    assert!(app.seen().iter().all(|(_, event)| event["data"] != json!(0)), "published before it was well");
    daprd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_is_to_wait_takes_no_more_events_and_goes_on_serving() {
    let app = App::start(json!([{"pubsubname": "mypub", "topic": "t", "route": "/t"}]), |_| (200, "")).await;
    let mut daprd = app.daprd("", "--dapr-block-shutdown-duration 2s").await;
    until("subscription", async || {
        publish(&daprd, "t", "1").await;
        (!app.seen().is_empty()).then_some(())
    })
    .await;
    let told = Instant::now();
    daprd.signal("TERM").await;
    until("the end of deliveries", async || {
        daprd.log().contains("Blocking graceful shutdown for 2s or until app reports unhealthy...").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = app.seen().len();
    publish(&daprd, "t", "2").await;
    assert_eq!(daprd.http("POST", "/v1.0/invoke/myapp/method/m", "{}").await.status, 200);
    assert_eq!(daprd.exit_code().await, Some(0));
    let took = told.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&took), "{took:?}");
    let seen = app.seen();
    assert!(seen[before..].iter().all(|(path, _)| path == "/m"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_no_longer_than_the_app_is_well() {
    let health = Arc::new(AtomicU16::new(200));
    let answered = Arc::clone(&health);
    let app =
        App::start(
            json!([]),
            move |path| {
                if path == "/healthz" { (answered.load(Ordering::Relaxed), "") } else { (200, "") }
            },
        );
    let app = app.await;
    let flags = "--dapr-block-shutdown-duration 10m --enable-app-health-check --app-health-probe-interval 1 \
                 --app-health-threshold 1";
    let mut daprd = app.daprd("", flags).await;
    until("health", async || {
        (daprd.http("POST", "/v1.0/invoke/myapp/method/m", "{}").await.status == 200).then_some(())
    })
    .await;
    daprd.signal("TERM").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(daprd.http("GET", "/v1.0/metadata", "").await.status, 200, "it goes on serving");
    health.store(500, Ordering::Relaxed);
    assert_eq!(daprd.exit_code().await, Some(0));
}
