//! What apps with routes get, and what their answers mean: golden/app recordings and the documented tables.

use std::sync::Mutex;

use bytes::Bytes;
use trilby_component::{
    configuration::Item,
    pubsub::{Bulk, Message},
};

use super::*;
use crate::{
    app,
    pubsub::{BulkDelivery, BulkEntry, Event, Origin, Rule, Subscription},
};

const ENVELOPE: &str = r#"{"data":{"a":1},"id":"1","source":"s","specversion":"1.0","topic":"a","type":"t"}"#;

/// An app that answers the same to everything, and what it was asked.
struct Asked {
    requests: std::sync::Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>,
}

fn answering(status: u16, body: &'static str) -> (impl AppChannel, Asked) {
    let requests = std::sync::Arc::new(Mutex::new(Vec::new()));
    let asked = Asked { requests: std::sync::Arc::clone(&requests) };
    let channel = app::from_fn(move |request: Request| {
        let requests = std::sync::Arc::clone(&requests);
        async move {
            let (parts, sent) = request.into_parts();
            let sent = sent.collect(usize::MAX).await.expect("in hand");
            requests.lock().expect("not poisoned").push((parts, sent));
            http::Response::builder().status(status).body(Body::from(body)).expect("a response")
        }
    });
    (channel, asked)
}

impl Asked {
    /// Method, path, headers and body of the only request.
    fn only(&self) -> (String, String, Vec<(String, String)>, String) {
        let requests = self.requests.lock().expect("not poisoned");
        let [(parts, body)] = requests.as_slice() else { panic!("{} requests", requests.len()) };
        let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
        let mut headers: Vec<_> = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        headers.sort();
        (parts.method.to_string(), parts.uri.to_string(), headers, String::from_utf8(body.to_vec()).expect("text"))
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn event() -> Event {
    let message = Message { data: ENVELOPE.into(), ..Message::default() };
    Event::from_message(&message, "ps", "a", false).expect("an event")
}

async fn deliver_to(app: &impl AppChannel, metadata: &Metadata) -> Result<Outcome, ChannelError> {
    let delivery = Delivery { event: &event(), pubsub: "ps", topic: "a", path: "/a", metadata };
    let mut ctx = Ctx::default();
    ctx.trace.parent = Some(UNTRACED);
    app.deliver(&ctx, &delivery).await
}

#[tokio::test]
async fn an_event_is_posted_with_the_brokers_metadata_as_headers() {
    let (app, asked) = answering(200, "");
    let metadata =
        [("ttlInSeconds", "10"), ("content-type", "x/y"), ("Host", "evil"), ("bad name", "v"), ("k", "a\nb")];
    let metadata: Metadata = pairs(&metadata).into_iter().collect();
    assert_eq!(deliver_to(&app, &metadata).await.expect("handled"), Outcome::Ack);
    let headers = pairs(&[
        ("content-type", "application/cloudevents+json"),
        ("pubsubname", "ps"),
        ("traceparent", "00-00000000000000000000000000000000-0000000000000000-00"),
        ("ttlinseconds", "10"),
    ]);
    assert_eq!(asked.only(), ("POST".into(), "/a".into(), headers, ENVELOPE.into()));
}

#[tokio::test]
async fn the_answer_decides_what_becomes_of_an_event() {
    for (status, body, expect) in [
        (200, "", Ok(Outcome::Ack)),
        (204, "", Ok(Outcome::Ack)),
        (200, "thanks", Ok(Outcome::Ack)),
        (200, "[]", Ok(Outcome::Ack)),
        (200, r#"{"status":5}"#, Ok(Outcome::Ack)),
        (200, r#"{"status":null}"#, Ok(Outcome::Ack)),
        (200, r#"{"status":""}"#, Ok(Outcome::Ack)),
        (201, r#"{"status":"SUCCESS"}"#, Ok(Outcome::Ack)),
        (200, r#"{"status":"RETRY"} and more"#, Ok(Outcome::Retry)),
        (200, r#"{"status":"DROP"}"#, Ok(Outcome::Drop)),
        (200, r#"{"status":"MAYBE"}"#, Err(None)),
        (404, "", Ok(Outcome::Drop)),
        (500, "x", Err(Some(500))),
        (302, "", Err(Some(302))),
    ] {
        let (app, _) = answering(status, body);
        let result = deliver_to(&app, &Metadata::new()).await.map_err(|error| error.status);
        assert_eq!(result, expect, "{status} {body}");
    }
}

#[tokio::test]
async fn several_events_are_one_envelope_and_have_a_status_each() {
    let entry = |id: &str, event, metadata: &[(&str, &str)]| BulkEntry {
        entry_id: id.into(),
        event,
        content_type: "application/cloudevents+json".into(),
        metadata: pairs(metadata).into_iter().collect(),
    };
    let entries = [
        entry("1", Ok(event()), &[]),
        entry("2", Err("\u{0}\u{1}".into()), &[("m", "1")]),
        entry("3", Ok(event()), &[]),
        entry("4", Ok(event()), &[]),
        entry("5", Ok(event()), &[]),
    ];
    let entries: Vec<_> = entries.iter().collect();
    let delivery = |entries| BulkDelivery {
        id: "i",
        entries,
        pubsub: "ps",
        topic: "bulk",
        path: "/bulk",
        metadata: const { &Metadata::new() },
    };
    let statuses = r#"{"statuses":[{"entryId":"2","status":"RETRY"},{"entryId":"1","status":"SUCCESS"},
        {"entryId":"3","status":"DROP"},{"entryId":"4","status":"MAYBE"},{"entryId":"9","status":"DROP"}]}"#;
    let (app, asked) = answering(200, statuses);
    let outcomes = app.deliver_bulk(&Ctx::default(), &delivery(&entries)).await.expect("handled");
    assert_eq!(outcomes, [Outcome::Ack, Outcome::Retry, Outcome::Drop, Outcome::Retry, Outcome::Retry]);

    let (app, first) = answering(200, statuses);
    app.deliver_bulk(&Ctx::default(), &delivery(&entries[..2])).await.expect("handled");
    let (_, path, _, body) = first.only();
    let expect = format!(
        r#"{{"entries":[{{"entryId":"1","event":{ENVELOPE},"metadata":null,"contentType":"application/cloudevents+json"}},{{"entryId":"2","event":"AAE=","metadata":{{"m":"1"}},"contentType":"application/cloudevents+json"}}],"id":"i","metadata":{{"pubsubName":"ps"}},"pubsubname":"ps","topic":"bulk","type":"com.dapr.event.sent.bulk"}}"#
    );
    assert_eq!((path.as_str(), body), ("/bulk", expect));
    assert_eq!(asked.only().0, "POST");

    for (status, body, expect) in [
        (404, "", Ok(vec![Outcome::Drop; 5])),
        (200, "{}", Ok(vec![Outcome::Retry; 5])),
        (200, "", Err(None)),
        (200, "ok", Err(None)),
        (503, "", Err(Some(503))),
    ] {
        let (app, _) = answering(status, body);
        let result = app.deliver_bulk(&Ctx::default(), &delivery(&entries)).await.map_err(|error| error.status);
        assert_eq!(result, expect, "{status} {body}");
    }
}

#[tokio::test]
async fn an_app_says_what_it_subscribes_to_in_either_form() {
    let answer = r#"[
        {"pubsubname":"ps","topic":"a","route":"a","deadLetterTopic":"dead","metadata":{"rawPayload":"true"}},
        {"pubsubname":"ps","topic":"b","routes":{"rules":[{"match":"event.type == 'x'","path":"/x"}],"default":"/d"},
         "bulkSubscribe":{"enabled":true,"maxMessagesCount":5,"maxAwaitDurationMs":40},"metadata":null},
        {"pubsubname":"ps","topic":"c","route":"/c","bulkSubscribe":{"enabled":true},"orderBy":"subject"},
        {"pubsubname":"ps","topic":"none"},
        {"pubsubname":"ps","topic":"none","routes":{"rules":[]},"bulkSubscribe":{"enabled":false}}
    ]"#;
    let (app, asked) = answering(200, answer);
    let subscriptions = app.subscriptions(&Ctx::default()).await.expect("a list");
    assert_eq!(asked.only().1, "/dapr/subscribe");
    let [a, b, c] = subscriptions.as_slice() else { panic!("{subscriptions:?}") };
    assert_eq!((a.route.default.as_deref(), a.dead_letter_topic.as_deref()), (Some("a"), Some("dead")));
    assert_eq!((a.metadata.len(), a.bulk, a.origin), (1, None, Origin::Programmatic));
    let rules = [Rule { condition: "event.type == 'x'".into(), path: "/x".into() }];
    assert_eq!((b.route.rules.as_slice(), b.route.default.as_deref()), (rules.as_slice(), Some("/d")));
    let bulk = |subscription: &Subscription| {
        let bulk = subscription.bulk.expect("asked for").or(Bulk::default());
        (bulk.max_messages, bulk.max_await.as_millis())
    };
    assert_eq!((bulk(b), bulk(c)), ((5, 40), (100, 1000)));
    assert_eq!(c.order_by.as_deref(), Some("subject"));

    for (status, body, expect) in [
        (404, "", Ok(0)),
        (200, "", Ok(0)),
        (200, "null", Ok(0)),
        (200, "{}", Err(None)),
        (500, "", Err(Some(500))),
        (204, "", Err(Some(204))),
    ] {
        let (app, _) = answering(status, body);
        let result = app.subscriptions(&Ctx::default()).await;
        assert_eq!(result.map(|list| list.len()).map_err(|error| error.status), expect, "{status} {body}");
    }
}

#[tokio::test]
async fn a_binding_is_wanted_if_its_route_is_there() {
    for (status, expect) in [(200, true), (204, true), (405, true), (404, false), (500, false)] {
        let (app, asked) = answering(status, "");
        let listens = app.listens_to_binding(&Ctx::default(), "tick", "/tick").await.expect("asked");
        assert_eq!(listens, expect, "{status}");
        let (method, path, headers, _) = asked.only();
        assert_eq!((method.as_str(), path.as_str()), ("OPTIONS", "/tick"));
        assert_eq!(headers, pairs(&[("content-type", "application/json")]));
    }
}

#[tokio::test]
async fn a_binding_event_is_posted_and_its_answer_is_the_bindings() {
    let (app, asked) = answering(200, r#"{"to":["x"]}"#);
    let metadata = pairs(&[("timeZone", "Local"), ("traceparent", "no header")]).into_iter().collect();
    let event =
        BindingEvent { binding: "tick", path: "/tick", data: &Bytes::new(), content_type: None, metadata: &metadata };
    let reply = app.binding_event(&Ctx::default(), &event).await.expect("handled");
    assert_eq!((reply.data.as_deref(), reply.to.len()), (Some(br#"{"to":["x"]}"#.as_slice()), 0));
    let headers = pairs(&[
        ("content-type", "application/json"),
        ("timezone", "Local"),
        ("traceparent", "00-00000000000000000000000000000000-0000000000000000-00"),
    ]);
    assert_eq!(asked.only(), ("POST".into(), "/tick".into(), headers, String::new()));

    let (app, _) = answering(500, "sorry");
    let error = app.binding_event(&Ctx::default(), &event).await.expect_err("not handled");
    assert_eq!(error.status, Some(500));
    assert_eq!(error.message, "fails to send binding event to http app channel, status code: 500 body: sorry");
}

#[tokio::test]
async fn a_configuration_change_is_posted_for_its_key() {
    let (app, asked) = answering(200, "");
    let item = Item { value: "red".into(), version: "8".into(), metadata: Metadata::new() };
    let items = [("color".to_owned(), item)].into();
    let update = ConfigurationUpdate { store: "conf", id: "i", items: &items };
    app.configuration_changed(&Ctx::default(), &update).await.expect("taken");
    let (method, path, _, body) = asked.only();
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/configuration/conf/color"));
    assert_eq!(body, "{\"id\":\"i\",\"items\":{\"color\":{\"value\":\"red\",\"version\":\"8\"}}}\n");
    let gone = [("color".to_owned(), Item::default())].into();
    let body = json::configuration_update(&ConfigurationUpdate { store: "conf", id: "i", items: &gone });
    assert_eq!(body, "{\"id\":\"i\",\"items\":{\"color\":{}}}\n");
    let (app, _) = answering(500, "");
    assert_eq!(app.configuration_changed(&Ctx::default(), &update).await.expect_err("refused").status, Some(500));
}

#[tokio::test]
async fn an_app_is_healthy_if_it_says_so() {
    for (status, healthy) in [(200, true), (299, true), (302, false), (503, false)] {
        let (app, asked) = answering(status, "");
        assert_eq!(app.check_health(&Ctx::default(), "/healthz").await.is_ok(), healthy, "{status}");
        assert_eq!(asked.only().1, "/healthz");
    }
}

#[test]
fn routes_are_called_as_daprd_calls_them() {
    for (route, expect) in [
        ("/a", "/a"),
        ("a/b", "/a/b"),
        ("/a//b/", "/a/b"),
        ("/a/../b", "/b"),
        ("", "/"),
        ("/orders?x=1", "/orders?x=1"),
        ("/a b", "/a%20b"),
    ] {
        assert_eq!(uri(route).expect(route).to_string(), expect);
    }
}
