//! What else a daprd asks of an app that is a gRPC server: its bindings, their events, its health.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};
use tonic::{Request, Response, Status, transport::Server};
use trilby_proto::{
    common::v1::{InvokeRequest, InvokeResponse, StateItem},
    runtime::v1::{
        BindingEventRequest, BindingEventResponse, HealthCheckResponse, ListInputBindingsResponse,
        app_callback_health_check_server::{AppCallbackHealthCheck, AppCallbackHealthCheckServer},
        app_callback_server::{AppCallback, AppCallbackServer},
    },
};

use super::{Daprd, DaprdOptions, start, until};

/// Two schedules, and a store for what replies hold.
const COMPONENTS: &str = r#"
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: tick}
spec: {type: bindings.cron, version: v1, metadata: [{name: schedule, value: "@every 1s"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: unlisted}
spec: {type: bindings.cron, version: v1, metadata: [{name: schedule, value: "@every 1s"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: mem}
spec: {type: state.in-memory, version: v1}
"#;

#[derive(Clone, Default)]
struct App {
    events: Arc<Mutex<Vec<BindingEventRequest>>>,
    /// Whether it says that it is unwell.
    is_unwell: Arc<AtomicBool>,
    checks: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl AppCallback for App {
    async fn list_input_bindings(&self, _: Request<()>) -> Result<Response<ListInputBindingsResponse>, Status> {
        Ok(Response::new(ListInputBindingsResponse { bindings: vec!["tick".into()] }))
    }

    async fn on_binding_event(
        &self,
        request: Request<BindingEventRequest>,
    ) -> Result<Response<BindingEventResponse>, Status> {
        self.events.lock().expect("not poisoned").push(request.into_inner());
        let state = StateItem { key: "ticked".into(), value: "7".into(), ..StateItem::default() };
        Ok(Response::new(BindingEventResponse {
            store_name: "mem".into(),
            states: vec![state],
            ..BindingEventResponse::default()
        }))
    }

    async fn on_invoke(&self, _: Request<InvokeRequest>) -> Result<Response<InvokeResponse>, Status> {
        Ok(Response::new(InvokeResponse::default()))
    }
}

#[tonic::async_trait]
impl AppCallbackHealthCheck for App {
    async fn health_check(&self, _: Request<()>) -> Result<Response<HealthCheckResponse>, Status> {
        self.checks.fetch_add(1, Ordering::Relaxed);
        if self.is_unwell.load(Ordering::Relaxed) {
            return Err(Status::unavailable("not today"));
        }
        Ok(Response::new(HealthCheckResponse {}))
    }
}

impl App {
    async fn start(&self, components: &str, flags: &str) -> (Daprd, JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let callback = AppCallbackServer::new(self.clone());
        let health = AppCallbackHealthCheckServer::new(self.clone());
        let serving = tokio::spawn(async move {
            let server = Server::builder().add_service(callback).add_service(health);
            server.serve_with_incoming(incoming).await.expect("it serves");
        });
        let daprd = start(DaprdOptions {
            app_port: Some(port),
            app_protocol: Some("grpc".into()),
            components: components.into(),
            args: flags.split_whitespace().map(str::to_owned).collect(),
            ..DaprdOptions::default()
        });
        (daprd.await, serving)
    }

    fn names(&self) -> Vec<String> {
        self.events.lock().expect("not poisoned").iter().map(|event| event.name.clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_from_the_bindings_that_the_app_lists_and_its_reply_is_done() {
    let app = App::default();
    let (daprd, serving) = app.start(COMPONENTS, "").await;
    until("two events", async || (app.names().len() >= 2).then_some(())).await;
    assert!(app.names().iter().all(|name| name == "tick"), "{:?}", app.names());
    let event = app.events.lock().expect("not poisoned")[0].clone();
    assert!(event.data.is_empty());
    let names: HashMap<_, _> = event.metadata.iter().map(|(name, value)| (name.as_str(), value.is_empty())).collect();
    assert_eq!(names, HashMap::from([("readTimeUTC", false), ("timeZone", false)]));
    let state = until("the state of the reply", async || {
        let answer = daprd.http("GET", "/v1.0/state/mem/ticked", "").await;
        (answer.status == 200).then_some(answer.body)
    });
    assert_eq!(state.await, "7");
    daprd.stop().await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_says_that_it_is_unwell_gets_no_events_and_no_calls() {
    let app = App::default();
    let flags = "--enable-app-health-check --app-health-probe-interval 1 --app-health-threshold 1";
    let (daprd, serving) = app.start(COMPONENTS, flags).await;
    let status = async || daprd.http("POST", "/v1.0/invoke/myapp/method/m", "").await.status;
    until("an event", async || (!app.names().is_empty()).then_some(())).await;
    assert_eq!(status().await, 200);
    assert!(app.checks.load(Ordering::Relaxed) >= 1);

    app.is_unwell.store(true, Ordering::Relaxed);
    until("illness", async || (status().await == 500).then_some(())).await;
    sleep(Duration::from_millis(100)).await;
    let before = app.names().len();
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(app.names().len(), before);

    app.is_unwell.store(false, Ordering::Relaxed);
    until("health", async || (status().await == 200).then_some(())).await;
    until("an event after that", async || (app.names().len() > before).then_some(())).await;
    daprd.stop().await;
    serving.abort();
}
