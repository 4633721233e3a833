//! An app that is a gRPC server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, transport::Server};
use trilby_proto::runtime::v1::{
    BulkSubscribeConfig, ListTopicSubscriptionsResponse, TopicEventBulkRequest, TopicEventBulkResponse,
    TopicEventBulkResponseEntry, TopicEventRequest, TopicEventResponse, TopicRoutes, TopicRule, TopicSubscription,
    app_callback_alpha_server::{AppCallbackAlpha, AppCallbackAlphaServer},
    app_callback_server::{AppCallback, AppCallbackServer},
    topic_event_bulk_request_entry::Event,
    topic_event_response::TopicEventResponseStatus,
};

use super::{DaprdOptions, publish, start, until};

/// What a handler got: path, data, and what the call said besides.
type Seen = Arc<Mutex<Vec<(String, Vec<u8>, HashMap<String, String>)>>>;

#[derive(Clone, Default)]
struct App {
    seen: Seen,
}

fn topic(topic: &str, routes: Option<TopicRoutes>, dead: &str, bulk: bool) -> TopicSubscription {
    TopicSubscription {
        pubsub_name: "mypub".into(),
        topic: topic.into(),
        metadata: HashMap::new(),
        routes,
        dead_letter_topic: dead.into(),
        bulk_subscribe: bulk.then_some(BulkSubscribeConfig {
            enabled: true,
            max_messages_count: 2,
            max_await_duration_ms: 20,
        }),
    }
}

#[tonic::async_trait]
impl AppCallback for App {
    async fn list_topic_subscriptions(
        &self,
        _: Request<()>,
    ) -> Result<Response<ListTopicSubscriptionsResponse>, Status> {
        let rule = TopicRule { r#match: "event.type == \"com.dapr.event.sent\"".into(), path: "/ruled".into() };
        let ruled = TopicRoutes { rules: vec![rule], default: "/default".into() };
        Ok(Response::new(ListTopicSubscriptionsResponse {
            subscriptions: vec![
                topic("plain", None, "", false),
                topic("ruled", Some(ruled), "", false),
                topic("bad", None, "dead", false),
                topic("dead", Some(TopicRoutes { rules: Vec::new(), default: "/dead".into() }), "", false),
                topic("bulk", None, "", true),
            ],
        }))
    }

    async fn on_topic_event(
        &self,
        request: Request<TopicEventRequest>,
    ) -> Result<Response<TopicEventResponse>, Status> {
        let metadata = request.metadata();
        let said = ["pubsubname", "dapr-api-token"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), metadata.get(name)?.to_str().ok()?.to_owned())));
        let said = said.collect();
        let event = request.into_inner();
        self.seen.lock().expect("not poisoned").push((event.path, event.data.to_vec(), said));
        if event.topic == "bad" {
            return Err(Status::aborted("no"));
        }
        Ok(Response::new(TopicEventResponse { status: TopicEventResponseStatus::Success.into() }))
    }
}

#[tonic::async_trait]
impl AppCallbackAlpha for App {
    async fn on_bulk_topic_event_alpha1(
        &self,
        request: Request<TopicEventBulkRequest>,
    ) -> Result<Response<TopicEventBulkResponse>, Status> {
        let request = request.into_inner();
        let mut statuses = Vec::new();
        for entry in request.entries {
            let Some(Event::CloudEvent(event)) = entry.event else { return Err(Status::internal("no event")) };
            let path = format!("bulk {}", event.r#type);
            self.seen.lock().expect("not poisoned").push((path, event.data.to_vec(), request.metadata.clone()));
            let status = TopicEventResponseStatus::Success.into();
            statuses.push(TopicEventBulkResponseEntry { entry_id: entry.entry_id, status });
        }
        Ok(Response::new(TopicEventBulkResponse { statuses }))
    }
}

impl App {
    async fn serve(&self) -> (u16, JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let (callback, alpha) = (AppCallbackServer::new(self.clone()), AppCallbackAlphaServer::new(self.clone()));
        let serving = async move {
            let server = Server::builder().add_service(callback).add_service(alpha);
            server.serve_with_incoming(incoming).await.expect("it serves");
        };
        (port, tokio::spawn(serving))
    }

    async fn last(&self, count: usize) -> (String, Vec<u8>, HashMap<String, String>) {
        until("delivery", async || {
            let seen = self.seen.lock().expect("not poisoned");
            (seen.len() >= count).then(|| seen.last().expect("some").clone())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_callbacks_and_statuses_are_answers() {
    let app = App::default();
    let (port, serving) = app.serve().await;
    let daprd = start(DaprdOptions {
        app_port: Some(port),
        app_protocol: Some("grpc".into()),
        env: vec![("APP_API_TOKEN", "secret".into())],
        ..DaprdOptions::default()
    })
    .await;

    publish(&daprd, "plain", r#"{"n":1}"#).await;
    let (path, data, said) = app.last(1).await;
    assert_eq!((path.as_str(), data.as_slice()), ("", br#"{"n":1}"#.as_slice()));
    assert_eq!((said["pubsubname"].as_str(), said["dapr-api-token"].as_str()), ("mypub", "secret"));

    publish(&daprd, "ruled", "2").await;
    assert_eq!(app.last(2).await.0, "/ruled");

    publish(&daprd, "bad", "3").await;
    let (path, data, _) = app.last(4).await;
    assert_eq!((path.as_str(), data.as_slice()), ("/dead", b"3".as_slice()));

    // The app has only the older of the two calls.
    publish(&daprd, "bulk", "4").await;
    let (path, data, said) = app.last(5).await;
    assert_eq!((path.as_str(), data.as_slice()), ("bulk com.dapr.event.sent", b"4".as_slice()));
    assert_eq!(said["pubsubName"], "mypub");

    daprd.stop().await;
    serving.abort();
}
