//! High-throughput message processing: a producer fills a topic, a sandboxed guest enriches each message from state and
//! publishes the result, and a consumer checks that nothing is lost, doubled or out of order within a sensor.
//!
//! Everything is in this process: the broker, the store and the guest. `--pubsub FILE.yaml` puts a real broker behind it.
//!
//! `cargo xtask guests && cargo run --release -p pipeline`

mod tally;

use std::{
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use tokio::{sync::Semaphore, time::sleep};
use trilby::{
    Api, AppSpec, Ctx, Trilby,
    component::{Metadata, state},
    core::pubsub::{Outcome, Publish, StreamRequest},
};

use crate::tally::{Costs, Tally};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SENSORS: usize = 64;
const STATE: &str = "{apiVersion: dapr.io/v1alpha1, kind: Component, metadata: {name: statestore},
 spec: {type: state.in-memory, version: v1, metadata: [{name: keyPrefix, value: none}]}}";
const BROKER: &str = "{apiVersion: dapr.io/v1alpha1, kind: Component, metadata: {name: pubsub},
 spec: {type: pubsub.in-memory, version: v1}}";

/// Enriches messages as fast as it can, and checks that none is lost
#[derive(Parser)]
struct Options {
    /// How many messages.
    #[arg(long, default_value_t = 200_000)]
    messages: usize,
    /// Most messages on their way at once: more of them, more throughput and more latency.
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// A Component `pubsub` to use instead of the embedded broker.
    #[arg(long)]
    pubsub: Option<PathBuf>,
    /// The guest.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/wasm/enricher.wasm"))]
    guest: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let broker = match &options.pubsub {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => BROKER.to_owned(),
    };
    let trilby = Trilby::builder()
        .resources_text("state", STATE)
        .resources_text("broker", &broker)
        .app(AppSpec::wasm("enricher", &options.guest))
        .app(AppSpec::caller("meter"))
        .start()
        .await?;
    let api = trilby.api("meter").ok_or("the meter runs")?.clone();
    describe_sensors(&api).await?;
    let mut enriched = api.pubsub.stream(&Ctx::default(), topic("enriched")).await?;
    while trilby.api("enricher").is_some_and(|api| api.health.check().is_err()) {
        sleep(Duration::from_millis(10)).await;
    }

    let room = Arc::new(Semaphore::new(options.in_flight));
    let costs = Costs::begin()?;
    let producer = tokio::spawn(produce(api, Arc::clone(&room), options.messages));
    let mut tally = Tally::new(SENSORS, options.messages);
    while !tally.is_complete() {
        let next = tokio::time::timeout(Duration::from_secs(30), enriched.next()).await;
        let Ok(Some(streamed)) = next else { break };
        if tally.note(&streamed.event().data())? {
            room.add_permits(1);
        }
        streamed.settle(Outcome::Ack);
    }
    producer.abort();
    println!("{}", costs.end(&mut tally)?);
    trilby.shutdown().await;
    tally.verdict()
}

fn topic(topic: &str) -> StreamRequest {
    StreamRequest { pubsub: "pubsub".to_owned(), topic: topic.to_owned(), ..StreamRequest::default() }
}

fn sensor(number: usize) -> String {
    format!("sensor-{number}")
}

/// What the guest looks up.
async fn describe_sensors(api: &Api) -> Result<()> {
    let item = |number| state::SetRequest {
        key: sensor(number),
        value: state::Value::Json(format!(r#"{{"room":{number},"unit":"celsius"}}"#).into()),
        etag: None,
        options: state::WriteOptions::default(),
        metadata: Metadata::new(),
    };
    let store = api.state.store("statestore")?;
    Ok(store.save(&Ctx::default(), (0..SENSORS).map(item).collect()).await?)
}

/// Publishes readings of about 100 bytes, as many at a time as there is room for.
async fn produce(api: Api, room: Arc<Semaphore>, messages: usize) -> std::result::Result<(), trilby::ApiError> {
    let (ctx, started) = (Ctx::default(), Instant::now());
    for number in 0..messages {
        let Ok(permit) = room.acquire().await else { break };
        permit.forget();
        let (of, nth, sent) = (number % SENSORS, number / SENSORS, started.elapsed().as_micros());
        let data =
            format!(r#"{{"of":{of},"nth":{nth},"sent":{sent},"celsius":21.5,"site":"rotterdam","status":"nominal"}}"#);
        let publish = Publish {
            topic: "readings".to_owned(),
            data: Bytes::from(data),
            content_type: "application/json".to_owned(),
            metadata: [("cloudevent.subject".to_owned(), sensor(of))].into(),
        };
        api.pubsub.publish(&ctx, "pubsub", publish).await?;
    }
    Ok(())
}
