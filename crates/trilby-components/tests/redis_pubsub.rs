//! `pubsub.redis` against a Redis server. `TRILBY_TEST_REDIS` says where it is, as `host:port`.
#![cfg(feature = "redis")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::Value as Reply;
use support::{
    eventually,
    inbox::{Inbox, Open, message},
    redis::Server,
    request, unique,
};
use tokio::time::{sleep, timeout};
use trilby_component::{
    ErrorKind, Metadata,
    pubsub::{BulkEntry, BulkPublishRequest, NotHandled, PubSub, PublishRequest},
};

struct Fixture {
    address: String,
    topic: String,
}

impl Fixture {
    fn new() -> Option<Self> {
        Some(Self { address: support::server("pubsub.redis", "TRILBY_TEST_REDIS")?, topic: unique() })
    }

    /// Opens a broker that redelivers soon.
    async fn open(&self, properties: &[(&str, &str)]) -> Arc<dyn PubSub> {
        let quick = [("redeliverInterval", "100"), ("processingTimeout", "500")];
        let all = [&[("redisHost", &*self.address), ("consumerID", "group")], &quick[..], properties].concat();
        open(&all).await.expect("the server of TRILBY_TEST_REDIS is up")
    }

    async fn publish(&self, broker: &dyn PubSub, texts: impl IntoIterator<Item = usize>) {
        for text in texts {
            broker.publish(&message(&self.topic, &text.to_string())).await.expect("publish");
        }
    }

    fn redis(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.address)).expect("an address");
        client.get_connection().expect("the server is up")
    }

    /// How many entries the group has in hand.
    fn pending(&self) -> usize {
        let summary: Vec<Reply> =
            redis::cmd("XPENDING").arg(&self.topic).arg("group").query(&mut self.redis()).expect("XPENDING");
        redis::from_redis_value(summary[0].clone()).expect("a number")
    }

    fn length(&self) -> usize {
        redis::cmd("XLEN").arg(&self.topic).query(&mut self.redis()).expect("XLEN")
    }
}

async fn open(properties: &[(&str, &str)]) -> trilby_component::Result<Arc<dyn PubSub>> {
    trilby_components::builtins().open_pubsub("pubsub.redis", "v1", request(properties)).await
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn an_entry_has_the_fields_that_dapr_gives_it() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[]).await;
    let metadata = Metadata::from([("ttlInSeconds".into(), "10".into()), ("x".into(), "<y>".into())]);
    broker.publish(&PublishRequest { metadata, ..message(&fixture.topic, "a") }).await.expect("publish");
    broker.publish(&message(&fixture.topic, "b")).await.expect("publish");
    let entry = |data: &str| BulkEntry { entry_id: data.into(), data: data.to_owned().into(), ..BulkEntry::default() };
    let entries = vec![entry("c"), entry("d")];
    let bulk = BulkPublishRequest { topic: fixture.topic.clone(), entries, metadata: Metadata::new() };
    broker.bulk_publish(&bulk).await.expect("bulk publish");

    let rows: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg(&[&fixture.topic, "-", "+"]).query(&mut fixture.redis()).expect("XRANGE");
    let fields: Vec<_> = rows.iter().map(|(_, fields)| fields.iter().map(String::as_str).collect::<Vec<_>>()).collect();
    // As a daprd 1.18.3 left them.
    assert_eq!(
        fields,
        [
            vec!["data", "a", "metadata", r#"{"ttlInSeconds":"10","x":"\u003cy\u003e"}"#],
            vec!["data", "b", "metadata", "{}"],
            vec!["data", "c"],
            vec!["data", "d"],
        ]
    );
}

#[tokio::test]
async fn a_message_comes_with_its_metadata_and_in_order() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[("concurrency", "1")]).await;
    let metadata = Metadata::from([("a".into(), "b".into())]);
    broker
        .publish(&PublishRequest { metadata: metadata.clone(), ..message(&fixture.topic, "0") })
        .await
        .expect("first");
    let inbox = Inbox::new();
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 1..500).await;

    assert_eq!(inbox.wait_for(500).await, numbers(500), "a new group begins at the beginning");
    let first = &inbox.messages()[0];
    assert_eq!((&first.topic, &first.metadata, &first.content_type), (&fixture.topic, &metadata, &None));
    subscription.stop().await;
    assert_eq!(fixture.pending(), 0, "everything is acknowledged");
}

#[tokio::test]
async fn each_consumer_id_gets_every_message_and_shares_it_among_its_readers() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[]).await;
    let other = fixture.open(&[("consumerID", "other")]).await;
    let (shared, alone) = (Inbox::new(), Inbox::new());
    let subscriptions = [
        Open::subscribe(&*broker, &fixture.topic, &shared).await,
        Open::subscribe(&*fixture.open(&[]).await, &fixture.topic, &shared).await,
        Open::subscribe(&*other, &fixture.topic, &alone).await,
    ];
    fixture.publish(&*broker, 0..300).await;
    for inbox in [&shared, &alone] {
        assert!(inbox.wait_for_handled(300).await.values().all(|&count| count == 1));
    }
    for subscription in subscriptions {
        subscription.stop().await;
    }
}

#[tokio::test]
async fn what_is_not_handled_comes_again_until_it_is() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[]).await;
    let inbox = Inbox::answering(Duration::ZERO, |message, before| match &message.data[..] {
        b"1" if before < 2 => Err(NotHandled("not yet".to_owned())),
        _ => Ok(()),
    });
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 0..3).await;
    inbox.wait_for_handled(3).await;
    assert_eq!(inbox.texts().iter().filter(|text| *text == "1").count(), 3);
    assert_eq!(inbox.texts().len(), 5, "the others came once");
    subscription.stop().await;
    assert_eq!(fixture.pending(), 0);
}

#[tokio::test]
async fn without_redelivery_what_is_not_handled_is_given_up() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[("redeliverInterval", "0")]).await;
    let inbox = Inbox::answering(Duration::ZERO, |_, _| Err(NotHandled("never".to_owned())));
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 0..3).await;
    inbox.wait_for(3).await;
    subscription.stop().await;
    assert_eq!((inbox.texts().len(), fixture.pending()), (3, 0));
}

#[tokio::test]
async fn what_takes_longer_than_the_processing_timeout_is_given_up_and_comes_again() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[]).await;
    let inbox = Inbox::answering(Duration::from_secs(600), |_, _| Ok(()));
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 0..1).await;
    inbox.wait_for(2).await;
    assert!(inbox.busy() <= 1, "the first delivery was dropped");
    subscription.abort().await;
}

#[tokio::test]
async fn what_a_dead_reader_had_in_hand_is_taken_over() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[("processingTimeout", "2s")]).await;
    let (dying, living) = (Inbox::answering(Duration::from_secs(600), |_, _| Ok(())), Inbox::new());
    let first = Open::subscribe(&*broker, &fixture.topic, &dying).await;
    fixture.publish(&*broker, 0..250).await;
    dying.wait_for(10).await;
    first.abort().await;
    // Ten are being handled, and what waits is refilled in halves.
    assert!((60..=110).contains(&fixture.pending()), "{}", fixture.pending());

    let heir = fixture.open(&[("processingTimeout", "2s")]).await;
    let second = Open::subscribe(&*heir, &fixture.topic, &living).await;
    let handled = living.wait_for_handled(250).await;
    assert!(handled.values().all(|&count| count == 1), "{handled:?}");
    second.stop().await;
    assert_eq!(fixture.pending(), 0);
}

#[tokio::test]
async fn a_slow_app_has_no_more_in_hand_than_it_asked_for() {
    let Some(fixture) = Fixture::new() else { return };
    // Far longer than the processing timeout in all: what waits must not be taken for abandoned.
    let inbox = Inbox::answering(Duration::from_millis(100), |_, _| Ok(()));
    let broker = fixture.open(&[("queueDepth", "20"), ("concurrency", "3")]).await;
    fixture.publish(&*broker, 0..60).await;
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    let mut most_pending = 0;
    while inbox.handled().len() < 60 {
        most_pending = most_pending.max(fixture.pending());
        sleep(Duration::from_millis(10)).await;
    }
    // Those that wait, those that are being handled, and those that are being acknowledged.
    assert!(most_pending <= 20 + 3 + 3, "{most_pending}");
    assert_eq!(inbox.most_busy(), 3);
    assert_eq!(inbox.texts().len(), 60, "none came twice");
    subscription.stop().await;
}

#[tokio::test]
async fn workers_are_shared_by_the_topics_of_a_component() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[("concurrency", "2"), ("processingTimeout", "10s")]).await;
    let inbox = Inbox::answering(Duration::from_millis(20), |_, _| Ok(()));
    let topics = [unique(), unique()];
    let mut subscriptions = Vec::new();
    for topic in &topics {
        subscriptions.push(Open::subscribe(&*broker, topic, &inbox).await);
        for index in 0..20 {
            broker.publish(&message(topic, &format!("{topic} {index}"))).await.expect("publish");
        }
    }
    inbox.wait_for_handled(40).await;
    assert_eq!(inbox.most_busy(), 2);
    for subscription in subscriptions {
        subscription.stop().await;
    }
}

#[tokio::test]
async fn stopping_settles_what_was_begun_and_hands_back_the_rest() {
    let Some(fixture) = Fixture::new() else { return };
    // Without handing back, the second reader would have to wait for an hour.
    let properties = [("concurrency", "4"), ("processingTimeout", "1h")];
    let broker = fixture.open(&properties).await;
    fixture.publish(&*broker, 0..50).await;
    let slow = Inbox::answering(Duration::from_millis(300), |_, _| Ok(()));
    let first = Open::subscribe(&*broker, &fixture.topic, &slow).await;
    slow.wait_for(4).await;
    timeout(Duration::from_secs(5), first.stop()).await.expect("it ends soon");
    assert_eq!((slow.texts().len(), slow.handled().len()), (4, 4), "nothing new was begun");

    let next = Inbox::new();
    let second = Open::subscribe(&*fixture.open(&properties).await, &fixture.topic, &next).await;
    assert_eq!(next.wait_for_handled(46).await.len(), 46);
    second.stop().await;
    assert_eq!((next.texts().len(), fixture.pending()), (46, 0));
}

#[tokio::test]
async fn a_group_that_is_gone_is_created_anew() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[]).await;
    let inbox = Inbox::new();
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 0..1).await;
    inbox.wait_for(1).await;
    let _: usize = redis::cmd("DEL").arg(&fixture.topic).query(&mut fixture.redis()).expect("DEL");
    fixture.publish(&*broker, 1..2).await;
    assert_eq!(inbox.wait_for(2).await, ["0", "1"]);
    subscription.stop().await;
}

#[tokio::test]
async fn entries_that_were_trimmed_while_they_were_pending_are_forgotten() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[]).await;
    let inbox = Inbox::answering(Duration::ZERO, |message, _| match &message.data[..] {
        b"2" => Ok(()),
        _ => Err(NotHandled("poison".to_owned())),
    });
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 0..3).await;
    inbox.wait_for(3).await;
    let _: usize =
        redis::cmd("XTRIM").arg(&[&fixture.topic, "MAXLEN", "0"]).query(&mut fixture.redis()).expect("XTRIM");
    eventually("nothing is pending", || (fixture.pending() == 0).then_some(())).await;
    subscription.stop().await;
}

#[tokio::test]
async fn streams_are_trimmed_by_length_or_by_age() {
    let Some(fixture) = Fixture::new() else { return };
    let short = fixture.open(&[("maxLenApprox", "100")]).await;
    fixture.publish(&*short, 0..1000).await;
    assert!((100..400).contains(&fixture.length()), "{}", fixture.length());
    sleep(Duration::from_millis(10)).await;
    let young = fixture.open(&[("streamTTL", "5ms")]).await;
    fixture.publish(&*young, 0..200).await;
    sleep(Duration::from_millis(10)).await;
    fixture.publish(&*young, 0..1).await;
    assert!(fixture.length() < 150, "{}", fixture.length());
}

#[tokio::test]
async fn a_message_may_be_anything() {
    let Some(fixture) = Fixture::new() else { return };
    let broker = fixture.open(&[]).await;
    let inbox = Inbox::new();
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    let large = vec![7; 20 << 20];
    for data in [b"" as &[u8], b"\0\xff\r\n$-1\r\n", &large] {
        let data = data.to_vec().into();
        let request = PublishRequest { topic: fixture.topic.clone(), data, ..PublishRequest::default() };
        broker.publish(&request).await.expect("publish");
    }
    inbox.wait_for(3).await;
    let sizes: Vec<_> = inbox.messages().iter().map(|message| message.data.len()).collect();
    assert_eq!(sizes, [0, 9, 20 << 20]);
    subscription.stop().await;
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let Some(fixture) = Fixture::new() else { return };
    let inbox = Inbox::new();
    let nameless = open(&[("redisHost", &fixture.address)]).await.expect("open");
    let request = trilby_component::pubsub::SubscribeRequest { topic: fixture.topic.clone(), ..Default::default() };
    let error = nameless.subscribe(&request, inbox.clone(), Default::default()).await.err().expect("no consumer id");
    assert_eq!(error.kind(), ErrorKind::InvalidMetadata);

    let broker = fixture.open(&[]).await;
    let _: () = redis::cmd("SET").arg(&fixture.topic).arg("text").query(&mut fixture.redis()).expect("SET");
    assert!(broker.subscribe(&request, inbox, Default::default()).await.is_err(), "the key is no stream");
    let error = broker.publish(&message(&fixture.topic, "x")).await.expect_err("the key is no stream");
    assert!(error.to_string().starts_with("redis streams: error from publish: WRONGTYPE "), "{error}");
    let entries = vec![BulkEntry { entry_id: "1".into(), ..BulkEntry::default() }];
    let bulk = BulkPublishRequest { topic: fixture.topic.clone(), entries, metadata: Metadata::new() };
    let failed = broker.bulk_publish(&bulk).await.expect_err("the key is no stream").0;
    assert!(matches!(&failed[..], [(0, error)] if error.to_string().contains("WRONGTYPE")), "{failed:?}");

    let error = open(&[("redisHost", &fixture.address), ("redisPassword", "wrong"), ("redisUsername", "nobody")]).await;
    assert_eq!(error.err().expect("there is no such user").kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_server_that_is_killed_under_load_costs_no_message() {
    const ROUNDS: usize = 3;
    let durable = "appendonly yes\nappendfsync always";
    let Some(mut server) = Server::start(durable) else { return };
    drop(server.connection().await);
    let address = server.address();
    let properties =
        [("redisHost", &*address), ("consumerID", "group"), ("redeliverInterval", "100"), ("processingTimeout", "1s")];
    let publisher = open(&properties).await.expect("open");
    let inbox = Inbox::answering(Duration::from_millis(1), |message, before| {
        // Some fail the first time, so that there is something to redeliver as well.
        let fails = message.data.ends_with(b"7") && before == 0;
        if fails { Err(NotHandled("the first time".to_owned())) } else { Ok(()) }
    });
    let subscription = Open::subscribe(&*open(&properties).await.expect("open"), "t", &inbox).await;

    let is_done = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn({
        let is_done = Arc::clone(&is_done);
        async move {
            let mut acknowledged = BTreeMap::new();
            for number in 0.. {
                if is_done.load(Ordering::Relaxed) {
                    break;
                }
                if publisher.publish(&message("t", &number.to_string())).await.is_ok() {
                    acknowledged.insert(number.to_string(), 1_usize);
                }
            }
            acknowledged
        }
    });
    for _ in 0..ROUNDS {
        sleep(Duration::from_millis(500)).await;
        server.kill();
        sleep(Duration::from_millis(200)).await;
        server.restart();
        drop(server.connection().await);
    }
    sleep(Duration::from_millis(500)).await;
    is_done.store(true, Ordering::Relaxed);
    let acknowledged = publishing.await.expect("no panic");
    let has_all = || {
        let handled = inbox.handled();
        acknowledged.keys().all(|text| handled.contains_key(text)).then_some(handled)
    };
    let handled = eventually("every acknowledged message is handled", has_all).await;
    let duplicates: usize = handled.values().map(|count| count - 1).sum();
    eprintln!("{} acknowledged, {} handled, {duplicates} more than once", acknowledged.len(), handled.len());
    assert!(acknowledged.len() > 100 * ROUNDS, "{}", acknowledged.len());
    // What is in hand when the server dies may come again.
    assert!(duplicates <= ROUNDS * 110, "{duplicates}");
    subscription.stop().await;
}
