//! Publishing, against a broker that notes what it gets and fails when told to.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use http::HeaderValue;
use trilby_component::{
    CancellationToken, ComponentError, ErrorKind,
    pubsub::{Feature, Message, Sink, SubscribeRequest, Subscription as Reading},
};

use super::*;
use crate::{
    Code, Identity,
    metrics::Metrics,
    resiliency::{Backoff, ComponentTarget, Names, Policies, Resource, Retry},
};

/// Notes what it is given; a message whose data it is told to fail, fails once.
#[derive(Default)]
pub(super) struct Fake {
    published: Mutex<Vec<PublishRequest>>,
    fail_once: Mutex<HashSet<Bytes>>,
    sinks: Mutex<Vec<(String, Arc<dyn Sink>)>>,
}

impl Fake {
    pub(super) fn published(&self) -> MutexGuard<'_, Vec<PublishRequest>> {
        self.published.lock().expect("not poisoned")
    }

    fn fail_once(&self, data: &'static str) {
        self.fail_once.lock().expect("not poisoned").insert(data.into());
    }
}

#[async_trait]
impl PubSub for Fake {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn publish(&self, request: &PublishRequest) -> trilby_component::Result<()> {
        if self.fail_once.lock().expect("not poisoned").remove(&request.data) {
            return Err(ComponentError::new(ErrorKind::Unavailable, "told to fail"));
        }
        self.published().push(request.clone());
        let sinks = self.sinks.lock().expect("not poisoned").clone();
        for (_, sink) in sinks.into_iter().filter(|(topic, _)| *topic == request.topic) {
            let message = Message { data: request.data.clone(), topic: request.topic.clone(), ..Message::default() };
            tokio::spawn(async move {
                while sink.deliver(message.clone()).await.is_err() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
        }
        Ok(())
    }

    async fn subscribe(
        &self,
        request: &SubscribeRequest,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> trilby_component::Result<Reading> {
        self.sinks.lock().expect("not poisoned").push((request.topic.clone(), sink));
        Ok(Box::pin(async move {
            stop.cancelled().await;
            Ok(())
        }))
    }
}

pub(super) struct Fixture {
    pub(super) block: PubSubApi,
    pub(super) broker: Arc<Fake>,
    metrics: Metrics,
}

pub(super) fn fixture(properties: &[(&str, &str)], retries: u32) -> Fixture {
    let app = Identity::new("myapp");
    let metrics = Metrics::default();
    let retry = Retry::new(Backoff::Constant(Duration::ZERO), Some(retries));
    let outbound = Names { retry: Some("again".into()), ..Names::default() };
    let resource = Resource {
        retries: [("again".to_owned(), retry)].into(),
        components: [("ps".to_owned(), ComponentTarget { outbound, ..ComponentTarget::default() })].into(),
        ..Resource::default()
    };
    let policies = Policies::new([&resource], &app, &metrics);
    let wiring = Wiring { app: &app, metrics: &metrics, policies: &policies };
    let broker = Arc::new(Fake::default());
    let component = PubSubComponent {
        name: "ps".into(),
        broker: Arc::clone(&broker) as _,
        scopes: Scopes::parse(&properties.iter().copied().collect(), &app),
        topic_prefix: "prod".into(),
    };
    Fixture { block: PubSubApi::new(&wiring, [component], Vec::new()), broker, metrics }
}

fn event(topic: &str, data: &'static str) -> Publish {
    Publish { topic: topic.into(), data: data.into(), ..Publish::default() }
}

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn traced() -> Ctx {
    let parent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    Ctx { trace: Trace { parent: Some(parent), ..Trace::default() }, ..Ctx::default() }
}

#[tokio::test]
async fn an_event_is_published_in_an_envelope_under_the_complete_topic() {
    let Fixture { block, broker, metrics } = fixture(&[], 0);
    block.publish(&Ctx::default(), "ps", event("a", "hi")).await.expect("published");
    let published = broker.published();
    let request = &published[0];
    assert_eq!((request.topic.as_str(), request.content_type.as_str()), ("proda", ""));
    let envelope: serde_json::Value = serde_json::from_slice(&request.data).expect("JSON");
    assert_eq!([&envelope["topic"], &envelope["data"], &envelope["source"]], ["a", "hi", "myapp"]);
    let counted = r#"component="ps",namespace="",topic="a",success="true"} 1"#;
    assert!(metrics.render().contains(counted), "{}", metrics.render());
}

#[tokio::test]
async fn raw_data_is_published_as_it_is_with_its_trace_beside_it() {
    let Fixture { block, broker, .. } = fixture(&[], 0);
    let raw = Publish { metadata: metadata(&[("rawPayload", "true"), ("key", "k")]), ..event("a", "hi") };
    block.publish(&traced(), "ps", raw).await.expect("published");
    let published = broker.published();
    assert_eq!(published[0].data, "hi");
    let names: Vec<_> = published[0].metadata.keys().map(String::as_str).collect();
    assert_eq!(names, ["key", "rawPayload", "traceid"]);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_daprs_order() {
    let Fixture { block, broker, .. } = fixture(&[("allowedTopics", "a")], 0);
    let unreadable = metadata(&[("rawPayload", "perhaps")]);
    let no_event = "application/cloudevents+json".to_owned();
    for (pubsub, publish, code, message) in [
        ("", event("", ""), Code::PubSubNameEmpty, "pubsub name is empty"),
        ("no", event("", ""), Code::PubSubNotFound, "pubsub no is not found"),
        (
            "ps",
            Publish { metadata: unreadable.clone(), ..event("", "") },
            Code::PubSubTopicEmpty,
            "topic is empty in pubsub ps",
        ),
        (
            "ps",
            Publish { metadata: unreadable, ..event("b", "") },
            Code::PubSubMetadata,
            "failed deserializing metadata. Error: rawPayload value must be a valid boolean: actual is 'perhaps'",
        ),
        (
            "ps",
            Publish { content_type: no_event, ..event("b", "x") },
            Code::PubSubCloudEvent,
            "cannot create cloudevent",
        ),
        ("ps", event("b", ""), Code::PubSubForbidden, "topic b is not allowed for app id myapp"),
    ] {
        let error = block.publish(&Ctx::default(), pubsub, publish).await.expect_err(message);
        assert_eq!((error.code(), error.message()), (code, message));
        assert!(error.details().is_some());
    }
    assert!(broker.published().is_empty());
}

#[tokio::test]
async fn a_failure_of_the_broker_is_repeated_by_policy_and_then_told() {
    let Fixture { block, broker, .. } = fixture(&[], 1);
    let raw = |data| Publish { metadata: metadata(&[("rawPayload", "1")]), ..event("a", data) };
    broker.fail_once("x");
    block.publish(&Ctx::default(), "ps", raw("x")).await.expect("the second attempt");
    assert_eq!(broker.published().len(), 1);

    let Fixture { block, broker, metrics } = fixture(&[], 0);
    broker.fail_once("x");
    let error = block.publish(&Ctx::default(), "ps", raw("x")).await.expect_err("told to fail");
    assert_eq!(error.message(), "error when publishing to topic a in pubsub ps: told to fail");
    assert!(metrics.render().contains(r#"topic="a",success="false"} 1"#));
}

fn entries(data: &[&'static str]) -> BulkPublish {
    let entry = |data: &&'static str| PublishEntry {
        entry_id: format!("id-{data}"),
        data: Bytes::from_static(data.as_bytes()),
        ..PublishEntry::default()
    };
    BulkPublish {
        topic: "a".into(),
        entries: data.iter().map(entry).collect(),
        metadata: metadata(&[("rawPayload", "true")]),
    }
}

#[tokio::test]
async fn a_retry_of_several_repeats_only_what_failed() {
    let Fixture { block, broker, .. } = fixture(&[], 1);
    broker.fail_once("2");
    let failed = block.bulk_publish(&Ctx::default(), "ps", entries(&["1", "2", "3"])).await.expect("tried");
    assert!(failed.is_empty());
    let published: Vec<_> = broker.published().iter().map(|request| request.data.clone()).collect();
    assert_eq!(published, ["1", "3", "2"]);
}

#[tokio::test]
async fn of_several_each_that_failed_is_named() {
    let Fixture { block, broker, metrics } = fixture(&[], 0);
    broker.fail_once("1");
    broker.fail_once("3");
    let failed = block.bulk_publish(&Ctx::default(), "ps", entries(&["1", "2", "3"])).await.expect("tried");
    let failed: Vec<_> = failed.iter().map(|entry| (&*entry.entry_id, entry.error.to_string())).collect();
    let error = "told to fail";
    assert_eq!(failed, [("id-1", error.to_owned()), ("id-3", error.to_owned())]);
    assert_eq!(
        block.publish_error("ps", "a", error).message(),
        "error when publishing to topic a in pubsub ps: told to fail"
    );
    assert!(
        metrics.render().contains(r#"egress_bulk_event_count{app_id="myapp",component="ps",namespace="",topic="a""#)
    );
}

#[tokio::test]
async fn entries_need_an_id_of_their_own() {
    let Fixture { block, broker, .. } = fixture(&[], 0);
    let mut nameless = entries(&["1"]);
    nameless.entries[0].entry_id.clear();
    for request in [entries(&["1", "1"]), nameless] {
        let error = block.bulk_publish(&Ctx::default(), "ps", request).await.expect_err("ids");
        assert_eq!(error.code(), Code::PubSubEntryId);
    }
    assert!(block.bulk_publish(&Ctx::default(), "ps", entries(&[])).await.expect("nothing to do").is_empty());
    assert!(broker.published().is_empty());
}

#[tokio::test]
async fn metadata_of_the_request_reach_entries_that_have_some() {
    let Fixture { block, broker, .. } = fixture(&[], 0);
    let mut request = entries(&["1", "2"]);
    request.metadata.insert("key".into(), "request".into());
    request.entries[1].metadata = metadata(&[("own", "entry")]);
    block.bulk_publish(&Ctx::default(), "ps", request).await.expect("published");
    let published = broker.published();
    assert!(published[0].metadata.is_empty());
    assert_eq!(published[1].metadata, metadata(&[("key", "request"), ("own", "entry"), ("rawPayload", "true")]));
}
