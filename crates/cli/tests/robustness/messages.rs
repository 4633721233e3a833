//! `kill -9` in the midst of messages: whatever a publisher was told is published reaches the app in the end.
//!
//! `TRILBY_TEST_KILLS` says how often each broker's runtime is killed: 3 unless it is set, 50 for a long run.

use std::{
    collections::{HashMap, HashSet},
    env,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::{
    JSON, eventually,
    support::{Daprd, DaprdOptions, HttpConnection, HttpReply, HttpRequest, HttpServer, backend},
};

const PUBLISHERS: usize = 4;

/// A broker to put under load.
struct Broker {
    type_name: &'static str,
    /// Where one is; nothing is tested without it.
    variable: &'static str,
    /// `spec.metadata` as YAML flow pairs. `ADDRESS` stands for the broker's, `RUN` for a word of this run alone.
    metadata: &'static str,
}

/// An app that notes the ids of the messages which it gets.
struct Consumer {
    server: HttpServer,
    seen: Arc<Mutex<HashMap<String, u64>>>,
}

impl Consumer {
    async fn start(topic: &str) -> Self {
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let (notes, topic) = (Arc::clone(&seen), topic.to_owned());
        let server = HttpServer::start(move |request: HttpRequest| match request.path.as_str() {
            "/dapr/subscribe" => {
                HttpReply::new(200, json!([{ "pubsubname": "ps", "topic": topic, "route": "/storm" }]).to_string())
            }
            "/storm" => {
                let event: Value = serde_json::from_slice(&request.body).expect("an event");
                let id = event["data"]["id"].as_str().expect("an id").to_owned();
                *notes.lock().expect("nobody panics").entry(id).or_insert(0) += 1;
                HttpReply::new(200, "")
            }
            _ => HttpReply::new(404, ""),
        });
        Self { server: server.await, seen }
    }

    fn missing<'a>(&self, published: &'a HashSet<String>) -> Vec<&'a String> {
        let seen = self.seen.lock().expect("nobody panics");
        published.iter().filter(|id| !seen.contains_key(*id)).collect()
    }
}

fn kills() -> usize {
    env::var("TRILBY_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// A word of this run alone: topic, consumer and group.
fn run() -> String {
    format!("storm-{}", std::process::id())
}

/// Between 200 and 1000 ms, so that kills hit different moments.
fn moment() -> Duration {
    Duration::from_millis(200 + RandomState::new().hash_one(0) % 800)
}

/// Publishes until the connection breaks; the ids of the messages that were acknowledged.
async fn publish(port: u16, path: String, prefix: String) -> Vec<String> {
    let mut connection = HttpConnection::open(port).await.expect("daprd listens");
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let id = format!("{prefix}-{number}");
        let body = json!({ "id": id }).to_string();
        match connection.send("POST", &path, JSON, body.as_bytes()).await {
            Some(answer) if answer.status == 204 => acknowledged.push(id),
            // The broker may refuse while it sorts out who is gone. What is not acknowledged may be lost.
            Some(_) => sleep(Duration::from_millis(20)).await,
            None => break,
        }
    }
    acknowledged
}

async fn storm(broker: &Broker) {
    let Some(address) = backend(broker.variable, &format!("{}: kill -9 under load", broker.type_name)) else { return };
    let run = run();
    let consumer = Consumer::start(&run).await;
    let metadata = broker.metadata.replace("ADDRESS", &address).replace("RUN", &run);
    let start = || {
        let components = format!(
            "{{apiVersion: dapr.io/v1alpha1, kind: Component, metadata: {{name: ps}}, spec: {{type: {}, version: v1, \
             initTimeout: 30s, metadata: [{metadata}]}}}}\n",
            broker.type_name
        );
        Daprd::start(DaprdOptions { components, app_port: Some(consumer.server.port), ..DaprdOptions::default() })
    };

    let mut published = HashSet::new();
    for round in 0..kills() {
        let daprd = start().await;
        let (port, path) = (daprd.http_port, format!("/v1.0/publish/ps/{run}"));
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| tokio::spawn(publish(port, path.clone(), format!("{round}-{publisher}"))))
            .collect();
        sleep(moment()).await;
        daprd.kill().await;
        for publisher in publishers {
            published.extend(publisher.await.expect("no panic"));
        }
    }

    let daprd = start().await;
    eventually(Duration::from_secs(90), "delivery of what was acknowledged", async || {
        consumer.missing(&published).is_empty()
    })
    .await;
    let seen = consumer.seen.lock().expect("nobody panics").values().copied().collect::<Vec<_>>();
    let again: u64 = seen.iter().map(|times| times - 1).sum();
    println!(
        "{}: {} messages acknowledged over {} kills, all delivered; {again} delivered again",
        broker.type_name,
        published.len(),
        kills()
    );
    assert!(!published.is_empty(), "nothing was published; the log: {}", daprd.log());
    daprd.stop().await;
}

#[tokio::test]
async fn redis_loses_no_acknowledged_message() {
    storm(&Broker {
        type_name: "pubsub.redis",
        variable: "TRILBY_TEST_REDIS",
        metadata: "{name: redisHost, value: 'ADDRESS'}, {name: consumerID, value: RUN}, \
                   {name: processingTimeout, value: 1s}, {name: redeliverInterval, value: 500ms}",
    })
    .await;
}

/// A stream for the topic of this run: JetStream keeps only what a stream asks for.
async fn create_stream(address: &str) {
    let authority = address.trim_start_matches("nats://");
    let mut stream = TcpStream::connect(authority).await.expect("NATS answers");
    let run = run();
    let wanted = json!({ "name": run, "subjects": [run] }).to_string();
    let request = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB made 1\r\nPUB $JS.API.STREAM.CREATE.{run} made {}\r\n{wanted}\r\n",
        wanted.len()
    );
    stream.write_all(request.as_bytes()).await.expect("NATS reads");
    let mut answer = String::new();
    while !answer.contains("MSG made") {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).await.expect("NATS answers");
        assert!(length > 0, "NATS hung up: {answer}");
        answer += &String::from_utf8_lossy(&bytes[..length]);
    }
}

#[tokio::test]
async fn jetstream_loses_no_acknowledged_message() {
    if let Ok(address) = env::var("TRILBY_TEST_NATS") {
        create_stream(&address).await;
    }
    storm(&Broker {
        type_name: "pubsub.jetstream",
        variable: "TRILBY_TEST_NATS",
        metadata: "{name: natsURL, value: 'ADDRESS'}, {name: durableName, value: RUN}, {name: ackWait, value: 2s}",
    })
    .await;
}

#[tokio::test]
async fn rabbitmq_loses_no_acknowledged_message() {
    storm(&Broker {
        type_name: "pubsub.rabbitmq",
        variable: "TRILBY_TEST_RABBITMQ",
        metadata: "{name: connectionString, value: 'ADDRESS'}, {name: consumerID, value: RUN}, \
                   {name: durable, value: 'true'}, {name: deletedWhenUnused, value: 'false'}, \
                   {name: deliveryMode, value: '2'}, {name: publisherConfirm, value: 'true'}, \
                   {name: requeueInFailure, value: 'true'}",
    })
    .await;
}

#[tokio::test]
async fn mqtt_loses_no_acknowledged_message() {
    storm(&Broker {
        type_name: "pubsub.mqtt3",
        variable: "TRILBY_TEST_MQTT",
        metadata: "{name: url, value: 'ADDRESS'}, {name: consumerID, value: RUN}, {name: qos, value: '1'}, \
                   {name: cleanSession, value: 'false'}",
    })
    .await;
}

#[tokio::test]
async fn kafka_loses_no_acknowledged_message() {
    storm(&Broker {
        type_name: "pubsub.kafka",
        variable: "TRILBY_TEST_KAFKA",
        metadata: "{name: brokers, value: 'ADDRESS'}, {name: authType, value: none}, \
                   {name: consumerGroup, value: RUN}, {name: initialOffset, value: oldest}, \
                   {name: sessionTimeout, value: 6s}",
    })
    .await;
}
