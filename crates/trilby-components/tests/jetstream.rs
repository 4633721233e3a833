//! `pubsub.jetstream` against a server. `TRILBY_TEST_NATS` says where it is, as `nats://host:port`.
#![cfg(feature = "nats")]

mod support;

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{self, Context, consumer::push, stream};
use support::{
    broker::{Flood, Server, open_pubsub, publish},
    eventually,
    inbox::{Inbox, Open, message},
    proxy::Proxy,
    unique,
};
use tokio::time::{sleep, timeout};
use trilby_component::{
    ErrorKind, Metadata,
    pubsub::{BulkEntry, BulkPublishRequest, NotHandled, PubSub, PublishRequest, SubscribeRequest},
};

struct Fixture {
    url: String,
    context: Context,
    /// Also the name of the stream that holds it and what is below it.
    topic: String,
}

impl Fixture {
    async fn new() -> Option<Self> {
        let url = support::server("pubsub.jetstream", "TRILBY_TEST_NATS")?;
        let client = async_nats::connect(&url).await.expect("the server of TRILBY_TEST_NATS is up");
        let fixture = Self { url, context: jetstream::new(client), topic: unique() };
        make_stream(&fixture.context, &fixture.topic).await;
        Some(fixture)
    }

    async fn open(&self, properties: &[(&str, &str)]) -> Arc<dyn PubSub> {
        let all = [&[("natsURL", &*self.url)], properties].concat();
        open_pubsub("pubsub.jetstream", &all).await.expect("the server is up")
    }

    async fn publish(&self, broker: &dyn PubSub, texts: impl IntoIterator<Item = usize>) {
        for text in texts {
            publish(broker, &self.topic, &text.to_string()).await;
        }
    }

    async fn length(&self) -> u64 {
        self.context.get_stream(&self.topic).await.expect("the stream").cached_info().state.messages
    }

    async fn consumers(&self) -> Vec<String> {
        use futures_util::TryStreamExt as _;
        let stream = self.context.get_stream(&self.topic).await.expect("the stream");
        stream.consumer_names().try_collect().await.expect("names")
    }

    /// Waits until everything that was sent is acknowledged.
    async fn settled(&self, consumer: &str) {
        for _ in 0..100 {
            let consumer: jetstream::consumer::Consumer<push::Config> =
                self.context.get_consumer_from_stream(consumer, &self.topic).await.expect("the consumer");
            if consumer.cached_info().num_ack_pending == 0 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("waited in vain until everything is acknowledged");
    }
}

async fn make_stream(context: &Context, topic: &str) {
    let subjects = vec![topic.to_owned(), format!("{topic}.>")];
    let config = stream::Config { name: topic.to_owned(), subjects, ..stream::Config::default() };
    context.create_stream(config).await.expect("the stream is new");
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn messages_come_in_order_with_the_name_of_their_topic() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[]).await;
    fixture.publish(&*broker, 0..10).await;
    let inbox = Inbox::new();
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 10..300).await;
    assert_eq!(inbox.wait_for(300).await, numbers(300), "a new consumer begins at the beginning");
    let first = &inbox.messages()[0];
    assert_eq!(first.topic, fixture.topic);
    assert_eq!(first.metadata, Metadata::from([("Topic".to_owned(), fixture.topic.clone())]));
    let consumers = fixture.consumers().await;
    fixture.settled(&consumers[0]).await;
    subscription.stop().await;
    broker.close().await;
}

#[tokio::test]
async fn a_pattern_names_many_topics() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[]).await;
    let inbox = Inbox::new();
    let subscription = Open::subscribe(&*broker, &format!("{}.*", fixture.topic), &inbox).await;
    for name in ["a", "b"] {
        publish(&*broker, &format!("{}.{name}", fixture.topic), name).await;
    }
    publish(&*broker, &fixture.topic, "other").await;
    assert_eq!(inbox.wait_for(2).await, ["a", "b"]);
    assert_eq!(inbox.messages()[1].topic, format!("{}.b", fixture.topic));
    subscription.stop().await;
}

#[tokio::test]
async fn an_event_that_is_published_twice_is_kept_once() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[]).await;
    let event = r#"{"specversion":"1.0","id":"same","data":1}"#;
    publish(&*broker, &fixture.topic, event).await;
    publish(&*broker, &fixture.topic, event).await;
    assert_eq!(fixture.length().await, 1);
    fixture.publish(&*broker, [7, 7]).await;
    assert_eq!(fixture.length().await, 3, "what has no id is kept each time");
}

#[tokio::test]
async fn a_bulk_is_published_in_order_and_its_failures_are_named() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[]).await;
    let entry = |data: Vec<u8>| BulkEntry { data: data.into(), ..BulkEntry::default() };
    let mut entries: Vec<_> = (0..100).map(|number| entry(number.to_string().into_bytes())).collect();
    entries[50] = entry(vec![b'x'; 2 << 20]);
    let request = BulkPublishRequest { topic: fixture.topic.clone(), entries, metadata: Metadata::new() };
    let failed = broker.bulk_publish(&request).await.expect_err("one is larger than the server takes").0;
    assert!(
        matches!(&failed[..], [(50, error)] if error.to_string() == "nats: maximum payload exceeded"),
        "{failed:?}"
    );
    let inbox = Inbox::new();
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    let expected: Vec<_> = numbers(100).into_iter().filter(|text| text != "50").collect();
    assert_eq!(inbox.wait_for(99).await, expected);
    subscription.stop().await;
}

#[tokio::test]
async fn what_is_not_handled_comes_again_as_often_as_the_server_may_send_it() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[("durableName", "d"), ("maxDeliver", "3")]).await;
    let inbox = Inbox::answering(Duration::ZERO, |message, before| match &message.data[..] {
        b"1" if before == 0 => Err(NotHandled("not yet".to_owned())),
        b"2" => Err(NotHandled("never".to_owned())),
        _ => Ok(()),
    });
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 0..4).await;
    inbox.wait_for_handled(3).await;
    inbox.wait_for(7).await;
    sleep(Duration::from_millis(500)).await;
    let mut came = inbox.texts();
    came.sort();
    assert_eq!(came, ["0", "1", "1", "2", "2", "2", "3"]);
    subscription.stop().await;
}

#[tokio::test]
async fn with_an_ack_wait_what_is_not_handled_comes_again_after_it() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[("ackWait", "700ms")]).await;
    let inbox = Inbox::answering(Duration::ZERO, |_, before| match before {
        0 => Err(NotHandled("not yet".to_owned())),
        _ => Ok(()),
    });
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 0..1).await;
    inbox.wait_for(1).await;
    sleep(Duration::from_millis(400)).await;
    assert_eq!(inbox.texts().len(), 1);
    inbox.wait_for_handled(1).await;
    subscription.stop().await;
}

#[tokio::test]
async fn a_new_consumer_begins_where_it_was_told_to() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[]).await;
    fixture.publish(&*broker, 0..5).await;
    for (properties, expected) in [
        (&[("deliverPolicy", "new")][..], vec!["5"]),
        (&[("deliverPolicy", "last")], vec!["4", "5"]),
        (&[("deliverPolicy", "sequence"), ("startSequence", "3")], vec!["2", "3", "4", "5"]),
    ] {
        let fresh = Fixture { topic: unique(), url: fixture.url.clone(), context: fixture.context.clone() };
        make_stream(&fresh.context, &fresh.topic).await;
        fresh.publish(&*broker, 0..5).await;
        let inbox = Inbox::new();
        let subscription = Open::subscribe(&*fresh.open(properties).await, &fresh.topic, &inbox).await;
        fresh.publish(&*broker, 5..6).await;
        assert_eq!(inbox.wait_for(expected.len()).await, expected, "{properties:?}");
        subscription.stop().await;
    }
}

#[tokio::test]
async fn one_message_at_a_time_unless_many_are_asked_for() {
    let Some(fixture) = Fixture::new().await else { return };
    for (concurrency, most) in [("single", 1), ("parallel", 20)] {
        let broker = fixture.open(&[("concurrency", concurrency), ("maxAckPending", "20")]).await;
        let inbox = Inbox::answering(Duration::from_millis(20), |_, _| Ok(()));
        let topic = format!("{}.{concurrency}", fixture.topic);
        for number in 0..60 {
            publish(&*broker, &topic, &number.to_string()).await;
        }
        let subscription = Open::subscribe(&*broker, &topic, &inbox).await;
        inbox.wait_for_handled(60).await;
        assert_eq!(inbox.most_busy(), most, "{concurrency}");
        subscription.stop().await;
    }
}

#[tokio::test]
async fn what_waits_for_a_slow_app_is_not_sent_again() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[("ackWait", "500ms")]).await;
    // Five times the ack wait in all.
    let inbox = Inbox::answering(Duration::from_millis(100), |_, _| Ok(()));
    fixture.publish(&*broker, 0..25).await;
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    inbox.wait_for_handled(25).await;
    assert_eq!(inbox.texts(), numbers(25));
    subscription.stop().await;
}

#[tokio::test]
async fn a_durable_consumer_goes_on_where_it_stopped() {
    let Some(fixture) = Fixture::new().await else { return };
    let durable = [("durableName", "d"), ("ackWait", "1h")];
    let broker = fixture.open(&durable).await;
    fixture.publish(&*broker, 0..30).await;
    let slow = Inbox::answering(Duration::from_millis(30), |_, _| Ok(()));
    let first = Open::subscribe(&*broker, &fixture.topic, &slow).await;
    slow.wait_for(5).await;
    timeout(Duration::from_secs(5), first.stop()).await.expect("it ends soon");
    let done = slow.handled().len();
    assert_eq!(done, slow.texts().len(), "what was begun is settled");

    // Without handing back, the rest would come in an hour.
    let next = Inbox::new();
    let second = Open::subscribe(&*fixture.open(&durable).await, &fixture.topic, &next).await;
    next.wait_for_handled(30 - done).await;
    assert_eq!(next.texts().len(), 30 - done, "nothing came twice");

    let request = SubscribeRequest { topic: fixture.topic.clone(), ..SubscribeRequest::default() };
    let taken = broker.subscribe(&request, slow.clone(), Default::default()).await.err().expect("it is taken");
    assert_eq!(taken.to_string(), "nats: consumer is already bound to a subscription");
    second.stop().await;
    let other = SubscribeRequest { topic: format!("{}.x", fixture.topic), ..SubscribeRequest::default() };
    let error = broker.subscribe(&other, slow, Default::default()).await.err().expect("it reads another topic");
    assert_eq!(error.kind(), ErrorKind::InvalidMetadata, "{error}");
}

#[tokio::test]
async fn readers_of_a_group_share_the_messages() {
    let Some(fixture) = Fixture::new().await else { return };
    let group = [("durableName", "d"), ("queueGroupName", "q")];
    let (broker, other) = (fixture.open(&group).await, fixture.open(&group).await);
    let inboxes = [Inbox::new(), Inbox::new()];
    let subscriptions = [
        Open::subscribe(&*broker, &fixture.topic, &inboxes[0]).await,
        Open::subscribe(&*other, &fixture.topic, &inboxes[1]).await,
    ];
    fixture.publish(&*broker, 0..200).await;
    let total = || inboxes.iter().map(|inbox| inbox.texts().len()).sum::<usize>();
    eventually("all came", || (total() >= 200).then_some(())).await;
    assert_eq!(total(), 200);
    assert!(inboxes.iter().all(|inbox| !inbox.texts().is_empty()));
    for subscription in subscriptions {
        subscription.stop().await;
    }
}

#[tokio::test]
async fn a_consumer_that_is_gone_is_made_anew_without_a_loss() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[]).await;
    let inbox = Inbox::new();
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 0..10).await;
    inbox.wait_for(10).await;
    let consumers = fixture.consumers().await;
    fixture.settled(&consumers[0]).await;
    fixture.context.delete_consumer_from_stream(&consumers[0], &fixture.topic).await.expect("deleted");
    fixture.publish(&*broker, 10..20).await;
    assert_eq!(inbox.wait_for(20).await, numbers(20), "nothing came twice");
    subscription.stop().await;
}

#[tokio::test]
async fn a_lost_connection_costs_no_message() {
    let Some(fixture) = Fixture::new().await else { return };
    let mut proxy = Proxy::start(fixture.url.trim_start_matches("nats://")).await;
    let behind = format!("nats://{}", proxy.address());
    let broker = open_pubsub("pubsub.jetstream", &[("natsURL", &behind)]).await.expect("open");
    let direct = fixture.open(&[]).await;
    let inbox = Inbox::new();
    let subscription = Open::subscribe(&*broker, &fixture.topic, &inbox).await;
    fixture.publish(&*direct, 0..10).await;
    inbox.wait_for(10).await;
    proxy.stop().await;
    eventually("the loss is noticed", || broker.ping().now_or_never_failed()).await;
    fixture.publish(&*direct, 10..20).await;
    proxy.resume().await;
    inbox.wait_for_handled(20).await;
    broker.ping().await.expect("connected again");
    subscription.stop().await;
}

/// For futures that never wait.
trait NowOrNever {
    fn now_or_never_failed(self) -> Option<()>;
}

impl<F: Future<Output = trilby_component::Result<()>>> NowOrNever for F {
    fn now_or_never_failed(self) -> Option<()> {
        use futures_util::FutureExt as _;
        self.now_or_never()?.err().map(drop)
    }
}

#[tokio::test]
async fn a_server_that_is_killed_under_load_costs_no_message() {
    const ROUNDS: usize = 3;
    const COUNT: usize = 3000;
    let Some(mut server) = Server::start("nats").await else { return };
    let url = format!("nats://127.0.0.1:{}", server.port);
    let context = jetstream::new(async_nats::connect(&url).await.expect("the server is up"));
    make_stream(&context, "t").await;
    for consumer in [&[][..], &[("durableName", "d")]] {
        let properties = [&[("natsURL", &*url), ("ackWait", "1s")], consumer].concat();
        let broker = open_pubsub("pubsub.jetstream", &properties).await.expect("open");
        let topic = format!("t.{}", consumer.len());
        let inbox = Inbox::answering(Duration::ZERO, |message, before| {
            let fails = message.data.ends_with(b"77") && before == 0;
            if fails { Err(NotHandled("the first time".to_owned())) } else { Ok(()) }
        });
        let subscription = Open::subscribe(&*broker, &topic, &inbox).await;
        let flood = Flood::start(&broker, &message(&topic, ""), COUNT);
        for round in 1..=ROUNDS {
            flood.reach(COUNT * round / (ROUNDS + 1)).await;
            server.kill();
            sleep(Duration::from_millis(300)).await;
            server.start_again().await;
        }
        let duplicates = flood.arrive(&[&inbox]).await;
        eprintln!("{COUNT} messages, {ROUNDS} crashes, {duplicates} deliveries too many");
        // The server has 1000 under way at most, and sends again what a slow machine takes long for.
        assert!(duplicates <= 2 * ROUNDS * 1000, "{duplicates}");
        subscription.stop().await;
        broker.close().await;
    }
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let Some(fixture) = Fixture::new().await else { return };
    let broker = fixture.open(&[]).await;
    let nowhere = unique();
    let error = broker.publish(&message(&nowhere, "x")).await.expect_err("no stream holds it");
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, "nats: no response from stream"));
    let request = SubscribeRequest { topic: nowhere.clone(), ..SubscribeRequest::default() };
    let error = broker.subscribe(&request, Inbox::new(), Default::default()).await.err().expect("no stream holds it");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&nowhere), "{error}");
    let data = vec![0; 2 << 20].into();
    let large = PublishRequest { topic: fixture.topic.clone(), data, ..PublishRequest::default() };
    assert_eq!(broker.publish(&large).await.expect_err("too large").kind(), ErrorKind::InvalidRequest);

    let flow = fixture.open(&[("flowControl", "true")]).await;
    let request = SubscribeRequest { topic: fixture.topic.clone(), ..SubscribeRequest::default() };
    let error = flow.subscribe(&request, Inbox::new(), Default::default()).await.err().expect("it wants a heartbeat");
    assert!(error.to_string().contains("heartbeat"), "{error}");
    let both = fixture.open(&[("flowControl", "true"), ("heartbeat", "1s")]).await;
    let inbox = Inbox::new();
    let subscription = Open::subscribe(&*both, &fixture.topic, &inbox).await;
    fixture.publish(&*broker, 0..10).await;
    assert_eq!(inbox.wait_for(10).await, numbers(10));
    subscription.stop().await;

    let closed = open_pubsub("pubsub.jetstream", &[("natsURL", "nats://u:secret@127.0.0.1:1")]).await;
    let error = closed.err().expect("nobody listens there");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1:1") && !error.to_string().contains("secret"), "{error}");
    let error = open_pubsub("pubsub.jetstream", &[("natsURL", "http://x")]).await.err().expect("no such scheme");
    assert_eq!(error.kind(), ErrorKind::InvalidMetadata);
}
