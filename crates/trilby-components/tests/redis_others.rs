//! `bindings.redis`, `lock.redis` and `configuration.redis` against a Redis server. `TRILBY_TEST_REDIS` says where it is,
//! as `host:port`.
#![cfg(feature = "redis")]

mod support;

use std::{sync::Arc, time::Duration};

use redis::TypedCommands as _;
use support::{
    changes::{Changes, watch},
    eventually,
    proxy::Proxy,
    redis::Server,
    request, unique,
};
use tokio::time::sleep;
use trilby_component::{
    ErrorKind, Metadata,
    binding::{InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
    configuration::{ConfigurationStore, Item, Items},
    lock::{LockStore, UnlockStatus},
};
use trilby_components::builtins;

struct Fixture {
    address: String,
    /// In front of every key of the test.
    prefix: String,
}

impl Fixture {
    fn new(component: &str) -> Option<Self> {
        Some(Self { address: support::server(component, "TRILBY_TEST_REDIS")?, prefix: unique() })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn redis(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.address)).expect("an address");
        client.get_connection().expect("the server is up")
    }

    fn set(&self, name: &str, value: &str) {
        self.redis().set(self.key(name), value).expect("SET");
    }

    fn life_millis(&self, name: &str) -> i64 {
        redis::cmd("PTTL").arg(self.key(name)).query(&mut self.redis()).expect("PTTL")
    }

    async fn binding(&self) -> Arc<dyn OutputBinding> {
        let opened = builtins().open_binding("bindings.redis", "v1", request(&[("redisHost", &self.address)])).await;
        opened.expect("the server of TRILBY_TEST_REDIS is up").output.clone().expect("it has an output")
    }

    async fn locks(&self) -> Arc<dyn LockStore> {
        let opened = builtins().open_lock("lock.redis", "v1", request(&[("redisHost", &self.address)])).await;
        opened.expect("the server of TRILBY_TEST_REDIS is up")
    }
}

async fn configuration(address: &str) -> Arc<dyn ConfigurationStore> {
    let opened = builtins().open_configuration("configuration.redis", "v1", request(&[("redisHost", address)])).await;
    opened.expect("the server is up")
}

async fn invoke(
    binding: &dyn OutputBinding,
    operation: &str,
    data: &str,
    metadata: &[(&str, &str)],
) -> Result<InvokeResponse, InvokeError> {
    let metadata = metadata.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let request = InvokeRequest { operation: operation.to_owned(), data: data.to_owned().into(), metadata };
    binding.invoke(&request).await
}

#[tokio::test]
async fn a_binding_writes_reads_and_deletes_a_key() {
    let Some(fixture) = Fixture::new("bindings.redis") else { return };
    let binding = fixture.binding().await;
    let key = fixture.key("k");
    let named = [("key", &*key)];
    let empty = InvokeResponse::default();
    assert_eq!(invoke(&*binding, "get", "", &named).await.expect("get"), empty);
    assert_eq!(invoke(&*binding, "create", "\"v\"", &named).await.expect("create"), empty);
    let read = invoke(&*binding, "get", "", &named).await.expect("get");
    assert_eq!(read.data.as_deref(), Some(b"\"v\"" as &[u8]), "JSON strings keep their quotes");
    assert_eq!(invoke(&*binding, "delete", "", &named).await.expect("delete"), empty);
    assert_eq!(invoke(&*binding, "get", "", &named).await.expect("get"), empty);

    invoke(&*binding, "create", "once", &named).await.expect("create");
    let taken = invoke(&*binding, "get", "", &[("key", &key), ("delete", "true")]).await.expect("get");
    assert_eq!(taken.data.as_deref(), Some(b"once" as &[u8]));
    assert_eq!(invoke(&*binding, "get", "", &named).await.expect("get"), empty);
}

#[tokio::test]
async fn a_binding_counts_and_limits_the_life_of_a_key() {
    let Some(fixture) = Fixture::new("bindings.redis") else { return };
    let binding = fixture.binding().await;
    let (counter, text) = (fixture.key("c"), fixture.key("t"));
    invoke(&*binding, "increment", "", &[("key", &counter)]).await.expect("increment");
    assert_eq!(fixture.life_millis("c"), -1);
    invoke(&*binding, "increment", "", &[("key", &counter), ("ttlInSeconds", "60")]).await.expect("increment");
    assert!((50_000..=60_000).contains(&fixture.life_millis("c")));
    assert_eq!(fixture.redis().get(&counter).expect("GET").as_deref(), Some("2"));
    invoke(&*binding, "create", "x", &[("key", &text), ("ttl", "1m30s")]).await.expect("create");
    assert!((80_000..=90_000).contains(&fixture.life_millis("t")));

    let error = invoke(&*binding, "increment", "", &[("key", &text)]).await.expect_err("not a number").error;
    assert_eq!(error.to_string(), "ERR value is not an integer or out of range");
}

#[tokio::test]
async fn a_binding_refuses_calls_that_cannot_be_meant() {
    let Some(fixture) = Fixture::new("bindings.redis") else { return };
    let binding = fixture.binding().await;
    for (metadata, message) in [
        (&[("key", "")][..], "redis binding: missing key in request metadata"),
        (&[("key", "k"), ("ttlInSeconds", "soon")], "ttl value must be a valid integer: actual is 'soon'"),
    ] {
        let error = invoke(&*binding, "create", "x", metadata).await.expect_err("refused").error;
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidRequest, message));
    }
}

#[tokio::test]
async fn a_lock_has_one_owner_until_it_is_given_back_or_ends() {
    let Some(fixture) = Fixture::new("lock.redis") else { return };
    let (locks, others) = (fixture.locks().await, fixture.locks().await);
    let (resource, minute) = (fixture.key("r"), Duration::from_secs(60));
    assert!(locks.try_lock(&resource, "a", minute).await.expect("try"));
    assert_eq!(fixture.redis().get(&resource).expect("GET").as_deref(), Some("a"), "as Dapr keeps it");
    assert!(!others.try_lock(&resource, "b", minute).await.expect("try"));
    assert!(!locks.try_lock(&resource, "a", minute).await.expect("try"), "not even the owner gets it twice");
    assert_eq!(others.unlock(&resource, "b").await.expect("unlock"), UnlockStatus::LockBelongsToOthers);
    assert_eq!(others.unlock(&resource, "a").await.expect("unlock"), UnlockStatus::Success);
    assert_eq!(locks.unlock(&resource, "a").await.expect("unlock"), UnlockStatus::LockDoesNotExist);

    assert!(locks.try_lock(&resource, "a", Duration::from_millis(200)).await.expect("try"));
    sleep(Duration::from_millis(300)).await;
    assert!(others.try_lock(&resource, "b", Duration::MAX).await.expect("try"), "the first one ended");
}

#[tokio::test]
async fn locks_are_refused_where_they_could_be_lost() {
    let Some(fixture) = Fixture::new("lock.redis") else { return };
    let cluster = request(&[("redisHost", &fixture.address), ("redisType", "cluster")]);
    let error = builtins().open_lock("lock.redis", "v1", cluster).await.err().expect("refused");
    assert_eq!(error.to_string(), "this component does not support connecting to Redis Cluster");

    let Some(master) = Server::start("") else { return };
    drop(master.connection().await);
    let Some(_replica) = Server::start(&format!("replicaof 127.0.0.1 {}", master.port)) else { return };
    let mut connection = master.connection().await;
    eventually("the replica is connected", || {
        let info: String = redis::cmd("INFO").arg("replication").query(&mut connection).ok()?;
        info.contains("connected_slaves:1").then_some(())
    })
    .await;
    let replicated = request(&[("redisHost", &master.address())]);
    let error = builtins().open_lock("lock.redis", "v1", replicated).await.err().expect("refused");
    assert_eq!(error.to_string(), "replication is not supported");
}

#[tokio::test]
async fn of_many_who_want_a_lock_one_gets_it() {
    let Some(fixture) = Fixture::new("lock.redis") else { return };
    let locks = fixture.locks().await;
    let resource = fixture.key("r");
    let tries = (0..50).map(|owner| {
        let (locks, resource) = (Arc::clone(&locks), resource.clone());
        async move { locks.try_lock(&resource, &owner.to_string(), Duration::from_secs(60)).await.expect("try") }
    });
    let got = futures_util::future::join_all(tries).await;
    assert_eq!(got.into_iter().filter(|got| *got).count(), 1);
}

fn item(value: &str, version: &str) -> Item {
    Item { value: value.to_owned(), version: version.to_owned(), metadata: Metadata::new() }
}

#[tokio::test]
async fn configuration_is_read_with_its_versions() {
    let Some(fixture) = Fixture::new("configuration.redis") else { return };
    let store = configuration(&fixture.address).await;
    for (name, value) in [("a", "1"), ("b", "x||7"), ("empty", "")] {
        fixture.set(name, value);
    }
    fixture.redis().hset(fixture.key("hash"), "f", "v").expect("HSET");
    let keys: Vec<_> = ["a", "b", "empty", "hash", "none"].iter().map(|name| fixture.key(name)).collect();
    let expected = Items::from([(fixture.key("a"), item("1", "")), (fixture.key("b"), item("x", "7"))]);
    assert_eq!(store.get(&keys, &Metadata::new()).await.expect("get"), expected);

    let all = store.get(&[], &Metadata::new()).await.expect("get");
    let ours: Items = all.into_iter().filter(|(key, _)| key.starts_with(&fixture.prefix)).collect();
    assert_eq!(ours, expected);
}

#[tokio::test]
async fn a_watch_tells_of_the_keys_that_it_names() {
    let Some(fixture) = Fixture::new("configuration.redis") else { return };
    let store = configuration(&fixture.address).await;
    let changes = Arc::<Changes>::default();
    let (a, b) = (fixture.key("a"), fixture.key("b"));
    let stop = watch(&*store, std::slice::from_ref(&a), &changes).await;
    fixture.set("b", "1");
    fixture.set("a", "1||v1");
    changes.wait_for(&a, "1").await;
    assert_eq!(changes.all()[0], (a.clone(), item("1", "v1")));
    fixture.redis().del(&a).expect("DEL");
    changes.wait_for(&a, "").await;
    assert!(changes.values_of(&b).is_empty());

    stop.cancel();
    sleep(Duration::from_millis(100)).await;
    fixture.set("a", "2");
    sleep(Duration::from_millis(100)).await;
    assert_eq!(changes.values_of(&a).last().map(String::as_str), Some(""));
}

#[tokio::test]
async fn a_watch_without_keys_tells_of_all_of_them() {
    let Some(fixture) = Fixture::new("configuration.redis") else { return };
    let store = configuration(&fixture.address).await;
    let changes = Arc::<Changes>::default();
    let stop = watch(&*store, &[], &changes).await;
    for name in ["a", "b", "c"] {
        fixture.set(name, name);
        changes.wait_for(&fixture.key(name), name).await;
    }
    stop.cancel();
}

#[tokio::test]
async fn a_watch_makes_up_for_what_a_lost_connection_cost() {
    let Some(fixture) = Fixture::new("configuration.redis") else { return };
    let mut proxy = Proxy::start(&fixture.address).await;
    let store = configuration(&proxy.address()).await;
    let changes = Arc::<Changes>::default();
    let (a, b) = (fixture.key("a"), fixture.key("b"));
    fixture.set("b", "same");
    let stop = watch(&*store, &[a.clone(), b.clone()], &changes).await;
    proxy.stop().await;
    fixture.set("a", "missed");
    proxy.resume().await;
    changes.wait_for(&a, "missed").await;
    fixture.set("a", "heard");
    changes.wait_for(&a, "heard").await;
    assert!(changes.values_of(&b).is_empty(), "what has not changed is not reported");
    stop.cancel();
}
