//! What every broker must do, as applications see it: one publishes through the door, another listens. Each case is a
//! sentence and has topics of its own.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::time::timeout;
use trilby_core::{
    Ctx,
    pubsub::{Event, EventStream, Outcome as Verdict, StreamRequest, StreamedEvent},
};

use super::{Case, Outcome, Running, check, check_eq};
use crate::client::{Client, Message};

/// Longest time from publishing to delivery. Brokers that wait for an acknowledgement before they deliver again take
/// seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// What every topic of these cases begins with, for brokers that want to be told.
pub const TOPICS: &str = "suite";
/// How long nothing must happen to count as never.
const SILENCE: Duration = Duration::from_millis(300);

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    vec![
        case("an_event_arrives_with_its_attributes", |c, p| Box::pin(attributes(c, p))),
        case("json_arrives_as_json", |c, p| Box::pin(json_data(c, p))),
        case("text_arrives_as_text", |c, p| Box::pin(text_data(c, p))),
        case("bytes_arrive_as_they_were", |c, p| Box::pin(binary_data(c, p))),
        case("a_whole_cloud_event_keeps_its_attributes", |c, p| Box::pin(cloud_event(c, p))),
        case("raw_data_is_not_put_into_an_event", |c, p| Box::pin(raw_data(c, p))),
        case("several_events_are_published_in_one_request", |c, p| Box::pin(bulk(c, p))),
        case("events_of_one_publisher_arrive_in_order", |c, p| Box::pin(order(c, p))),
        case("an_event_that_was_not_handled_comes_again", |c, p| Box::pin(redelivery(c, p))),
        case("a_dropped_event_goes_to_the_dead_letters", |c, p| Box::pin(dead_letter(c, p))),
        case("other_topics_are_not_heard", |c, p| Box::pin(other_topics(c, p))),
        case("a_large_event_arrives", |c, p| Box::pin(large(c, p))),
        case("an_unknown_broker_is_an_error_that_names_it", |c, p| Box::pin(unknown_broker(c, p))),
    ]
}

fn case(name: &'static str, run: for<'a> fn(&'a dyn Client, &'a str) -> Running<'a>) -> Case {
    Case::new(name, Vec::new(), run)
}

/// A topic that no other case has, nor an earlier run against the same server. All are below [`TOPICS`].
fn topic(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("{TOPICS}.{name}-{now}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// An open subscription.
struct Ear(EventStream);

impl Ear {
    async fn open(c: &dyn Client, pubsub: &str, request: StreamRequest) -> Result<Self, String> {
        let listener = c.listener().ok_or("this door's client has nobody who listens")?;
        let request = StreamRequest { pubsub: pubsub.to_owned(), ..request };
        listener.pubsub.stream(&Ctx::default(), request).await.map(Self).map_err(|error| error.to_string())
    }

    async fn on(c: &dyn Client, pubsub: &str, topic: &str) -> Result<Self, String> {
        Self::open(c, pubsub, StreamRequest { topic: topic.to_owned(), ..StreamRequest::default() }).await
    }

    async fn next(&mut self) -> Result<StreamedEvent, String> {
        let next = timeout(PATIENCE, self.0.next()).await;
        next.map_err(|_| format!("nothing arrived within {PATIENCE:?}"))?.ok_or_else(|| "the stream ended".to_owned())
    }

    /// The next event, handled.
    async fn hear(&mut self) -> Result<Event, String> {
        let streamed = self.next().await?;
        let event = streamed.event().clone();
        streamed.settle(Verdict::Ack);
        Ok(event)
    }
}

async fn publish(c: &dyn Client, pubsub: &str, topic: &str, message: Message) -> Outcome {
    c.publish(pubsub, topic, &message).await.map_err(|failure| failure.to_string())
}

/// What is published to a topic that is listened to.
async fn heard(c: &dyn Client, pubsub: &str, name: &str, message: Message) -> Result<Event, String> {
    let topic = topic(name);
    let mut ear = Ear::on(c, pubsub, &topic).await?;
    publish(c, pubsub, &topic, message).await?;
    ear.hear().await
}

async fn attributes(c: &dyn Client, p: &str) -> Outcome {
    let message = Message::text("hi").with("cloudevent.type", "greeting").with("cloudevent.id", "id-1");
    let event = heard(c, p, "attributes", message).await?;
    check_eq("id", event.id(), "id-1")?;
    check_eq("type", event.type_name(), "greeting")?;
    check_eq("specversion", event.spec_version(), "1.0")?;
    check_eq("pubsubname", event.attribute("pubsubname"), Some(p))?;
    check(event.attribute("topic").is_some_and(|topic| topic.contains("attributes")), || format!("{event:?}"))?;
    check(!event.source().is_empty() && event.attribute("time").is_some(), || format!("{event:?}"))
}

async fn json_data(c: &dyn Client, p: &str) -> Outcome {
    let event = heard(c, p, "json", Message::json(r#"{"n": 1, "s": "ž <&> \n"}"#)).await?;
    let data: Value = serde_json::from_slice(&event.data()).map_err(|error| error.to_string())?;
    check_eq("data", data, json!({"n": 1, "s": "ž <&> \n"}))?;
    check_eq("content type", event.data_content_type(), "application/json")
}

async fn text_data(c: &dyn Client, p: &str) -> Outcome {
    let event = heard(c, p, "text", Message::text("a \"text\"\n€")).await?;
    check_eq("data", &*event.data(), "a \"text\"\n€".as_bytes())
}

async fn binary_data(c: &dyn Client, p: &str) -> Outcome {
    let bytes: Vec<_> = (0..=u8::MAX).collect();
    let message =
        Message { data: bytes.clone(), content_type: "application/octet-stream".into(), ..Message::default() };
    let event = heard(c, p, "bytes", message).await?;
    check_eq("data", &*event.data(), &*bytes)
}

async fn cloud_event(c: &dyn Client, p: &str) -> Outcome {
    let own = r#"{"id":"e1","source":"mine","type":"t","specversion":"1.0","extension":"x","data":{"a":1}}"#;
    let message =
        Message { data: own.into(), content_type: "application/cloudevents+json".into(), ..Message::default() };
    let event = heard(c, p, "whole", message).await?;
    check_eq("id", event.id(), "e1")?;
    check_eq("source", event.source(), "mine")?;
    check_eq("extension", event.attribute("extension"), Some("x"))?;
    check_eq("data", &*event.data(), &br#"{"a":1}"#[..])
}

async fn raw_data(c: &dyn Client, p: &str) -> Outcome {
    let topic = topic("raw");
    let request = StreamRequest {
        topic: topic.clone(),
        metadata: [("rawPayload".to_owned(), "true".to_owned())].into(),
        ..StreamRequest::default()
    };
    let mut ear = Ear::open(c, p, request).await?;
    publish(c, p, &topic, Message::text("bare").with("rawPayload", "true")).await?;
    check_eq("data", &*ear.hear().await?.data(), &b"bare"[..])
}

async fn bulk(c: &dyn Client, p: &str) -> Outcome {
    let topic = topic("bulk");
    let mut ear = Ear::on(c, p, &topic).await?;
    let numbers: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    let messages: Vec<_> = numbers.iter().map(|number| Message::text(number)).collect();
    let failed = c.publish_bulk(p, &topic, &messages).await.map_err(|failure| failure.to_string())?;
    check_eq("failed", failed, Vec::<String>::new())?;
    let mut found = Vec::new();
    for _ in &numbers {
        found.push(String::from_utf8_lossy(&ear.hear().await?.data()).into_owned());
    }
    found.sort();
    check_eq("data", found, numbers)
}

async fn order(c: &dyn Client, p: &str) -> Outcome {
    let topic = topic("order");
    let mut ear = Ear::on(c, p, &topic).await?;
    for number in 0..20 {
        // Brokers that divide a topic keep the order of a key.
        publish(c, p, &topic, Message::text(&number.to_string()).with("partitionKey", "one")).await?;
    }
    for number in 0..20 {
        check_eq("data", &*ear.hear().await?.data(), number.to_string().as_bytes())?;
    }
    Ok(())
}

async fn redelivery(c: &dyn Client, p: &str) -> Outcome {
    let topic = topic("again");
    let mut ear = Ear::on(c, p, &topic).await?;
    publish(c, p, &topic, Message::text("once more")).await?;
    let first = ear.next().await?;
    let id = first.event().id().to_owned();
    first.settle(Verdict::Retry);
    check_eq("id of the second delivery", ear.hear().await?.id(), &*id)
}

async fn dead_letter(c: &dyn Client, p: &str) -> Outcome {
    let (lively, dead) = (topic("lively"), topic("dead"));
    let mut grave = Ear::on(c, p, &dead).await?;
    let request = StreamRequest { topic: lively.clone(), dead_letter_topic: Some(dead), ..StreamRequest::default() };
    let mut ear = Ear::open(c, p, request).await?;
    publish(c, p, &lively, Message::text("unwanted")).await?;
    let unwanted = ear.next().await?;
    let id = unwanted.event().id().to_owned();
    unwanted.settle(Verdict::Drop);
    check_eq("id of the dead letter", grave.hear().await?.id(), &*id)
}

async fn other_topics(c: &dyn Client, p: &str) -> Outcome {
    let (one, other) = (topic("one"), topic("other"));
    let mut ear = Ear::on(c, p, &one).await?;
    let mut second = Ear::on(c, p, &other).await?;
    publish(c, p, &other, Message::text("elsewhere")).await?;
    second.hear().await?;
    check(timeout(SILENCE, ear.0.next()).await.is_err(), || "an event of another topic arrived".to_owned())
}

async fn large(c: &dyn Client, p: &str) -> Outcome {
    let text = "x".repeat(500_000);
    let event = heard(c, p, "large", Message::text(&text)).await?;
    check(event.data() == text.as_bytes(), || format!("{} bytes arrived", event.data().len()))
}

async fn unknown_broker(c: &dyn Client, _: &str) -> Outcome {
    match c.publish("no-such-broker", "t", &Message::text("")).await {
        Ok(()) => Err("it was published".to_owned()),
        Err(failure) => check(failure.text.contains("no-such-broker"), || failure.text.clone()),
    }
}
