//! Attempts under policies, counted in components that fail on demand: the same through every door.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde_json::Value;
use trilby::{AppSpec, Trilby};
use trilby_component::{
    CancellationToken, Catalog, ComponentError, ErrorKind, Metadata, Result,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
    catalog::Entry,
    pubsub::{self, PubSub, PublishRequest, Sink, SubscribeRequest, Subscription},
    state::{DeleteRequest, Feature, GetRequest, Item, Operation, SetRequest, StateStore},
};
use trilby_conformance::{
    client::{Client, Message, Step, Write},
    clients::{Embedded, Grpc, Http, Wasm},
};

const RESOURCES: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.flaky, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: broker}
spec: {type: pubsub.flaky, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: binding}
spec: {type: bindings.flaky, version: v1}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
spec:
  policies:
    retries:
      DefaultComponentOutboundRetryPolicy: {policy: constant, duration: 1ms, maxRetries: 3}
";

/// The mirror guest's app id.
const MIRROR: &str = "mirror";

/// Which attempts fail, and how many there were, by key.
#[derive(Default)]
struct Attempts(Mutex<HashMap<String, u32>>);

impl Attempts {
    /// Counts an attempt at `key`. A key says how it fails: `fail-2` the first two times, `conflict` always and for
    /// good.
    fn note(&self, key: &str) -> Result<()> {
        let key = key.rsplit("||").next().unwrap_or(key);
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = attempts.entry(key.to_owned()).or_default();
        *attempt += 1;
        let kind = key.split('@').next().unwrap_or(key);
        if kind == "conflict" {
            return Err(ComponentError::etag_mismatch(""));
        }
        let failures: u32 = kind.strip_prefix("fail-").and_then(|failures| failures.parse().ok()).unwrap_or(0);
        if *attempt <= failures {
            return Err(ComponentError::new(ErrorKind::Unavailable, "fails on demand"));
        }
        Ok(())
    }

    fn take(&self, key: &str) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or(0)
    }
}

struct Flaky(Arc<Attempts>);

#[async_trait]
impl StateStore for Flaky {
    fn features(&self) -> &[Feature] {
        &[Feature::Etag, Feature::Transactional]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        self.0.note(&request.key).map(|()| None)
    }

    async fn set(&self, request: &SetRequest) -> Result<()> {
        self.0.note(&request.key)
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        self.0.note(&request.key)
    }

    async fn transact(&self, operations: &[Operation], _: &Metadata) -> Result<()> {
        let [Operation::Upsert(first), ..] = operations else { return Ok(()) };
        self.0.note(&first.key)
    }
}

#[async_trait]
impl PubSub for Flaky {
    fn features(&self) -> &[pubsub::Feature] {
        &[]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<()> {
        let envelope: Value = serde_json::from_slice(&request.data).unwrap_or_default();
        self.0.note(envelope["data"].as_str().unwrap_or_default())
    }

    async fn subscribe(&self, _: &SubscribeRequest, _: Arc<dyn Sink>, _: CancellationToken) -> Result<Subscription> {
        Err(ComponentError::unsupported("nobody listens"))
    }
}

#[async_trait]
impl OutputBinding for Flaky {
    fn operations(&self) -> &[&'static str] {
        &["create"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        self.0.note(&request.metadata["key"])?;
        Ok(InvokeResponse::default())
    }
}

/// The types that fail on demand.
fn catalog(attempts: &Arc<Attempts>) -> Catalog {
    let entry = |type_name| Entry { type_name, version: "v1", about: "Fails on demand." };
    let flaky = Arc::new(Flaky(Arc::clone(attempts)));
    let (store, broker, output) = (Arc::clone(&flaky), Arc::clone(&flaky), flaky);
    let mut catalog = Catalog::new();
    catalog.state(entry("state.flaky"), move |_| std::future::ready(Ok(Arc::clone(&store) as Arc<dyn StateStore>)));
    catalog.pubsub(entry("pubsub.flaky"), move |_| std::future::ready(Ok(Arc::clone(&broker) as Arc<dyn PubSub>)));
    catalog.binding(entry("bindings.flaky"), move |_| {
        let output = Some(Arc::clone(&output) as Arc<dyn OutputBinding>);
        std::future::ready(Ok(Arc::new(Binding { input: None, output })))
    });
    catalog
}

/// One runtime over what fails, and a client of each door.
async fn start(attempts: &Arc<Attempts>) -> (Trilby, Vec<(&'static str, Box<dyn Client>)>) {
    let (http, grpc) = (free_address(), free_address());
    let mut builder = Trilby::builder()
        .catalog(catalog(attempts))
        .resources_text("resiliency", RESOURCES)
        .app(AppSpec::caller("embedded"))
        .app(AppSpec::caller("http").http(http))
        .app(AppSpec::caller("grpc").grpc(grpc));
    let mirror = mirror();
    if let Some(path) = &mirror {
        builder = builder.app(AppSpec::wasm(MIRROR, path.to_string_lossy()));
    }
    let trilby = builder.start().await.expect("the runtime starts");
    let api = trilby.api("embedded").expect("the app was started").clone();
    let mut clients: Vec<(_, Box<dyn Client>)> = vec![
        ("embedded", Box::new(Embedded(api.clone()))),
        ("http", Box::new(Http::new(http.port()))),
        ("grpc", Box::new(Grpc::new(grpc.port()))),
    ];
    if mirror.is_some() {
        clients.push(("wasm", Box::new(Wasm::new(api, MIRROR))));
    }
    (trilby, clients)
}

/// The mirror guest, which stands for a Wasm app.
fn mirror() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/wasm");
    let folder = std::env::var_os("TRILBY_TEST_GUESTS").map_or(root, PathBuf::from);
    let path = folder.join("mirror.wasm");
    if path.exists() {
        return Some(path);
    }
    println!("NOT RUN wasm door: {} is missing; run `cargo xtask guests`", path.display());
    None
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_tried_as_often_through_every_door() {
    let attempts = Arc::<Attempts>::default();
    let (trilby, clients) = start(&attempts).await;
    for (door, client) in &clients {
        for (key, expect, succeeds) in
            [("fail-0", 1, true), ("fail-2", 3, true), ("fail-3", 4, true), ("fail-9", 4, false)]
        {
            let key = format!("{key}@{door}");
            let read = client.get("store", &key).await;
            assert_eq!((attempts.take(&key), read.is_ok()), (expect, succeeds), "{door} get {key}: {read:?}");
            let saved = client.save("store", &[Write::new(&key, "1")]).await;
            assert_eq!((attempts.take(&key), saved.is_ok()), (expect, succeeds), "{door} save {key}: {saved:?}");
            let deleted = client.delete("store", &key, None).await;
            assert_eq!((attempts.take(&key), deleted.is_ok()), (expect, succeeds), "{door} delete {key}: {deleted:?}");
            let done = client.transact("store", &[Step::Upsert(Write::new(&key, "1"))]).await;
            assert_eq!((attempts.take(&key), done.is_ok()), (expect, succeeds), "{door} transact {key}: {done:?}");
            let sent = client.publish("broker", "topic", &Message::text(&key)).await;
            assert_eq!((attempts.take(&key), sent.is_ok()), (expect, succeeds), "{door} publish {key}: {sent:?}");
            let called = client.invoke_binding("binding", "create", "1", &[("key", &key)]).await;
            assert_eq!((attempts.take(&key), called.is_ok()), (expect, succeeds), "{door} invoke {key}: {called:?}");
        }
        let key = format!("conflict@{door}");
        let failure = client.save("store", &[Write::new(&key, "1").over("1")]).await.expect_err("a conflict");
        assert_eq!(attempts.take(&key), 1, "{door}: {failure}");
    }
    trilby.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_items_only_those_that_failed_are_written_again() {
    let attempts = Arc::<Attempts>::default();
    let (trilby, clients) = start(&attempts).await;
    for (door, client) in &clients {
        let key = |kind: &str| format!("{kind}@many-{door}");
        let write = |kind: &str| Write::new(key(kind), "1");
        let saved = client.save("store", &[write("fail-0"), write("fail-1"), write("fail-3")]).await;
        assert!(saved.is_ok(), "{door}: {saved:?}");
        let counts = ["fail-0", "fail-1", "fail-3"].map(|kind| attempts.take(&key(kind)));
        assert_eq!(counts, [1, 2, 4], "{door}");

        let failed = client.save("store", &[write("fail-1"), write("conflict"), write("fail-9")]).await;
        let failure = failed.expect_err("two of them can never be written");
        let counts = ["fail-1", "conflict", "fail-9"].map(|kind| attempts.take(&key(kind)));
        assert_eq!(counts, [2, 1, 4], "{door}");
        assert!(
            failure.text.contains("etag mismatch") && failure.text.contains("fails on demand"),
            "{door}: {failure}"
        );

        let failed = client.save("store", &[write("fail-1"), write("conflict")]).await;
        failed.expect_err("one of them can never be written");
        let counts = ["fail-1", "conflict"].map(|kind| attempts.take(&key(kind)));
        assert_eq!(counts, [2, 1], "{door}");
    }
    trilby.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_messages_only_those_that_failed_are_published_again() {
    let attempts = Arc::<Attempts>::default();
    let (trilby, clients) = start(&attempts).await;
    for (door, client) in &clients {
        let key = |kind: &str| format!("{kind}@bulk-{door}");
        let messages = ["fail-0", "fail-1", "fail-3", "fail-9"].map(|kind| Message::text(&key(kind)));
        let answer = client.publish_bulk("broker", "topic", &messages).await;
        let counts = ["fail-0", "fail-1", "fail-3", "fail-9"].map(|kind| attempts.take(&key(kind)));
        assert_eq!(counts, [1, 2, 4, 4], "{door}");
        // Dapr's own doors answer with a failure of the whole.
        match answer {
            Ok(failed) => assert_eq!(failed, ["3"], "{door}"),
            Err(failure) => assert!(failure.text.contains("fails on demand"), "{door}: {failure}"),
        }
    }
    trilby.shutdown().await;
}
