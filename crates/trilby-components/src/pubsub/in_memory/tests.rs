//! What a broker within the process promises.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::{sync::Notify, task::JoinHandle};
use trilby_component::{Properties, pubsub::NotHandled};

use super::*;

/// Notes what it gets; fails as often as it is told to, and waits while its gate is closed.
#[derive(Default)]
struct Notes {
    seen: Mutex<Vec<(String, String)>>,
    failures: AtomicUsize,
    gate: Option<Notify>,
    waiting: AtomicUsize,
}

impl Notes {
    fn gated() -> Arc<Self> {
        Arc::new(Self { gate: Some(Notify::new()), ..Self::default() })
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").iter().map(|(_, data)| data.clone()).collect()
    }

    async fn wait_for(&self, count: usize) {
        let started = Instant::now();
        while self.seen().len() < count {
            assert!(started.elapsed() < Duration::from_secs(10), "{:?} of {count}", self.seen());
            time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[async_trait]
impl Sink for Notes {
    async fn deliver(&self, message: Message) -> Result<(), NotHandled> {
        if let Some(gate) = &self.gate {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
        }
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(NotHandled("told to".into()));
        }
        let data = String::from_utf8_lossy(&message.data).into_owned();
        self.seen.lock().expect("not poisoned").push((message.topic, data));
        Ok(())
    }

    async fn deliver_bulk(&self, _: Vec<Message>) -> Vec<Result<(), NotHandled>> {
        unreachable!("this broker delivers one by one")
    }
}

async fn broker(pairs: &[(&str, &str)]) -> Arc<dyn PubSub> {
    let properties: Properties = pairs.iter().copied().collect();
    open(OpenRequest { properties, ..OpenRequest::default() }).await.expect("valid metadata")
}

async fn publish(broker: &dyn PubSub, topic: &str, data: impl Into<bytes::Bytes>) -> Result<()> {
    broker.publish(&PublishRequest { topic: topic.into(), data: data.into(), ..PublishRequest::default() }).await
}

struct Open {
    stop: CancellationToken,
    reading: JoinHandle<Result<()>>,
}

async fn subscribe(broker: &dyn PubSub, topic: &str, sink: &Arc<Notes>) -> Open {
    let stop = CancellationToken::new();
    let request = SubscribeRequest { topic: topic.into(), ..SubscribeRequest::default() };
    let reading = broker.subscribe(&request, Arc::clone(sink) as _, stop.clone()).await.expect("subscribed");
    Open { stop, reading: tokio::spawn(reading) }
}

impl Open {
    async fn end(self) {
        self.stop.cancel();
        time::timeout(Duration::from_secs(5), self.reading).await.expect("it ends").expect("no panic").expect("well");
    }
}

#[tokio::test]
async fn every_subscription_gets_every_message_in_order() {
    let broker = broker(&[]).await;
    let (one, other) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
    let subscriptions = [subscribe(&*broker, "a", &one).await, subscribe(&*broker, "a", &other).await];
    publish(&*broker, "b", "nobody's").await.expect("published");
    let numbers: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    for number in &numbers {
        publish(&*broker, "a", number.clone()).await.expect("published");
    }
    for sink in [one, other] {
        sink.wait_for(100).await;
        assert_eq!(sink.seen(), numbers);
    }
    for subscription in subscriptions {
        subscription.end().await;
    }
}

#[tokio::test]
async fn a_star_is_all_topics_that_begin_so_but_for_the_beginning_itself() {
    let broker = broker(&[]).await;
    let sink = Arc::new(Notes::default());
    let open = subscribe(&*broker, "orders*", &sink).await;
    for topic in ["orders", "orders-eu", "order", "orders*", "orders/1"] {
        publish(&*broker, topic, topic.to_owned()).await.expect("published");
    }
    sink.wait_for(4).await;
    let seen = sink.seen.lock().expect("not poisoned").clone();
    assert!(seen.iter().all(|(topic, data)| topic == data), "{seen:?}");
    open.end().await;
}

#[tokio::test]
async fn a_message_that_was_not_handled_comes_again_before_the_next() {
    let broker = broker(&[]).await;
    let sink = Arc::new(Notes { failures: 2.into(), ..Notes::default() });
    let open = subscribe(&*broker, "a", &sink).await;
    publish(&*broker, "a", "1").await.expect("published");
    publish(&*broker, "a", "2").await.expect("published");
    sink.wait_for(2).await;
    assert_eq!(sink.seen(), ["1", "2"]);
    open.end().await;
}

#[tokio::test]
async fn a_poison_message_is_given_up() {
    let broker = broker(&[("maxRedeliveries", "1")]).await;
    let sink = Arc::new(Notes { failures: 2.into(), ..Notes::default() });
    let open = subscribe(&*broker, "a", &sink).await;
    publish(&*broker, "a", "poison").await.expect("published");
    publish(&*broker, "a", "fine").await.expect("published");
    sink.wait_for(1).await;
    assert_eq!(sink.seen(), ["fine"]);
    open.end().await;
}

#[tokio::test]
async fn publishing_waits_for_a_slow_app_and_loses_nothing() {
    let broker = broker(&[("queueDepth", "2")]).await;
    let sink = Notes::gated();
    let open = subscribe(&*broker, "a", &sink).await;
    let publishing = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move {
            for number in 0..10 {
                publish(&*broker, "a", number.to_string()).await.expect("published");
            }
        }
    });
    time::sleep(Duration::from_millis(50)).await;
    assert!(!publishing.is_finished(), "two wait and one is under way");
    while sink.seen().len() < 10 {
        sink.gate.as_ref().expect("it has one").notify_one();
        time::sleep(Duration::from_millis(1)).await;
    }
    publishing.await.expect("no panic");
    assert_eq!(sink.seen(), (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    open.end().await;
}

#[tokio::test]
async fn long_messages_are_held_back_by_their_length() {
    let broker = broker(&[]).await;
    let sink = Notes::gated();
    let open = subscribe(&*broker, "a", &sink).await;
    let long = bytes::Bytes::from(vec![b'x'; QUEUE_BYTES / 2]);
    publish(&*broker, "a", long.clone()).await.expect("published");
    publish(&*broker, "a", long.clone()).await.expect("published");
    let third = time::timeout(Duration::from_millis(50), publish(&*broker, "a", long)).await;
    assert!(third.is_err(), "there is no room for a third");
    sink.gate.as_ref().expect("it has one").notify_one();
    sink.wait_for(1).await;
    publish(&*broker, "a", vec![b'x'; QUEUE_BYTES / 2]).await.expect("there is room again");
    open.stop.cancel();
    sink.gate.as_ref().expect("it has one").notify_one();
    open.end().await;
}

#[tokio::test]
async fn as_many_messages_are_under_way_as_the_settings_say() {
    let broker = broker(&[("concurrency", "3")]).await;
    let sink = Notes::gated();
    let open = subscribe(&*broker, "a", &sink).await;
    for number in 0..5 {
        publish(&*broker, "a", number.to_string()).await.expect("published");
    }
    time::sleep(Duration::from_millis(50)).await;
    assert_eq!(sink.waiting.load(Ordering::SeqCst), 3);
    while sink.seen().len() < 5 {
        sink.gate.as_ref().expect("it has one").notify_waiters();
        time::sleep(Duration::from_millis(1)).await;
    }
    open.end().await;
}

#[tokio::test]
async fn a_subscription_that_ends_waits_for_what_is_under_way_and_leaves_the_list() {
    for concurrency in ["1", "4"] {
        let broker = broker(&[("concurrency", concurrency)]).await;
        let sink = Notes::gated();
        let open = subscribe(&*broker, "a", &sink).await;
        publish(&*broker, "a", "1").await.expect("published");
        while sink.waiting.load(Ordering::SeqCst) == 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
        open.stop.cancel();
        publish(&*broker, "a", "2").await.expect("published");
        time::sleep(Duration::from_millis(20)).await;
        assert!(!open.reading.is_finished());
        sink.gate.as_ref().expect("it has one").notify_one();
        open.end().await;
        assert_eq!(sink.seen(), ["1"]);
        publish(&*broker, "a", "3").await.expect("nobody subscribes any more");
    }
}

#[tokio::test]
async fn metadata_that_make_no_sense_are_refused() {
    for (name, value) in [("concurrency", "0"), ("queueDepth", "-1"), ("maxRedeliveries", "many")] {
        let properties = [(name, value)].into_iter().collect();
        let error = open(OpenRequest { properties, ..OpenRequest::default() }).await.err().expect(name);
        assert_eq!(error.kind(), ErrorKind::InvalidMetadata);
        assert!(error.to_string().contains(name), "{error}");
    }
}
