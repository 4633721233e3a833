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
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::sleep,
};
use trilby::{
    Api, AppSpec, Ctx, Trilby,
    component::{Metadata, state},
    core::pubsub::{BulkPublish, Outcome, PublishEntry, StreamRequest},
};

use crate::tally::{Costs, Tally};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SENSORS: usize = 64;
/// Most messages in one request to the broker.
const MOST_TOGETHER: usize = 64;
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
    // As a task: what waits in `main` itself is on a thread of its own, which every event would have to wake.
    tokio::spawn(run(Options::parse())).await?
}

async fn run(options: Options) -> Result<()> {
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
    if producer.is_finished() {
        producer.await??;
    } else {
        producer.abort();
    }
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
async fn produce(api: Api, room: Arc<Semaphore>, messages: usize) -> Result<()> {
    let (ctx, started) = (Ctx::default(), Instant::now());
    let mut number = 0;
    while number < messages {
        let Ok(permit) = room.acquire().await else { break };
        let more = room.available_permits().min(MOST_TOGETHER - 1).min(messages - number - 1);
        let more = u32::try_from(more).ok().and_then(|more| room.try_acquire_many(more).ok());
        let count = 1 + more.as_ref().map_or(0, SemaphorePermit::num_permits);
        permit.forget();
        if let Some(more) = more {
            more.forget();
        }
        let sent = started.elapsed().as_micros();
        let entries = (number..number + count).map(|number| reading(number, sent)).collect();
        let publish = BulkPublish { topic: "readings".to_owned(), entries, metadata: Metadata::new() };
        if let Some(failed) = api.pubsub.bulk_publish(&ctx, "pubsub", publish).await?.into_iter().next() {
            return Err(format!("a reading was not published: {}", failed.error).into());
        }
        number += count;
    }
    Ok(())
}

fn reading(number: usize, sent: u128) -> PublishEntry {
    let (of, nth) = (number % SENSORS, number / SENSORS);
    let data =
        format!(r#"{{"of":{of},"nth":{nth},"sent":{sent},"celsius":21.5,"site":"rotterdam","status":"nominal"}}"#);
    PublishEntry {
        entry_id: number.to_string(),
        data: Bytes::from(data),
        content_type: "application/json".to_owned(),
        metadata: [("cloudevent.subject".to_owned(), sensor(of))].into(),
    }
}
