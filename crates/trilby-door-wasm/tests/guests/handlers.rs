//! What Dapr says to an app, said to a guest that exports handlers: `fixtures/guests/messages`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use trilby_component::{
    ErrorKind, Metadata,
    configuration::{Item, Items},
    pubsub::{Bulk, Message},
    state::{GetRequest, SetRequest, Value as StateValue, WriteOptions},
};
use trilby_core::{
    AppChannel as _, ChannelError, Ctx,
    app::{BindingEvent, ConfigurationUpdate},
    pubsub::{BulkDelivery, BulkEntry, Delivery, Event, Outcome, Subscription},
};
use trilby_door_wasm::{Handler, WasmApp};

use crate::world::{World, call};

const TOPIC: &str = "orders";

/// An event as it comes from a broker.
pub(crate) fn event(id: &str, data: &str) -> Event {
    let envelope = json!({
        "specversion": "1.0", "id": id, "source": "shop", "type": "order.placed", "datacontenttype": "text/plain",
        "time": "2026-11-21T12:00:00Z", "subject": "s", "pubsubname": "pubsub", "topic": TOPIC,
        "attempt": 3, "traceparent": "00-1-2-01", "data": data,
    });
    let message = Message { data: Bytes::from(envelope.to_string()), ..Message::default() };
    Event::from_message(&message, "pubsub", TOPIC, false).expect("an event")
}

pub(crate) async fn deliver(app: &WasmApp, id: &str, data: &str) -> Result<Outcome, ChannelError> {
    let (event, metadata) = (event(id, data), [("partition".to_owned(), "7".to_owned())].into());
    let delivery = Delivery { event: &event, pubsub: "pubsub", topic: TOPIC, path: "orders", metadata: &metadata };
    app.deliver(&Ctx::default(), &delivery).await
}

async fn deliver_bulk(app: &WasmApp, entries: &[&BulkEntry]) -> Result<Vec<Outcome>, ChannelError> {
    let metadata = Metadata::new();
    let delivery = BulkDelivery { id: "d", entries, pubsub: "pubsub", topic: "bulk", path: "", metadata: &metadata };
    app.deliver_bulk(&Ctx::default(), &delivery).await
}

fn entry(id: &str, data: &str) -> BulkEntry {
    BulkEntry {
        entry_id: id.into(),
        event: Ok(event(id, data)),
        content_type: "application/cloudevents+json".into(),
        metadata: Metadata::new(),
    }
}

/// What the guest wrote down.
async fn kept(world: &World, key: &str) -> Value {
    let request = GetRequest { key: key.into(), ..GetRequest::default() };
    let store = world.api("messages");
    let found = store.state.store("statestore").expect("there").get(&Ctx::default(), request).await.expect("works");
    found.map_or(Value::Null, |item| serde_json::from_slice(&item.value).expect("JSON"))
}

#[tokio::test]
async fn a_guest_says_what_it_subscribes_to() {
    let world = World::new();
    let Some(app) = world.start("messages", "messages").await else { return };
    let asked = app.subscriptions(&Ctx::default()).await.expect("answers");
    let [orders, keyed, bulk]: &[Subscription; 3] = asked.as_slice().try_into().expect("three");
    assert_eq!((orders.pubsub.as_str(), orders.topic.as_str()), ("pubsub", "orders"));
    assert_eq!(orders.route.default.as_deref(), Some("orders"));
    assert_eq!(orders.route.rules[0].path, "urgent");
    assert_eq!(orders.dead_letter_topic.as_deref(), Some("orders-failed"));
    assert_eq!(orders.metadata["priority"], "1");
    assert_eq!((keyed.order_by.as_deref(), keyed.route.default.as_deref()), (Some("subject"), Some("")));
    assert_eq!(bulk.bulk, Some(Bulk { max_messages: 10, max_await: Duration::from_millis(50) }.into()));
    assert!(orders.bulk.is_none() && keyed.bulk.is_none());
}

#[tokio::test]
async fn a_guest_gets_the_whole_event() {
    let world = World::new();
    let Some(app) = world.start("messages", "messages").await else { return };
    assert_eq!(deliver(&app, "e1", "hello").await.expect("handled"), Outcome::Ack);
    let expect = json!({
        "id": "e1", "source": "shop", "type": "order.placed", "spec-version": "1.0",
        "data": "hello", "data-content-type": "text/plain",
        "pubsub": "pubsub", "topic": "orders", "path": "orders",
        "time": "2026-11-21T12:00:00Z", "subject": "s",
        "extensions": [["attempt", "3"], ["traceparent", "00-1-2-01"]],
        "metadata": [["partition", "7"]],
    });
    let mut found = kept(&world, "message-e1").await;
    let extensions = found["extensions"].as_array_mut().expect("a list");
    extensions.sort_by_key(ToString::to_string);
    assert_eq!(found, expect);
}

#[tokio::test]
async fn a_guest_acks_retries_drops_and_publishes() {
    let world = World::new();
    let Some(app) = world.start("messages", "messages").await else { return };
    for (data, expect) in [("ack", Outcome::Ack), ("retry", Outcome::Retry), ("drop", Outcome::Drop)] {
        assert_eq!(deliver(&app, data, data).await.expect("handled"), expect);
    }
    assert_eq!(deliver(&app, "o", "once").await.expect("handled"), Outcome::Retry);
    assert_eq!(deliver(&app, "o", "once").await.expect("handled"), Outcome::Ack);
    assert_eq!(deliver(&app, "p", "publish next").await.expect("handled"), Outcome::Ack);
    assert_eq!(deliver(&app, "q", "publish down").await.expect("handled"), Outcome::Retry);
    let topics: Vec<_> = world.fakes.broker.take().into_iter().map(|request| request.topic).collect();
    assert_eq!(topics, ["next"]);
}

#[tokio::test]
async fn several_events_are_one_call_and_each_has_an_outcome() {
    let world = World::new();
    let Some(app) = world.start("messages", "messages").await else { return };
    let calls = app.stats().calls;
    let raw = BulkEntry {
        entry_id: "raw".into(),
        event: Err(Bytes::from_static(b"drop")),
        content_type: "application/octet-stream".into(),
        metadata: [("partition".to_owned(), "7".to_owned())].into(),
    };
    let entries = [&entry("a", "ack"), &entry("b", "retry"), &raw, &entry("c", "silence"), &entry("d", "ack")];
    let outcomes = deliver_bulk(&app, &entries).await.expect("handled");
    // The guest fell silent at the fourth.
    assert_eq!(outcomes, [Outcome::Ack, Outcome::Retry, Outcome::Drop, Outcome::Retry, Outcome::Retry]);
    assert_eq!(app.stats().calls, calls + 1);
    let found = kept(&world, "bulk-raw").await;
    assert_eq!((&found["data"], &found["data-content-type"]), (&json!("drop"), &json!("application/octet-stream")));
    assert_eq!((&found["metadata"], &found["topic"]), (&json!([["partition", "7"]]), &json!("bulk")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_handled_at_the_same_time_up_to_the_limit() {
    let world = World::new();
    let start = world.start_with("messages", "messages", |options| {
        options.limits.max_concurrency = 4;
        options.limits.idle_instances = 4;
    });
    let Some(app) = start.await else { return };
    let deliveries = (0..200).map(|number| {
        let app = app.clone();
        tokio::spawn(async move { deliver(&app, &number.to_string(), "ack").await })
    });
    for outcome in join_all(deliveries).await {
        assert_eq!(outcome.expect("no panic").expect("handled"), Outcome::Ack);
    }
    let stats = app.stats();
    assert!(stats.live <= 4 && stats.started <= 5, "{stats:?}");
}

#[tokio::test]
async fn an_event_of_a_binding_is_handled_and_may_ask_for_more() {
    let world = World::new();
    let Some(app) = world.start("messages", "messages").await else { return };
    let ctx = Ctx::default();
    assert!(app.listens_to_binding(&ctx, "tick", "/tick").await.expect("answers"));
    assert!(!app.listens_to_binding(&ctx, "tock", "/tock").await.expect("answers"));
    let (data, metadata) = (Bytes::from_static(b"hi"), [("readTimeUTC".to_owned(), "now".to_owned())].into());
    let event = |data| BindingEvent {
        binding: "tick",
        path: "/tick",
        data,
        content_type: Some("text/plain"),
        metadata: &metadata,
    };
    let reply = app.binding_event(&ctx, &event(&data)).await.expect("handled");
    assert_eq!((reply.data.as_ref(), reply.store.as_str()), (Some(&data), "statestore"));
    assert_eq!(reply.to, ["next"]);
    assert_eq!((reply.state.len(), reply.state[0].key.as_str()), (1, "from-reply"));
    let expect = json!({
        "binding": "tick", "data": "hi", "content-type": "text/plain", "metadata": [["readTimeUTC", "now"]],
    });
    assert_eq!(kept(&world, "event-tick").await, expect);
    let error = app.binding_event(&ctx, &event(&Bytes::from_static(b"retry"))).await.expect_err("it fails");
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Internal, "asked to fail"));
}

#[tokio::test]
async fn a_guest_is_told_of_changed_configuration() {
    let world = World::new();
    let Some(app) = world.start("messages", "messages").await else { return };
    let ctx = Ctx::default();
    let watched = app.watched_configuration(&ctx).await.expect("answers");
    assert_eq!(watched, [("configstore".to_owned(), vec!["discount".to_owned()])]);
    let tell = async |value: &str| {
        let item = Item { value: value.into(), version: "4".into(), metadata: Metadata::new() };
        let items = Items::from([("discount".to_owned(), item)]);
        app.configuration_changed(&ctx, &ConfigurationUpdate { store: "configstore", id: "1", items: &items }).await
    };
    assert_eq!(tell("retry").await.expect_err("it fails").message, "asked to fail");
    tell("20").await.expect("taken");
    let expect = json!({ "key": "discount", "value": "20", "version": "4", "metadata": [] });
    assert_eq!(kept(&world, "changed-configstore-discount").await, expect);
}

#[tokio::test]
async fn a_guest_says_whether_it_is_well() {
    let world = World::new();
    let Some(app) = world.start("messages", "messages").await else { return };
    app.check_health(&Ctx::default(), "/healthz").await.expect("well");
    let unwell = SetRequest {
        key: "unwell".into(),
        value: StateValue::Bytes("tired".into()),
        etag: None,
        options: WriteOptions::default(),
        metadata: Metadata::new(),
    };
    let api = world.api("messages");
    api.state.store("statestore").expect("there").save(&Ctx::default(), vec![unwell]).await.expect("works");
    let error = app.check_health(&Ctx::default(), "/healthz").await.expect_err("unwell");
    assert_eq!(error.message, "tired");
}

#[tokio::test]
async fn handlers_and_calls_live_in_one_guest() {
    let world = World::new();
    let Some(app) = world.start("messages", "messages").await else { return };
    assert_eq!(call(&app, "GET", "/x", "").await.expect("answers"), (200, "/x was called".to_owned()));
    assert_eq!(app.report().handlers.len(), 5);
    assert_eq!(app.report().blocks, ["state", "pubsub"]);
}

#[tokio::test]
async fn a_guest_that_only_handles_is_an_app_that_takes_no_calls() {
    let world = World::new();
    let Some(app) = world.start("enricher", "enricher").await else { return };
    assert_eq!(app.report().handlers, [Handler::Subscriber]);
    assert_eq!(call(&app, "GET", "/", "").await.expect("answers").0, 404);
    let ctx = Ctx::default();
    assert_eq!(app.subscriptions(&ctx).await.expect("answers").len(), 1);
    assert!(!app.listens_to_binding(&ctx, "tick", "/tick").await.expect("answers"));
    assert!(app.watched_configuration(&ctx).await.expect("answers").is_empty());
    app.check_health(&ctx, "/healthz").await.expect("well");
    // It drops what has no state.
    assert_eq!(deliver(&app, "1", "x").await.expect("handled"), Outcome::Drop);
    let outcomes = deliver_bulk(&app, &[&entry("1", "a"), &entry("2", "b")]).await.expect("handled");
    assert_eq!(outcomes, [Outcome::Drop, Outcome::Drop]);
}
