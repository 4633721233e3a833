//! Resiliency resources at work in a daprd: calls to its app, and resources that are none.

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{Daprd, DaprdOptions, HttpReply, HttpServer, free_port, http};
use trilby_proto::{
    common::v1::{HttpExtension, InvokeRequest, http_extension::Verb},
    runtime::v1::{GetMetadataRequest, InvokeServiceRequest, dapr_client::DaprClient},
};

const POLICIES: &str = "
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: myresiliency}
spec:
  policies:
    timeouts: {quick: 300ms}
    retries:
      some: {policy: constant, duration: 10ms, maxRetries: 3, matching: {httpStatusCodes: '500,502-504'}}
    circuitBreakers:
      sensitive: {maxRequests: 1, interval: 0, timeout: 1s, trip: consecutiveFailures >= 3}
  targets:
    apps:
      myapp: POLICY
";

/// An app that answers with the status that its path says, and how often it was called.
struct App {
    server: HttpServer,
    calls: Arc<AtomicU32>,
}

impl App {
    async fn start() -> Self {
        let calls = Arc::<AtomicU32>::default();
        let counted = Arc::clone(&calls);
        let server = HttpServer::start(move |request| {
            if request.path.contains("healthz") || request.path.contains("dapr") {
                return HttpReply::new(404, "");
            }
            counted.fetch_add(1, Ordering::Relaxed);
            HttpReply::new(request.path.trim_start_matches('/').parse().unwrap_or(200), request.body)
        });
        Self { server: server.await, calls }
    }

    /// The calls since it was asked last.
    fn calls(&self) -> u32 {
        self.calls.swap(0, Ordering::Relaxed)
    }

    async fn daprd(&self, policy: &str, metrics: u16) -> Daprd {
        daprd(self.server.port, policy, metrics).await
    }
}

/// A daprd with this policy for calls to its app.
async fn daprd(app_port: u16, policy: &str, metrics: u16) -> Daprd {
    Daprd::start(DaprdOptions {
        app_port: Some(app_port),
        components: POLICIES.replace("POLICY", policy),
        args: vec!["--enable-metrics=true".into(), "--metrics-port".into(), metrics.to_string()],
        ..DaprdOptions::default()
    })
    .await
}

/// An app that takes requests for `/hang` and answers them never, and others with 404. Its port.
fn hanging_app() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut start = [0; 1024];
            let length = stream.read(&mut start).unwrap_or(0);
            if String::from_utf8_lossy(&start[..length]).contains("/hang ") {
                kept.push(stream);
            } else {
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        }
    });
    port
}

async fn call(daprd: &Daprd, method: &str) -> (u16, String) {
    let answer = daprd.http("POST", &format!("/v1.0/invoke/myapp/method/{method}"), "body").await;
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

async fn metrics(port: u16) -> String {
    let answer = http(port, "GET", "/", &[], b"").await.expect("metrics");
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[track_caller]
fn check_metric(metrics: &str, name: &str, policy: &str, status: &str, value: u32) {
    let line = format!(
        "dapr_resiliency_{name}{{app_id=\"myapp\",flow_direction=\"outbound\",name=\"myresiliency\",namespace=\"\",policy=\"{policy}\",status=\"{status}\",target=\"app_myapp\"}} {value}\n"
    );
    assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
}

#[tokio::test]
async fn a_call_is_tried_again_with_its_body_and_the_last_answer_is_passed_on_through_both_doors() {
    let (app, port) = (App::start().await, free_port().await);
    let daprd = app.daprd("{retry: some}", port).await;
    for (status, calls) in [(200, 1), (404, 1), (500, 4), (503, 4)] {
        assert_eq!(call(&daprd, &status.to_string()).await, (status, "body".to_owned()));
        assert_eq!(app.calls(), calls, "{status} over HTTP");
        let message = InvokeRequest {
            method: status.to_string(),
            http_extension: Some(HttpExtension { verb: Verb::Post.into(), querystring: String::new() }),
            ..InvokeRequest::default()
        };
        let request = InvokeServiceRequest { id: "myapp".into(), message: Some(message) };
        let answer = DaprClient::new(daprd.grpc_channel()).invoke_service(request).await;
        assert_eq!(answer.is_ok(), status == 200, "{answer:?}");
        assert_eq!(app.calls(), calls, "{status} over gRPC");
    }
    let metrics = metrics(port).await;
    assert!(metrics.contains("dapr_resiliency_loaded{app_id=\"myapp\",name=\"myresiliency\",namespace=\"\"} 1\n"));
    check_metric(&metrics, "count", "retry", "", 8);
    check_metric(&metrics, "activations_total", "retry", "", 4);

    let answer = daprd.http("GET", "/v1.0/metadata", "").await;
    let metadata: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(metadata["resiliencies"], serde_json::json!([{"name": "myresiliency"}]));
    let metadata = DaprClient::new(daprd.grpc_channel()).get_metadata(GetMetadataRequest {}).await;
    assert_eq!(metadata.expect("metadata").into_inner().resiliencies[0].name, "myresiliency");
    daprd.stop().await;
}

#[tokio::test]
async fn a_breaker_opens_for_one_method_and_closes_again() {
    let (app, port) = (App::start().await, free_port().await);
    let daprd = app.daprd("{circuitBreaker: sensitive}", port).await;
    for _ in 0..3 {
        assert_eq!(call(&daprd, "500").await.0, 500);
    }
    assert_eq!(app.calls(), 3);
    let (status, body) = call(&daprd, "500").await;
    let expect =
        r#"{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: myapp, err: circuit breaker is open"}"#;
    assert_eq!((status, body.as_str()), (500, expect));
    assert_eq!(app.calls(), 0);
    assert_eq!(call(&daprd, "201").await.0, 201, "another method has another breaker");
    check_metric(&metrics(port).await, "activations_total", "circuitbreaker", "open", 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    app.calls();
    assert_eq!(call(&daprd, "500").await.1, "body", "half open, one call goes through");
    assert_eq!(app.calls(), 1);
    check_metric(&metrics(port).await, "cb_state", "circuitbreaker", "half-open", 1);
    daprd.stop().await;
}

#[tokio::test]
async fn an_app_that_hangs_is_given_up() {
    let port = free_port().await;
    let daprd = daprd(hanging_app(), "{timeout: quick}", port).await;
    let began = Instant::now();
    let (status, body) = call(&daprd, "hang").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let expect =
        r#"{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: myapp, err: context deadline exceeded"}"#;
    assert_eq!((status, body.as_str()), (500, expect));
    check_metric(&metrics(port).await, "activations_total", "timeout", "", 1);
    daprd.stop().await;
}

#[tokio::test]
async fn a_resource_that_is_none_is_named_and_daprd_goes_without_it() {
    for (spec, expect) in [
        (
            "{policies: {retries: {DefaultAppRetryPolicy: {matching: {gRPCStatusCodes: 400}}}}}",
            "spec.policies.retries.DefaultAppRetryPolicy.matching.gRPCStatusCodes",
        ),
        ("{policies: {timeouts: {t: soon}}}", "spec.policies.timeouts.t"),
        ("{policies: {circuitBreakers: {c: {trip: consecutiveFailures >}}}}", "spec.policies.circuitBreakers.c.trip"),
    ] {
        let components =
            format!("apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: myresiliency}}\nspec: {spec}\n");
        let daprd = Daprd::start(DaprdOptions { components, ..DaprdOptions::default() }).await;
        let log = daprd.log();
        for part in ["Could not read resiliency policy myresiliency", expect, "components.yaml"] {
            assert!(log.contains(part), "no {part:?} in {log}");
        }
        daprd.stop().await;
    }
    let unknown = POLICIES.replace("POLICY", "{retry: other}");
    let daprd = Daprd::start(DaprdOptions { components: unknown, ..DaprdOptions::default() }).await;
    let part = "spec.targets.apps.myapp.retry names the policy other";
    assert!(daprd.log().contains(part), "no {part:?} in {}", daprd.log());
    daprd.stop().await;
}
