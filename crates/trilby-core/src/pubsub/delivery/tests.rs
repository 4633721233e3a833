//! Outcomes, retries, dead letters, batches, order and the end, with a broker that does what a test says.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{FutureExt as _, future::join_all};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use trilby_component::{
    ComponentError, ErrorKind,
    pubsub::{Bulk, Feature, PubSub, PublishRequest, SubscribeRequest},
};

use super::*;
use crate::{
    ChannelError, Identity, Request, Response, Wiring,
    app::AppChannel,
    metrics::Metrics,
    pubsub::{Origin, PubSubApi, PubSubComponent, Route, Rule, Scopes, StreamRequest},
    resiliency::{Backoff, ComponentTarget, Names, Policies, Resource, Retry},
};

/// A broker whose messages are what a test hands to its sinks.
#[derive(Default)]
struct Script {
    sinks: Mutex<Vec<(SubscribeRequest, Arc<dyn Sink>)>>,
    published: Mutex<Vec<PublishRequest>>,
    /// Subscriptions that fail before one is opened.
    failures: AtomicUsize,
    refuses_publishing: bool,
}

#[async_trait]
impl PubSub for Script {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn publish(&self, request: &PublishRequest) -> trilby_component::Result<()> {
        if self.refuses_publishing {
            return Err(ComponentError::new(ErrorKind::InvalidRequest, "refused"));
        }
        self.published.lock().expect("not poisoned").push(request.clone());
        Ok(())
    }

    async fn subscribe(
        &self,
        request: &SubscribeRequest,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> trilby_component::Result<Reading> {
        let left = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(ComponentError::new(ErrorKind::Unavailable, "down"));
        }
        self.sinks.lock().expect("not poisoned").push((request.clone(), sink));
        Ok(Box::pin(async move {
            stop.cancelled().await;
            Ok(())
        }))
    }
}

impl Script {
    fn sink(&self, index: usize) -> Arc<dyn Sink> {
        Arc::clone(&self.sinks.lock().expect("not poisoned")[index].1)
    }

    fn dead_letters(&self) -> Vec<(String, Bytes)> {
        let published = self.published.lock().expect("not poisoned");
        published.iter().map(|request| (request.topic.clone(), request.data.clone())).collect()
    }
}

/// An app that answers what it was told to, and then that it has handled everything.
#[derive(Default)]
struct App {
    subscriptions: Vec<Subscription>,
    answers: Mutex<VecDeque<Result<Outcome, ChannelError>>>,
    /// Ids and paths of events in the order in which the app was done with them.
    seen: Mutex<Vec<String>>,
    /// Permits for deliveries, where a test wants to hold them up.
    gate: Option<Semaphore>,
    most: AtomicUsize,
    now: AtomicUsize,
}

#[async_trait]
impl AppChannel for App {
    async fn invoke(&self, _: &Ctx, _: Request) -> Result<Response, ChannelError> {
        unreachable!("every call is overridden")
    }

    async fn subscriptions(&self, _: &Ctx) -> Result<Vec<Subscription>, ChannelError> {
        Ok(self.subscriptions.clone())
    }

    async fn deliver(&self, _: &Ctx, delivery: &Delivery<'_>) -> Result<Outcome, ChannelError> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        if let Some(gate) = &self.gate {
            gate.acquire().await.expect("open").forget();
        }
        self.now.fetch_sub(1, Ordering::Relaxed);
        self.seen.lock().expect("not poisoned").push(format!("{} {}", delivery.event.id(), delivery.path));
        self.answers.lock().expect("not poisoned").pop_front().unwrap_or(Ok(Outcome::Ack))
    }

    async fn deliver_bulk(&self, _: &Ctx, delivery: &BulkDelivery<'_>) -> Result<Vec<Outcome>, ChannelError> {
        let ids: Vec<_> = delivery.entries.iter().filter_map(|entry| Some(entry.event.as_ref().ok()?.id())).collect();
        self.seen.lock().expect("not poisoned").push(format!("{} {}", ids.join(","), delivery.path));
        let mut answers = self.answers.lock().expect("not poisoned");
        delivery.entries.iter().map(|_| answers.pop_front().unwrap_or(Ok(Outcome::Ack))).collect()
    }
}

impl App {
    fn answering(answers: impl IntoIterator<Item = Result<Outcome, ChannelError>>) -> Self {
        Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

fn subscription() -> Subscription {
    Subscription {
        pubsub: "ps".into(),
        topic: "t".into(),
        metadata: Metadata::new(),
        route: Route { rules: Vec::new(), default: Some("/t".into()) },
        dead_letter_topic: None,
        bulk: None,
        order_by: None,
        scopes: Vec::new(),
        origin: Origin::Declarative,
    }
}

/// A block over `broker`, whose inbound policy tries `retries` times again after a second.
fn block(broker: &Arc<Script>, declared: Vec<Subscription>, retries: Option<u32>, metrics: &Metrics) -> PubSubApi {
    let app = Identity::new("app");
    let retry = retries.map(|retries| Retry::new(Backoff::Constant(Duration::from_secs(1)), Some(retries)));
    let names = Names { retry: Some("r".into()), ..Names::default() };
    let resource = Resource {
        retries: retry.into_iter().map(|retry| ("r".to_owned(), retry)).collect(),
        components: [("ps".to_owned(), ComponentTarget { inbound: names, outbound: Names::default() })].into(),
        ..Resource::default()
    };
    let policies = Policies::new([&resource], &app, metrics);
    let wiring = Wiring { app: &app, metrics, policies: &policies };
    let component = PubSubComponent {
        name: "ps".into(),
        broker: Arc::clone(broker) as Arc<dyn PubSub>,
        scopes: Scopes::default(),
        topic_prefix: "ns-".into(),
    };
    PubSubApi::new(&wiring, [component], declared)
}

/// Starts one subscription; the block, and where its messages go.
async fn start(
    broker: &Arc<Script>,
    app: &Arc<App>,
    declared: Subscription,
    retries: Option<u32>,
) -> (PubSubApi, Arc<dyn Sink>) {
    let block = block(broker, vec![declared], retries, &Metrics::default());
    block.start(&channel(app)).await;
    let sink = broker.sink(0);
    (block, sink)
}

fn channel(app: &Arc<App>) -> Arc<dyn AppChannel> {
    Arc::clone(app) as Arc<dyn AppChannel>
}

fn message(id: &str, more: &str) -> Message {
    Message { topic: "ns-t".into(), data: format!(r#"{{"id":"{id}"{more}}}"#).into(), ..Message::default() }
}

fn failed(status: u16) -> Result<Outcome, ChannelError> {
    Err(ChannelError::new(ErrorKind::Internal, "sorry").with_status(status))
}

#[tokio::test]
async fn what_the_app_answers_decides() {
    for (answer, dead, handled, letters) in [
        (Ok(Outcome::Ack), None, true, 0),
        (Ok(Outcome::Drop), None, true, 0),
        (Ok(Outcome::Drop), Some("dead"), true, 1),
        (Ok(Outcome::Retry), None, false, 0),
        (Ok(Outcome::Retry), Some("dead"), true, 1),
        (failed(500), None, false, 0),
        (failed(500), Some("dead"), true, 1),
    ] {
        let name = format!("{answer:?} {dead:?}");
        let (broker, app) = (Arc::<Script>::default(), Arc::new(App::answering([answer])));
        let declared = Subscription { dead_letter_topic: dead.map(str::to_owned), ..subscription() };
        let (_block, sink) = start(&broker, &app, declared, None).await;
        assert_eq!(sink.deliver(message("1", "")).await.is_ok(), handled, "{name}");
        let expect = vec![("ns-dead".to_owned(), message("1", "").data); letters];
        assert_eq!(broker.dead_letters(), expect, "{name}");
        assert_eq!(app.seen(), ["1 /t"], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_tried_again_by_the_policy_and_then_left_to_the_broker() {
    let (broker, app) = (Arc::<Script>::default(), Arc::new(App::answering([failed(500), Ok(Outcome::Retry)])));
    let (_block, sink) = start(&broker, &app, subscription(), Some(2)).await;
    sink.deliver(message("1", "")).await.expect("handled at the third attempt");
    assert_eq!(app.seen().len(), 3);

    let app = Arc::new(App::answering(std::iter::repeat_with(|| failed(500)).take(9)));
    let broker = Arc::<Script>::default();
    let (_block, sink) = start(&broker, &app, subscription(), Some(2)).await;
    assert_eq!(sink.deliver(message("1", "")).await, Err(NotHandled("sorry".into())));
    assert_eq!(app.seen().len(), 3);
}

#[tokio::test]
async fn what_cannot_be_delivered_goes_to_the_dead_letters_or_back() {
    let rule = Rule { condition: "event.data.n > 5".into(), path: "/big".into() };
    let ruled = |default: Option<&str>| Route { rules: vec![rule.clone()], default: default.map(str::to_owned) };
    let expired = r#","expiration":"2020-01-01T00:00:00Z""#;
    for (route, message, handled, letters, seen) in [
        (ruled(Some("/t")), message("1", r#","data":{"n":9}"#), true, 0, Some("1 /big")),
        (ruled(Some("/t")), message("1", r#","data":{"n":1}"#), true, 0, Some("1 /t")),
        (ruled(None), message("1", r#","data":{"n":1}"#), true, 1, None),
        (ruled(None), message("1", ""), false, 1, None),
        (ruled(None), message("1", expired), true, 1, None),
        (ruled(None), Message { data: "no event".into(), ..Message::default() }, false, 1, None),
    ] {
        for dead in [None, Some("dead")] {
            let (broker, app) = (Arc::<Script>::default(), Arc::<App>::default());
            let declared =
                Subscription { route: route.clone(), dead_letter_topic: dead.map(str::to_owned), ..subscription() };
            let (_block, sink) = start(&broker, &app, declared, None).await;
            let name = format!("{message:?} {dead:?}");
            assert_eq!(sink.deliver(message.clone()).await.is_ok(), handled || dead.is_some(), "{name}");
            assert_eq!(broker.dead_letters().len(), dead.map_or(0, |_| letters), "{name}");
            assert_eq!(app.seen(), seen.into_iter().collect::<Vec<_>>(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_message_is_kept_if_the_dead_letter_topic_does_not_take_it() {
    let broker = Arc::new(Script { refuses_publishing: true, ..Script::default() });
    for answer in [Ok(Outcome::Drop), Ok(Outcome::Retry)] {
        let app = Arc::new(App::answering([answer]));
        let declared = Subscription { dead_letter_topic: Some("dead".into()), ..subscription() };
        let (_block, _) = start(&broker, &app, declared, None).await;
        let sink = broker.sinks.lock().expect("not poisoned").pop().expect("subscribed").1;
        assert!(sink.deliver(message("1", "")).await.is_err());
        broker.sinks.lock().expect("not poisoned").clear();
    }
}

#[tokio::test]
async fn events_of_one_key_are_in_order_and_others_pass() {
    let (broker, app) = (Arc::<Script>::default(), App { gate: Some(Semaphore::new(0)), ..App::default() });
    let app = Arc::new(app);
    let declared = Subscription { order_by: Some("subject".into()), ..subscription() };
    let (_block, sink) = start(&broker, &app, declared, None).await;
    let messages = ["a1", "a2", "b1", "a3", "b2", "c1"].map(|id| message(id, &format!(r#","subject":"{}""#, &id[..1])));
    let delivering = tokio::spawn(async move { join_all(messages.map(|message| sink.deliver(message))).await });
    while app.now.load(Ordering::Relaxed) < 3 {
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_millis(5)).await;
    assert_eq!(app.most.load(Ordering::Relaxed), 3, "one of each key");
    app.gate.as_ref().expect("a gate").add_permits(6);
    assert!(delivering.await.expect("no panic").iter().all(Result::is_ok));
    let seen = app.seen();
    for key in ["a", "b", "c"] {
        let of_key: Vec<_> = seen.iter().filter(|id| id.starts_with(key)).collect();
        assert!(of_key.is_sorted(), "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn single_messages_are_collected_for_an_app_that_wants_several() {
    let bulk = Bulk { max_messages: 3, max_await: Duration::from_millis(100) };
    let (broker, app) = (Arc::<Script>::default(), Arc::<App>::default());
    let (block, sink) = start(&broker, &app, Subscription { bulk: Some(bulk.into()), ..subscription() }, None).await;
    let messages = ["1", "2", "3", "4"].map(|id| sink.deliver(message(id, "")));
    let delivered = timeout(Duration::from_millis(150), join_all(messages)).await.expect("in time");
    assert!(delivered.iter().all(Result::is_ok));
    assert_eq!(app.seen(), ["1,2,3 /t", "4 /t"]);

    let late = sink.deliver(message("5", ""));
    let mut late = std::pin::pin!(late);
    assert!(late.as_mut().now_or_never().is_none());
    block.stop().await;
    assert!(timeout(Duration::from_millis(50), late).await.expect("answered").is_err(), "nobody waits for more");
}

#[tokio::test(start_paused = true)]
async fn entries_of_a_batch_have_outcomes_of_their_own() {
    let answers = [Outcome::Ack, Outcome::Retry, Outcome::Drop, Outcome::Retry];
    let bulk = Bulk { max_messages: 10, max_await: Duration::from_secs(1) };
    for (dead, fifth_is_kept, letters) in [(None, true, 0), (Some("dead"), false, 2)] {
        let (broker, app) = (Arc::<Script>::default(), Arc::new(App::answering(answers.map(Ok))));
        let declared =
            Subscription { bulk: Some(bulk.into()), dead_letter_topic: dead.map(str::to_owned), ..subscription() };
        let (_block, sink) = start(&broker, &app, declared, Some(1)).await;
        let mut messages = ["1", "2", "3", "4"].map(|id| message(id, "")).to_vec();
        messages.push(Message { data: "no event".into(), ..Message::default() });
        let outcomes = sink.deliver_bulk(messages).await;
        // The second was handled at its second attempt, the fourth too; only the fifth never was.
        assert_eq!(app.seen(), ["1,2,3,4 /t", "2,4 /t"]);
        let kept: Vec<_> = outcomes.iter().map(Result::is_err).collect();
        assert_eq!(kept, [false, false, false, false, fifth_is_kept]);
        assert_eq!(broker.dead_letters().len(), letters);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_deliveries_and_takes_no_more() {
    let (broker, app) = (Arc::<Script>::default(), App { gate: Some(Semaphore::new(0)), ..App::default() });
    let app = Arc::new(app);
    let (block, sink) = start(&broker, &app, subscription(), None).await;
    let under_way = tokio::spawn({
        let sink = Arc::clone(&sink);
        async move { sink.deliver(message("1", "")).await }
    });
    while app.now.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    block.stop().await;
    assert_eq!(sink.deliver(message("2", "")).await, Err(NotHandled("the subscription ends".into())));
    app.gate.as_ref().expect("a gate").add_permits(1);
    assert_eq!(under_way.await.expect("no panic"), Ok(()));
    assert_eq!(app.seen(), ["1 /t"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_cuts_waiting_for_the_next_attempt_short() {
    let app = Arc::new(App::answering(std::iter::repeat_with(|| failed(500)).take(99)));
    let broker = Arc::<Script>::default();
    let declared = Subscription { dead_letter_topic: Some("dead".into()), ..subscription() };
    let (block, sink) = start(&broker, &app, declared, Some(50)).await;
    let under_way = tokio::spawn(async move { sink.deliver(message("1", "")).await });
    sleep(Duration::from_millis(1500)).await;
    let attempts = app.seen().len();
    let stopped = tokio::time::Instant::now();
    block.stop().await;
    assert_eq!(under_way.await.expect("no panic"), Err(NotHandled("the subscription ends".into())));
    assert!(stopped.elapsed() < Duration::from_millis(100));
    assert_eq!((app.seen().len(), broker.dead_letters().len()), (attempts, 0));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_fails_is_opened_again() {
    let (broker, app) = (Arc::<Script>::default(), Arc::<App>::default());
    broker.failures.store(2, Ordering::Relaxed);
    let block = block(&broker, vec![subscription()], None, &Metrics::default());
    block.start(&channel(&app)).await;
    assert_eq!(broker.sinks.lock().expect("not poisoned").len(), 0);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(broker.sinks.lock().expect("not poisoned").len(), 1);
    block.stop().await;
}

#[tokio::test]
async fn the_app_is_asked_what_it_wants_and_rules_that_are_none_cost_only_their_subscription() {
    let broker = Arc::<Script>::default();
    let bad = Route { rules: vec![Rule { condition: "event.".into(), path: "/b".into() }], default: None };
    let asked = |topic: &str, route: Route| Subscription {
        topic: topic.into(),
        route,
        origin: Origin::Programmatic,
        ..subscription()
    };
    let subscriptions = vec![asked("t", Route { rules: Vec::new(), default: Some("/own".into()) }), asked("b", bad)];
    let app = Arc::new(App { subscriptions, ..App::default() });
    let block = block(&broker, vec![subscription(), asked("c", subscription().route)], None, &Metrics::default());
    assert_eq!(block.subscriptions().len(), 2);
    block.start(&channel(&app)).await;
    block.start(&channel(&app)).await;
    let topics = || {
        let sinks = broker.sinks.lock().expect("not poisoned");
        let mut topics: Vec<_> = sinks.iter().map(|(request, _)| request.topic.clone()).collect();
        topics.sort();
        topics
    };
    assert_eq!(topics(), ["ns-c", "ns-t"]);
    let listed = block.subscriptions();
    let listed: Vec<_> = listed.iter().map(|s| (s.topic.as_str(), s.origin)).collect();
    assert_eq!(listed, [("t", Origin::Programmatic), ("c", Origin::Programmatic), ("b", Origin::Programmatic)]);
    block.stop().await;
    block.start(&channel(&app)).await;
    assert_eq!(topics(), ["ns-c", "ns-c", "ns-t", "ns-t"]);
}

#[tokio::test]
async fn a_streams_reader_settles_its_events() {
    let broker = Arc::<Script>::default();
    let block = block(&broker, Vec::new(), None, &Metrics::default());
    let request = StreamRequest { pubsub: "ps".into(), topic: "t".into(), ..StreamRequest::default() };
    let mut stream = block.stream(&Ctx::default(), request.clone()).await.expect("opened");
    assert_eq!(block.subscriptions().iter().map(|s| s.origin).collect::<Vec<_>>(), [Origin::Streaming]);
    let sink = broker.sink(0);
    for (outcome, handled) in [(Outcome::Ack, true), (Outcome::Retry, false), (Outcome::Drop, true)] {
        let read = async {
            let event = stream.next().await.expect("an event");
            assert_eq!((event.event().id(), event.topic()), ("1", "t"));
            event.settle(outcome);
        };
        let (delivered, ()) = tokio::join!(sink.deliver(message("1", "")), read);
        assert_eq!(delivered.is_ok(), handled, "{outcome:?}");
    }
    let (delivered, ()) = tokio::join!(sink.deliver(message("1", "")), async { drop(stream.next().await) });
    assert!(delivered.is_err(), "dropped unsettled");
    drop(stream);
    assert!(sink.deliver(message("2", "")).await.is_err());
    assert!(block.subscriptions().is_empty());

    let mut stream = block.stream(&Ctx::default(), request).await.expect("opened");
    block.close().await;
    drop((sink, broker.sinks.lock().expect("not poisoned").drain(..)));
    assert!(stream.next().await.is_none(), "the runtime stops");
}
