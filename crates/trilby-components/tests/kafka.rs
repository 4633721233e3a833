//! `pubsub.kafka` and `bindings.kafka` against a server. `TRILBY_TEST_KAFKA` says where it is, as `host:port`, and
//! `TRILBY_TEST_KAFKA_TLS` where it listens for TLS and a password; topics that are not there it makes, with three
//! partitions.
#![cfg(feature = "kafka")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use support::{
    broker::{AUTHORITY, Events, Flood, Server, create, open_binding, open_pubsub, publish, read},
    inbox::{Inbox, Open, message},
    unique,
};
use tokio::time::{sleep, timeout};
use trilby_component::{
    CancellationToken, ErrorKind, Metadata,
    pubsub::{
        Bulk, BulkEntry, BulkPublishRequest, Feature, Message, NotHandled, PubSub, PublishRequest, Sink,
        SubscribeRequest,
    },
};

fn address() -> Option<String> {
    support::server("pubsub.kafka", "TRILBY_TEST_KAFKA")
}

/// Opens a broker with a consumer id of its own.
async fn broker(properties: &[(&str, &str)]) -> Option<Arc<dyn PubSub>> {
    let (address, id) = (address()?, unique());
    let own = [("brokers", &*address), ("authType", "none"), ("consumerID", &*id), ("backOffDuration", "100ms")];
    Some(open_pubsub("pubsub.kafka", &[&own[..], properties].concat()).await.expect("the server is up"))
}

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn keyed(topic: &str, key: &str, data: &str) -> PublishRequest {
    PublishRequest { metadata: metadata(&[("partitionKey", key)]), ..message(topic, data) }
}

#[tokio::test]
async fn what_is_published_arrives_at_each_group_once_with_all_that_kafka_says_of_it() {
    let (Some(one), Some(other)) = (broker(&[]).await, broker(&[]).await) else { return };
    assert_eq!(one.features(), [Feature::BulkPublish]);
    let topic = unique();
    let (first, second, third) = (Inbox::new(), Inbox::new(), Inbox::new());
    let open = [
        Open::subscribe(&*one, &topic, &first).await,
        Open::subscribe(&*one, &topic, &second).await,
        Open::subscribe(&*other, &topic, &third).await,
    ];
    let request = PublishRequest {
        metadata: metadata(&[("partitionKey", "k"), ("partitionNumber", "2"), ("trace", "t")]),
        ..message(&topic, "first")
    };
    one.publish(&request).await.expect("publish");
    third.wait_for_handled(1).await;
    let mut said = third.messages()[0].metadata.clone();
    assert!(said.remove("__timestamp").is_some_and(|millis| millis.parse::<u64>().is_ok_and(|millis| millis > 0)));
    let expected = [
        ("__key", "k"),
        ("__offset", "0"),
        ("__partition", "2"),
        ("__topic", &topic),
        ("partitionKey", "k"),
        ("partitionNumber", "2"),
        ("trace", "t"),
    ];
    assert_eq!(said, metadata(&expected));

    for number in 0..60 {
        one.publish(&keyed(&topic, &number.to_string(), &number.to_string())).await.expect("publish");
    }
    assert!(third.wait_for_handled(61).await.values().all(|count| *count == 1));
    let shared = || {
        let both: BTreeSet<_> = first.texts().into_iter().chain(second.texts()).collect();
        (both.len() == 61).then_some(())
    };
    support::eventually("the two share the messages", shared).await;
    for subscription in open {
        subscription.stop().await;
    }
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn topics_of_one_group_are_read_side_by_side() {
    let Some(broker) = broker(&[("heartbeatInterval", "100ms")]).await else { return };
    let topics = [unique(), unique(), unique()];
    let started = Instant::now();
    let mut open = Vec::new();
    for topic in &topics {
        let inbox = Inbox::new();
        open.push((Open::subscribe(&*broker, topic, &inbox).await, inbox));
    }
    for number in 0..30 {
        for topic in &topics {
            publish(&*broker, topic, &number.to_string()).await;
        }
    }
    for (_, inbox) in &open {
        assert!(inbox.wait_for_handled(30).await.values().all(|count| *count == 1));
    }
    // No member was thought dead, which takes as long as a session.
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    for (subscription, _) in open {
        subscription.stop().await;
    }
    broker.close().await;
}

#[tokio::test]
async fn the_order_of_a_partition_is_kept_and_others_do_not_wait_for_it() {
    let Some(broker) = broker(&[]).await else { return };
    let topic = unique();
    // Everything of one key fails twice.
    let inbox = Inbox::answering(Duration::from_millis(2), |message, before| {
        if message.metadata["__partition"] == "0" && before < 2 { Err(NotHandled("no".into())) } else { Ok(()) }
    });
    let open = Open::subscribe(&*broker, &topic, &inbox).await;
    for number in 0..90 {
        let request = PublishRequest {
            metadata: metadata(&[("partitionNumber", &(number % 3).to_string())]),
            ..message(&topic, &number.to_string())
        };
        broker.publish(&request).await.expect("publish");
    }
    inbox.wait_for_handled(90).await;
    assert_eq!(inbox.most_busy(), 3);
    let mut by_partition = BTreeMap::<_, Vec<u32>>::new();
    for message in inbox.messages() {
        let number = String::from_utf8_lossy(&message.data).parse().expect("a number");
        by_partition.entry(message.metadata["__partition"].clone()).or_default().push(number);
    }
    for (partition, mut numbers) in by_partition {
        let came = numbers.len();
        assert_eq!(came, if partition == "0" { 90 } else { 30 });
        numbers.dedup();
        assert!(numbers.is_sorted() && numbers.len() == 30, "partition {partition}: {numbers:?}");
    }
    open.stop().await;
}

#[tokio::test]
async fn a_group_goes_on_where_it_was_and_a_new_one_begins_as_it_is_told() {
    let Some(address) = address() else { return };
    let (id, topic) = (unique(), unique());
    let own = [("brokers", &*address), ("authType", "none"), ("consumerID", &*id)];
    let inbox = Inbox::new();
    let away = open_pubsub("pubsub.kafka", &own).await.expect("open");
    publish(&*away, &topic, "before").await;
    // Nothing is handled, and yet the group remembers that it was here.
    Open::subscribe(&*away, &topic, &inbox).await.stop().await;
    publish(&*away, &topic, "between").await;
    let open = Open::subscribe(&*away, &topic, &inbox).await;
    assert_eq!(inbox.wait_for(1).await, ["between"]);
    open.stop().await;
    publish(&*away, &topic, "after").await;
    let open = Open::subscribe(&*away, &topic, &inbox).await;
    assert_eq!(inbox.wait_for(2).await, ["between", "after"]);
    open.stop().await;

    let Some(oldest) = broker(&[("initialOffset", "oldest")]).await else { return };
    let all = Inbox::new();
    let open = Open::subscribe(&*oldest, &topic, &all).await;
    assert_eq!(all.wait_for_handled(3).await.into_keys().collect::<Vec<_>>(), ["after", "before", "between"]);
    open.stop().await;
}

#[tokio::test]
async fn a_subscription_that_is_stopped_settles_what_it_has_and_leaves_the_rest() {
    let Some(broker) = broker(&[]).await else { return };
    let topic = unique();
    let slow = Inbox::answering(Duration::from_millis(500), |_, _| Ok(()));
    let open = Open::subscribe(&*broker, &topic, &slow).await;
    for number in 0..5 {
        broker.publish(&keyed(&topic, "k", &number.to_string())).await.expect("publish");
    }
    slow.wait_for(1).await;
    open.stop().await;
    let begun = slow.texts();
    assert_eq!((slow.busy(), slow.handled().len()), (0, begun.len()));
    assert!(begun.len() < 5, "all were handled while the broker took them");

    let rest = Inbox::new();
    let open = Open::subscribe(&*broker, &topic, &rest).await;
    rest.wait_for_handled(5 - begun.len()).await;
    assert_eq!([begun, rest.texts()].concat(), ["0", "1", "2", "3", "4"]);
    open.stop().await;
}

/// Takes messages in bulk, and refuses some of them at first.
#[derive(Default)]
struct Batches {
    sizes: Mutex<Vec<usize>>,
    handled: Mutex<BTreeMap<Bytes, usize>>,
    refused: Mutex<BTreeSet<Bytes>>,
}

#[async_trait]
impl Sink for Batches {
    async fn deliver(&self, _: Message) -> Result<(), NotHandled> {
        panic!("one by one was not asked for")
    }

    async fn deliver_bulk(&self, messages: Vec<Message>) -> Vec<Result<(), NotHandled>> {
        self.sizes.lock().expect("no panic").push(messages.len());
        let answer = |message: Message| {
            let is_seventh = message.data.ends_with(b"7");
            if is_seventh && self.refused.lock().expect("no panic").insert(message.data.clone()) {
                return Err(NotHandled("not at first".to_owned()));
            }
            *self.handled.lock().expect("no panic").entry(message.data).or_default() += 1;
            Ok(())
        };
        messages.into_iter().map(answer).collect()
    }
}

#[tokio::test]
async fn batches_are_published_and_read_as_such_and_only_what_failed_comes_again() {
    let Some(broker) = broker(&[]).await else { return };
    let topic = unique();
    let batches = Arc::new(Batches::default());
    let stop = CancellationToken::new();
    let request = SubscribeRequest {
        topic: topic.clone(),
        bulk: Some(Bulk { max_messages: 20, max_await: Duration::from_millis(500) }.into()),
        ..SubscribeRequest::default()
    };
    let sink = Arc::clone(&batches) as Arc<dyn Sink>;
    let task = tokio::spawn(broker.subscribe(&request, sink, stop.clone()).await.expect("subscribe"));
    let entry = |number: usize| BulkEntry {
        entry_id: number.to_string(),
        data: number.to_string().into(),
        metadata: metadata(&[("partitionKey", "k")]),
        ..BulkEntry::default()
    };
    let mut request =
        BulkPublishRequest { topic, entries: (0..50).map(entry).collect(), metadata: metadata(&[("common", "c")]) };
    broker.bulk_publish(&request).await.expect("bulk publish");
    let all = || Some(batches.handled.lock().expect("no panic").clone()).filter(|handled| handled.len() == 50);
    let handled = support::eventually("all are handled", all).await;
    assert!(handled.values().all(|count| *count == 1), "{handled:?}");
    let sizes = batches.sizes.lock().expect("no panic").clone();
    assert_eq!(sizes.iter().sum::<usize>(), 55);
    assert!(sizes.iter().all(|size| *size <= 20) && sizes.contains(&20), "{sizes:?}");
    stop.cancel();
    task.await.expect("no panic").expect("no error");

    request.entries[3].metadata = metadata(&[("partitionNumber", "9")]);
    request.entries[5].metadata = metadata(&[("partitionNumber", "x")]);
    let failed = broker.bulk_publish(&request).await.expect_err("two cannot be sent").0;
    let failed: Vec<_> = failed.iter().map(|(index, error)| (*index, error.to_string())).collect();
    let expected = [
        (3, "partition number 9 is out of range, topic has 3 partitions".to_owned()),
        (5, "invalid partitionNumber metadata value \"x\", expected a number".to_owned()),
    ];
    assert_eq!(failed, expected);
}

#[tokio::test]
async fn every_compression_is_read_again_and_what_is_too_large_is_refused() {
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let Some(broker) = broker(&[("compression", compression), ("maxMessageBytes", "200000")]).await else { return };
        let topic = unique();
        let inbox = Inbox::new();
        let open = Open::subscribe(&*broker, &topic, &inbox).await;
        let long = "abc".repeat(50_000);
        publish(&*broker, &topic, &long).await;
        publish(&*broker, &topic, "null").await;
        let came: BTreeSet<_> = inbox.wait_for(2).await.into_iter().collect();
        assert_eq!(came, BTreeSet::from([long.clone(), "null".to_owned()]), "{compression}");
        let error = broker.publish(&message(&topic, &long.repeat(2))).await.expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
        open.stop().await;
        broker.close().await;
    }
}

#[tokio::test]
async fn a_slow_app_holds_back_the_reader_and_not_the_group() {
    let Some(broker) =
        broker(&[("channelBufferSize", "10"), ("sessionTimeout", "6s"), ("heartbeatInterval", "1s")]).await
    else {
        return;
    };
    let topic = unique();
    let slow = Inbox::answering(Duration::from_millis(10), |_, _| Ok(()));
    let open = Open::subscribe(&*broker, &topic, &slow).await;
    let flood = Flood::start(&broker, &keyed(&topic, "k", ""), 1000);
    assert_eq!(flood.arrive(&[&slow]).await, 0);
    assert_eq!(slow.most_busy(), 1);
    open.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_to_a_member_that_comes_and_back_when_it_goes() {
    // The first hears of the second with its next heartbeat, while there is still something to read.
    let Some(broker) = broker(&[("heartbeatInterval", "100ms")]).await else { return };
    let topic = unique();
    let (first, second) = (Inbox::answering(Duration::from_millis(2), |_, _| Ok(())), Inbox::new());
    let open = Open::subscribe(&*broker, &topic, &first).await;
    let flood = Flood::start(&broker, &message(&topic, ""), 3000);
    flood.reach(300).await;
    let joined = Open::subscribe(&*broker, &topic, &second).await;
    second.wait_for(20).await;
    joined.stop().await;
    eprintln!("{} of 3000 came more than once", flood.arrive(&[&first, &second]).await);
    open.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_under_load_loses_nothing_that_it_acknowledged() {
    let Some(mut server) = Server::start("kafka").await else { return };
    let address = format!("127.0.0.1:{}", server.port);
    let own = [
        ("brokers", &*address),
        ("authType", "none"),
        ("consumerID", "app"),
        ("readTimeout", "10s"),
        ("dialTimeout", "5s"),
    ];
    let start = Instant::now();
    let broker = loop {
        match open_pubsub("pubsub.kafka", &own).await {
            Ok(broker) => break broker,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    let inbox = Inbox::answering(Duration::from_millis(1), |_, _| Ok(()));
    let open = Open::subscribe(&*broker, "orders", &inbox).await;
    let flood = Flood::start(&broker, &message("orders", ""), 3000);
    for count in [500, 1500] {
        flood.reach(count).await;
        server.kill();
        server.start_again().await;
    }
    eprintln!("{} of 3000 came more than once", flood.arrive(&[&inbox]).await);
    open.stop().await;
    broker.close().await;
}

#[tokio::test]
async fn a_broker_that_is_gone_says_so_and_a_subscription_stops_all_the_same() {
    let Some(mut server) = Server::start("kafka").await else { return };
    let address = format!("127.0.0.1:{}", server.port);
    let own = [
        ("brokers", &*address),
        ("authType", "none"),
        ("consumerID", "app"),
        ("readTimeout", "3s"),
        ("dialTimeout", "2s"),
    ];
    let broker = open_pubsub("pubsub.kafka", &own).await.expect("open");
    broker.ping().await.expect("ping");
    let open = Open::subscribe(&*broker, "orders", &Inbox::new()).await;
    server.kill();
    let error = broker.ping().await.expect_err("it is gone");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error}");
    let error = broker.publish(&message("orders", "x")).await.expect_err("it is gone");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error}");
    timeout(Duration::from_secs(40), open.stop()).await.expect("it stops without a server too");
    let error = open_pubsub("pubsub.kafka", &own).await.err().expect("it is gone");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error}");
}

#[tokio::test]
async fn passwords_and_tls_open_the_door_and_nothing_else_does() {
    let Some(secure) = support::server("pubsub.kafka with TLS", "TRILBY_TEST_KAFKA_TLS") else { return };
    for mechanism in ["PLAINTEXT", "SHA-256", "SHA-512"] {
        let id = unique();
        let own = [
            ("brokers", &*secure),
            ("authType", "password"),
            ("consumerID", &*id),
            ("saslMechanism", mechanism),
            ("saslUsername", "trilby"),
            ("saslPassword", "trilby"),
            ("caCert", AUTHORITY),
        ];
        let broker = open_pubsub("pubsub.kafka", &own).await.expect("open");
        let inbox = Inbox::new();
        let open = Open::subscribe(&*broker, &id, &inbox).await;
        publish(&*broker, &id, "hidden").await;
        inbox.wait_for(1).await;
        open.stop().await;
        broker.close().await;

        let wrong: Vec<_> = own[..5].iter().copied().chain([("saslPassword", "wrong"), own[6]]).collect();
        let error = open_pubsub("pubsub.kafka", &wrong).await.err().expect("a wrong password");
        assert_eq!(error.kind(), ErrorKind::Denied, "{mechanism}: {error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
        let error = open_pubsub("pubsub.kafka", &own[..6]).await.err().expect("nobody vouches for it");
        assert!(error.to_string().contains("certificate"), "{mechanism}: {error}");
    }
}

#[tokio::test]
async fn a_binding_sends_and_receives() {
    let Some(address) = address() else { return };
    let (id, topic, other) = (unique(), unique(), unique());
    let topics = format!("{topic},{other}");
    let own = [
        ("brokers", &*address),
        ("authType", "none"),
        ("consumerID", &*id),
        ("topics", &*topics),
        ("publishTopic", &*topic),
        ("consumeRetryEnabled", "true"),
        ("backOffDuration", "100ms"),
    ];
    let binding = open_binding("bindings.kafka", &own).await.expect("open");
    let events = Events::answering(|_, before| before > 0);
    let (stop, task) = read(&binding, &events).await;
    create(&binding, "\"hello\"", &[("partitionKey", "k"), ("trace", "t")]).await.expect("create");
    let came = events.wait_for(2).await;
    assert_eq!((&came[0].data[..], &came[1].data[..]), (&b"\"hello\""[..], &b"\"hello\""[..]));
    let said = &came[0].metadata;
    assert_eq!((&*said["__key"], &*said["__topic"], &*said["trace"]), ("k", &*topic, "t"));
    stop.cancel();
    task.await.expect("no panic").expect("no error");
    binding.output.as_ref().expect("it has one").close().await;
    assert!(create(&binding, "x", &[]).await.is_err(), "it is closed");
}
