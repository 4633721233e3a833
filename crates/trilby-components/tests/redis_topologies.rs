//! The components over Redis with a cluster, sentinels, replicas and TLS. Each test starts servers of its own, if this
//! machine has the program `redis-server`.
#![cfg(feature = "redis")]

mod support;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use redis::TypedCommands as _;
use support::{
    With as _,
    changes::{Changes, watch},
    delete, etag, eventually, get,
    inbox::{Inbox, Open, message},
    json, read,
    redis::{Server, free_port},
    request, set, text, transact,
};
use tempfile::TempDir;
use trilby_component::{
    ErrorKind, Metadata,
    binding::InvokeRequest,
    state::{Consistency, Operation, StateStore},
};

async fn open(properties: &[(&str, &str)]) -> trilby_component::Result<Arc<dyn StateStore>> {
    support::open("state.redis", "v1", properties).await
}

#[tokio::test]
async fn a_cluster_holds_each_item_on_the_server_of_its_slot() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        let bus = free_port();
        let Some(server) = Server::start(&format!("cluster-enabled yes\ncluster-port {bus}")) else { return };
        servers.push((server, bus));
    }
    for ((server, _), slots) in servers.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]) {
        let mut connection = server.connection().await;
        let _: () = redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(&slots).query(&mut connection).expect("slots");
    }
    // The first tells the others of each other.
    for (other, bus) in &servers[1..] {
        let meet = ["MEET", "127.0.0.1", &other.port.to_string(), &bus.to_string()];
        let _: () = redis::cmd("CLUSTER").arg(&meet).query(&mut servers[0].0.connection().await).expect("meet");
    }
    for (server, _) in &servers {
        let mut connection = server.connection().await;
        eventually("the cluster is complete", || {
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut connection).ok()?;
            (info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")).then_some(())
        })
        .await;
    }

    let store = open(&[("redisHost", &servers[0].0.address()), ("redisType", "cluster")]).await.expect("open");
    let keys: Vec<_> = (0..50).map(|index| format!("app||{index}")).collect();
    let writes: Vec<_> = keys.iter().map(|key| set(key, json("1"))).collect();
    store.bulk_set(&writes).await.expect("bulk set");
    for (server, _) in &servers {
        let size: usize = redis::cmd("DBSIZE").query(&mut server.connection().await).expect("DBSIZE");
        assert!(size > 0, "the items are spread");
    }
    let wanted: Vec<_> = keys.iter().map(|key| get(key)).collect();
    let found = store.bulk_get(&wanted, 0).await.expect("bulk get");
    assert!(found.iter().all(|item| matches!(item, Ok(Some(_)))), "{found:?}");

    let apart = vec![Operation::Upsert(set("app||0", json("2"))), Operation::Upsert(set("app||1", json("2")))];
    let error = transact(&*store, apart).await.expect_err("the keys are in different slots");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    assert_eq!(text(&*store, "app||0").await, "1");
    let together = vec![Operation::Upsert(set("{app}||0", json("2"))), Operation::Delete(delete("{app}||1"))];
    transact(&*store, together).await.expect("the keys are in one slot");

    let mut strong = set("app||0", json("3")).etag("1");
    strong.options.consistency = Consistency::Strong;
    store.set(&strong).await.expect("set");
    assert_eq!(etag(&*store, "app||0").await, "2");
    store.close().await;
    every_message_comes(&[("redisHost", &servers[0].0.address()), ("redisType", "cluster")]).await;
}

/// Topics enough for each server of a cluster to have some.
async fn every_message_comes(properties: &[(&str, &str)]) {
    let properties = [properties, &[("consumerID", "group")]].concat();
    let broker =
        trilby_components::builtins().open_pubsub("pubsub.redis", "v1", request(&properties)).await.expect("open");
    let inbox = Inbox::new();
    let mut subscriptions = Vec::new();
    for topic in ["a", "b", "c", "d", "e"] {
        subscriptions.push(Open::subscribe(&*broker, topic, &inbox).await);
        for number in 0..20 {
            broker.publish(&message(topic, &format!("{topic}{number}"))).await.expect("publish");
        }
    }
    inbox.wait_for_handled(100).await;
    // Longer than Redis holds back an answer.
    tokio::time::sleep(Duration::from_secs(2)).await;
    broker.publish(&message("a", "late")).await.expect("publish");
    inbox.wait_for_handled(101).await;
    for subscription in subscriptions {
        subscription.stop().await;
    }
}

#[tokio::test]
async fn a_write_of_strong_consistency_is_on_the_replicas() {
    let Some(master) = Server::start("") else { return };
    let Some(replica) = Server::start(&format!("replicaof 127.0.0.1 {}", master.port)) else { return };
    wait_for_replica(&master).await;
    let store = open(&[("redisHost", &master.address())]).await.expect("open");
    for index in 0..20 {
        let mut strong = set("k", json(&index.to_string()));
        strong.options.consistency = Consistency::Strong;
        store.set(&strong).await.expect("set");
        let copy = replica.connection().await.hget("k", "data").expect("HGET");
        assert_eq!(copy, Some(index.to_string()));
    }
}

async fn wait_for_replica(master: &Server) {
    let mut connection = master.connection().await;
    eventually("the replica is in step", || {
        let info: String = redis::cmd("INFO").arg("replication").query(&mut connection).ok()?;
        info.contains("state=online").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_sentinels_name_the_server_that_takes_over() {
    let Some(mut master) = Server::start("") else { return };
    let Some(_replica) = Server::start(&format!("replicaof 127.0.0.1 {}", master.port)) else { return };
    wait_for_replica(&master).await;
    let monitored = format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 300\n\
         sentinel failover-timeout main 2000",
        master.port
    );
    let Some(sentinel) = Server::start(&monitored) else { return };
    let mut connection = sentinel.connection().await;
    eventually("the sentinel knows the replica", || {
        let replicas: Vec<redis::Value> =
            redis::cmd("SENTINEL").arg(&["REPLICAS", "main"]).query(&mut connection).ok()?;
        (!replicas.is_empty()).then_some(())
    })
    .await;

    let down = free_port();
    let hosts = format!("127.0.0.1:{down},{}", sentinel.address());
    let properties = |name| [("redisHost", &*hosts), ("failover", "true"), ("sentinelMasterName", name)];
    let error =
        open(&[&properties("other")[..], &[("redisMaxRetries", "-1")]].concat()).await.err().expect("no such name");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("other"), "{error}");

    let store = open(&properties("main")).await.expect("open");
    store.set(&set("k", json("1"))).await.expect("set");
    master.kill();
    let start = Instant::now();
    while let Err(error) = store.set(&set("k", json("2"))).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain for the replica to take over");
    }
    assert_eq!(text(&*store, "k").await, "2");
    every_message_comes(&properties("main")).await;
    changes_are_heard_of(&properties("main")).await;
}

#[tokio::test]
async fn tls_checks_the_server_and_shows_the_clients_certificate() {
    let folder = TempDir::new().expect("a folder for certificates");
    if !make_certificate(folder.path()) {
        eprintln!("NOT RUN state.redis with TLS: openssl is not on the PATH");
        return;
    }
    let path = folder.path().display();
    let configuration = format!(
        "port 0\ntls-port {{port}}\ntls-cert-file {path}/cert.pem\ntls-key-file {path}/key.pem\n\
         tls-ca-cert-file {path}/cert.pem\ntls-auth-clients yes"
    );
    let Some(server) = Server::start(&configuration) else { return };
    let pem = |name| std::fs::read_to_string(folder.path().join(name)).expect("openssl wrote it");
    let (certificate, key, address) = (pem("cert.pem"), pem("key.pem"), server.address());
    let insecure = [
        ("redisHost", &*address),
        ("enableTLS", "true"),
        ("insecureSkipTLSVerify", "true"),
        ("clientCert", &certificate),
        ("clientKey", &key),
    ];
    let start = Instant::now();
    let store = loop {
        match open(&insecure).await {
            Ok(store) => break store,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(20), "{error}"),
        }
    };
    store.set(&set("k", json("1"))).await.expect("set");
    assert!(read(&*store, "k").await.is_some());
    every_message_comes(&insecure).await;
    changes_are_heard_of(&insecure).await;

    let error = open(&insecure[..3]).await.err().expect("the server wants a certificate");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let secure = [insecure[0], insecure[1], insecure[3], insecure[4]];
    let error = open(&secure).await.err().expect("nobody vouches for the server's certificate");
    assert!(error.to_string().contains("certificate"), "{error}");
    let error = open(&[insecure[0], ("redisMaxRetries", "-1")]).await.err().expect("the server speaks TLS only");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(server.folder.path().exists());
}

async fn changes_are_heard_of(properties: &[(&str, &str)]) {
    let catalog = trilby_components::builtins();
    let store = catalog.open_configuration("configuration.redis", "v1", request(properties)).await.expect("open");
    let changes = Arc::<Changes>::default();
    let stop = watch(&*store, &["color".to_owned()], &changes).await;
    let binding = catalog.open_binding("bindings.redis", "v1", request(properties)).await.expect("open");
    let create = InvokeRequest {
        operation: "create".to_owned(),
        data: "blue".into(),
        metadata: Metadata::from([("key".to_owned(), "color".to_owned())]),
    };
    binding.output.as_ref().expect("it has an output").invoke(&create).await.expect("create");
    changes.wait_for("color", "blue").await;
    stop.cancel();
}

fn make_certificate(folder: &Path) -> bool {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .stderr(Stdio::null())
        .status();
    made.is_ok_and(|status| status.success())
}
