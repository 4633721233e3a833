//! Transactions that publish, and those that do not, against a broker and a store that are fakes.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use trilby_component::{
    Metadata,
    pubsub::PubSub,
    state::{Feature, Item},
};

use super::*;
use crate::{
    metrics::Metrics,
    pubsub::{PubSubApi, PubSubComponent, Scopes, tests::Fake},
    resiliency::Policies,
    state::{KeyPrefix, StateApi, StateComponent},
};

#[derive(Default)]
struct Store {
    items: Mutex<HashMap<String, Bytes>>,
    fails: bool,
}

impl Store {
    fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.items.lock().expect("not poisoned").keys().cloned().collect();
        keys.sort();
        keys
    }
}

#[async_trait]
impl StateStore for Store {
    fn features(&self) -> &[Feature] {
        &[Feature::Transactional]
    }

    async fn get(&self, request: &GetRequest) -> trilby_component::Result<Option<Item>> {
        let found = self.items.lock().expect("not poisoned").get(&request.key).cloned();
        Ok(found.map(|value| Item { value, etag: None, metadata: Metadata::new() }))
    }

    async fn set(&self, _: &SetRequest) -> trilby_component::Result<()> {
        unreachable!("transactions only")
    }

    async fn delete(&self, request: &DeleteRequest) -> trilby_component::Result<()> {
        self.items.lock().expect("not poisoned").remove(&request.key);
        Ok(())
    }

    async fn transact(&self, operations: &[Operation], _: &Metadata) -> trilby_component::Result<()> {
        if self.fails {
            return Err(ComponentError::etag_mismatch("told to fail"));
        }
        for item in operations.iter().filter_map(upserted) {
            let (Value::Json(value) | Value::Bytes(value)) = &item.value;
            self.items.lock().expect("not poisoned").insert(item.key.clone(), value.clone());
        }
        Ok(())
    }
}

struct Fixture {
    state: StateApi,
    block: PubSubApi,
    broker: Arc<Fake>,
    store: Arc<Store>,
}

fn fixture(properties: &[(&str, &str)], store: Store) -> Fixture {
    let all = [("outboxPublishPubsub", "ps"), ("outboxPublishTopic", "orders")];
    let properties = all.iter().chain(properties).copied().collect();
    let app = Identity::new("myapp");
    let (metrics, policies) = (Metrics::default(), Policies::default());
    let wiring = Wiring { app: &app, metrics: &metrics, policies: &policies };
    let (broker, store) = (Arc::new(Fake::default()), Arc::new(store));
    let component = PubSubComponent {
        name: "ps".into(),
        broker: Arc::clone(&broker) as Arc<dyn PubSub>,
        scopes: Scopes::parse(&properties, &app),
        topic_prefix: String::new(),
    };
    let outbox = OutboxComponent {
        name: "store".into(),
        store: Arc::clone(&store) as Arc<dyn StateStore>,
        settings: OutboxSettings::parse(&properties).expect("an outbox"),
    };
    let component_of_state = StateComponent {
        name: "store".into(),
        store: Arc::clone(&store) as Arc<dyn StateStore>,
        key_prefix: KeyPrefix::AppId,
        encryption: None,
    };
    let block = PubSubApi::new(&wiring, [component], Vec::new()).with_outboxes(&wiring, [outbox]);
    let state = StateApi::new(&wiring, [component_of_state]).with_outboxes(|name| block.outbox(name));
    Fixture { state, block, broker, store }
}

fn upsert(key: &str, value: &'static str, pairs: &[(&str, &str)]) -> Operation {
    Operation::Upsert(SetRequest {
        key: key.into(),
        value: Value::Json(value.into()),
        etag: None,
        options: WriteOptions::default(),
        metadata: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    })
}

impl Fixture {
    async fn transact(&self, operations: Vec<Operation>) -> Result<()> {
        self.state.store("store").expect("it is there").transact(&Ctx::default(), operations, Metadata::new()).await
    }

    /// The events of the topic, once there are so many.
    async fn events(&self, topic: &str, count: usize) -> Vec<Json> {
        let of_topic = |published: &[PublishRequest]| -> Vec<Json> {
            let data = published.iter().filter(|request| request.topic == topic).map(|request| &request.data);
            data.map(|data| serde_json::from_slice(data).expect("JSON")).collect()
        };
        for _ in 0..1000 {
            let events = of_topic(&self.broker.published());
            if events.len() >= count {
                return events;
            }
            time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{:?}", self.broker.published())
    }

    async fn no_marker_is_left(&self) {
        for _ in 0..1000 {
            if self.store.keys().iter().all(|key| !key.starts_with("outbox-")) {
                return;
            }
            time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.store.keys())
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_writes_is_published_once_it_is_done() {
    let fixture = fixture(&[], Store::default());
    let metadata = [("attribute", "own"), ("data", "not this"), ("id", "nor this")];
    fixture.transact(vec![upsert("1", "\"2\"", &metadata)]).await.expect("done");
    let event = fixture.events("orders", 1).await.remove(0);
    assert!(event["id"].as_str().expect("an id").starts_with("outbox-"));
    for (name, value) in [
        ("data", "2"),
        ("datacontenttype", "text/plain"),
        ("source", "myapp"),
        ("topic", "orders"),
        ("pubsubname", "ps"),
        ("attribute", "own"),
    ] {
        assert_eq!(event[name], value, "{event}");
    }
    let internal = fixture.events("defaultmyappordersoutbox", 1).await.remove(0);
    assert_eq!([&internal["topic"], &internal["id"]], [&json!(""), &event["id"]]);
    fixture.no_marker_is_left().await;
    assert_eq!(fixture.store.keys(), ["myapp||1"]);
    fixture.block.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_projection_is_published_instead_of_what_is_written() {
    let fixture = fixture(&[], Store::default());
    let projection = [("outbox.projection", "true"), ("contentType", "application/json")];
    let operations = vec![upsert("1", "\"written\"", &[]), upsert("1", r#"{"b":1,"a":2}"#, &projection)];
    fixture.transact(operations).await.expect("done");
    let event = fixture.events("orders", 1).await.remove(0);
    assert_eq!((&event["data"], &event["datacontenttype"]), (&json!({"a":2,"b":1}), &json!("application/json")));
    assert_eq!(fixture.store.items.lock().expect("not poisoned")["myapp||1"], "\"written\"");
}

#[tokio::test(start_paused = true)]
async fn deletions_are_not_published() {
    let fixture = fixture(&[], Store::default());
    let delete = Operation::Delete(DeleteRequest { key: "1".into(), ..DeleteRequest::default() });
    fixture.transact(vec![delete]).await.expect("done");
    time::sleep(PATIENCE).await;
    assert!(fixture.broker.published().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_failed_publishes_nothing_and_nobody_waits_for_it() {
    let fixture = fixture(&[], Store { fails: true, ..Store::default() });
    fixture.transact(vec![upsert("1", "2", &[])]).await.expect_err("told to fail");
    let outbox = fixture.block.outbox("store").expect("it has one");
    let internal = fixture.broker.published()[0].data.clone();
    let message = Message { data: internal, ..Message::default() };
    time::sleep(PATIENCE * 2).await;
    assert!(outbox.aborted().is_empty(), "its event was read and thrown away");
    assert_eq!(fixture.broker.published().len(), 1);
    let reason = outbox.pass_on(&message).await.expect_err("an event without marker is left to the broker");
    assert!(reason.ends_with("outbox state not found"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn events_without_marker_are_thrown_away_if_the_store_says_so() {
    let fixture = fixture(&[("outboxDiscardWhenMissingState", "true")], Store::default());
    let outbox = fixture.block.outbox("store").expect("it has one");
    let message = Message { data: r#"{"id":"outbox-1"}"#.into(), ..Message::default() };
    outbox.pass_on(&message).await.expect("thrown away");
    for (text, reason) in [("x", "expected value at line 1 column 1"), ("{}", "an event of the outbox has no id")] {
        let message = Message { data: text.into(), ..Message::default() };
        assert_eq!(outbox.pass_on(&message).await.expect_err(reason), reason);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_not_begun_if_its_events_cannot_be_sent() {
    let closed = fixture(&[("allowedTopics", "orders")], Store::default());
    let error = closed.transact(vec![upsert("1", "2", &[])]).await.expect_err("the internal topic is closed");
    assert_eq!(error.code(), crate::Code::PubSubOutbox);
    let expect = "error while publishing outbox message: \
                  topic defaultmyappordersoutbox is not allowed for app id myapp";
    assert_eq!(error.message(), expect);
    assert!(closed.store.keys().is_empty());

    let missing = fixture(&[("outboxPubsub", "no")], Store::default());
    let error = missing.transact(vec![upsert("1", "2", &[])]).await.expect_err("no such broker");
    assert_eq!(error.message(), "error while publishing outbox message: pubsub 'no' not found");
}

#[test]
fn a_store_has_an_outbox_if_it_says_where_to_publish() {
    let parse = |pairs: &[(&str, &str)]| OutboxSettings::parse(&pairs.iter().copied().collect());
    assert_eq!(parse(&[("outboxPublishPubsub", "ps")]), None);
    assert_eq!(parse(&[("outboxPublishTopic", "t")]), None);
    let settings = parse(&[("outboxPublishPubsub", "ps"), ("outboxPublishTopic", "t")]).expect("an outbox");
    assert_eq!((settings.pubsub.as_str(), settings.discards_when_missing), ("ps", false));
}
