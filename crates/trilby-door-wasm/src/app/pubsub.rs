//! Messages for guests that export `subscriber` or `bulk-subscriber`.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use trilby_component::{Metadata, pubsub::Bulk};
use trilby_core::{
    ChannelError, Ctx,
    pubsub::{BulkDelivery, BulkEntry, Delivery, Event, Origin, Outcome, Route, Rule, Subscription},
};

use super::{App, failure};
use crate::{
    Handler,
    wit::{
        exports::trilby::dapr::{bulk_subscriber, subscriber},
        trilby::dapr::events,
    },
};

/// Dapr's defaults for messages that are handed on several at a time.
const MAX_MESSAGES: u32 = 100;
const MAX_AWAIT_MS: u32 = 1000;

/// What the guest asks for, with either export.
pub(super) async fn subscriptions(app: &App, ctx: &Ctx) -> Result<Vec<Subscription>, ChannelError> {
    let mut all = Vec::new();
    if app.report.has(Handler::Subscriber) {
        let asked = app
            .call(ctx, |store, exports| Box::pin(async move { exports.subscriber().call_subscriptions(store).await }));
        all.extend(asked.await?.into_iter().map(single));
    }
    if app.report.has(Handler::BulkSubscriber) {
        let asked = app.call(ctx, |store, exports| {
            Box::pin(async move { exports.bulk_subscriber().call_subscriptions(store).await })
        });
        all.extend(asked.await?.into_iter().map(bulk));
    }
    Ok(all)
}

/// One event, to whichever of the two exports there is.
pub(super) async fn deliver(app: &App, ctx: &Ctx, delivery: &Delivery<'_>) -> Result<Outcome, ChannelError> {
    let Delivery { event, pubsub, topic, path, metadata } = *delivery;
    let event = to_wit(event, &Place { pubsub, topic, path }, metadata);
    if app.report.has(Handler::Subscriber) {
        return handle(app, ctx, event).await;
    }
    let outcomes = handle_bulk(app, ctx, vec![event]).await?;
    Ok(outcomes.into_iter().next().unwrap_or(Outcome::Retry))
}

/// Several events, in one call if the guest can take that.
pub(super) async fn deliver_bulk(
    app: &App,
    ctx: &Ctx,
    delivery: &BulkDelivery<'_>,
) -> Result<Vec<Outcome>, ChannelError> {
    let place = Place { pubsub: delivery.pubsub, topic: delivery.topic, path: delivery.path };
    let events = delivery.entries.iter().map(|entry| entry_to_wit(entry, &place));
    if app.report.has(Handler::BulkSubscriber) {
        return handle_bulk(app, ctx, events.collect()).await;
    }
    one_by_one(app, ctx, events).await
}

/// An event that the guest fails at is to come again, and does not keep the others waiting.
async fn one_by_one(
    app: &App,
    ctx: &Ctx,
    events: impl Iterator<Item = events::Event>,
) -> Result<Vec<Outcome>, ChannelError> {
    let mut outcomes = Vec::with_capacity(events.size_hint().0);
    let mut failure = None;
    let mut failed = 0;
    for event in events {
        outcomes.push(handle(app, ctx, event).await.unwrap_or_else(|error| {
            failure = Some(error);
            failed += 1;
            Outcome::Retry
        }));
    }
    match failure {
        Some(error) if failed == outcomes.len() => Err(error),
        _ => Ok(outcomes),
    }
}

async fn handle(app: &App, ctx: &Ctx, event: events::Event) -> Result<Outcome, ChannelError> {
    let handled = app.call(ctx, move |store, exports| {
        Box::pin(async move { exports.subscriber().call_handle(store, &event).await })
    });
    handled.await.map(outcome)
}

/// One outcome an event: those that the guest leaves out are to come again.
async fn handle_bulk(app: &App, ctx: &Ctx, events: Vec<events::Event>) -> Result<Vec<Outcome>, ChannelError> {
    let count = events.len();
    let handled = app.call(ctx, move |store, exports| {
        Box::pin(async move { exports.bulk_subscriber().call_handle(store, &events).await })
    });
    let mut outcomes: Vec<_> = handled.await?.into_iter().map(outcome).collect();
    if outcomes.len() > count {
        return Err(failure::of_answer(&app.id, format_args!("{} outcomes for {count} events", outcomes.len())));
    }
    outcomes.resize(count, Outcome::Retry);
    Ok(outcomes)
}

fn outcome(outcome: events::Outcome) -> Outcome {
    match outcome {
        events::Outcome::Ack => Outcome::Ack,
        events::Outcome::Retry => Outcome::Retry,
        events::Outcome::Drop => Outcome::Drop,
    }
}

fn single(asked: subscriber::Subscription) -> Subscription {
    Subscription {
        pubsub: asked.pubsub,
        topic: asked.topic,
        metadata: asked.metadata.into_iter().collect(),
        route: route(asked.rules, asked.path),
        dead_letter_topic: asked.dead_letter_topic,
        bulk: None,
        order_by: asked.order_by,
        scopes: Vec::new(),
        origin: Origin::Programmatic,
    }
}

fn bulk(asked: bulk_subscriber::Subscription) -> Subscription {
    let max_await_ms = asked.max_await_ms.unwrap_or(MAX_AWAIT_MS);
    let bulk = Bulk {
        max_messages: asked.max_messages.unwrap_or(MAX_MESSAGES).max(1) as usize,
        max_await: Duration::from_millis(max_await_ms.into()),
    };
    Subscription {
        pubsub: asked.pubsub,
        topic: asked.topic,
        metadata: asked.metadata.into_iter().collect(),
        route: route(asked.rules, asked.path),
        dead_letter_topic: asked.dead_letter_topic,
        bulk: Some(bulk.into()),
        order_by: None,
        scopes: Vec::new(),
        origin: Origin::Programmatic,
    }
}

/// A guest needs no route to tell its only subscription by.
fn route(rules: Vec<events::Rule>, path: Option<String>) -> Route {
    let default = if rules.is_empty() { Some(path.unwrap_or_default()) } else { path };
    let rules = rules.into_iter().map(|rule| Rule { condition: rule.match_, path: rule.path });
    Route { rules: rules.collect(), default }
}

/// Where an event came from, and where it goes.
struct Place<'a> {
    pubsub: &'a str,
    topic: &'a str,
    path: &'a str,
}

fn entry_to_wit(entry: &BulkEntry, place: &Place<'_>) -> events::Event {
    match &entry.event {
        Ok(event) => to_wit(event, place, &entry.metadata),
        Err(bytes) => raw_to_wit(entry, bytes, place),
    }
}

fn to_wit(event: &Event, place: &Place<'_>, metadata: &Metadata) -> events::Event {
    let (mut time, mut subject, mut extensions) = (None, None, Vec::new());
    for (name, value) in event.extensions() {
        match name {
            "time" => time = Some(text(value)),
            "subject" => subject = Some(text(value)),
            // Said by the place.
            "topic" | "pubsubname" => {}
            // A trace that is not there. Every text costs an allocation in the guest.
            "traceid" | "traceparent" | "tracestate" if value == "" => {}
            _ => extensions.push((name.to_owned(), text(value))),
        }
    }
    events::Event {
        id: event.id().to_owned(),
        source: event.source().to_owned(),
        type_: event.type_name().to_owned(),
        spec_version: event.spec_version().to_owned(),
        data: event.data().into(),
        data_content_type: event.data_content_type().to_owned(),
        time,
        subject,
        extensions,
        ..bare(place, metadata)
    }
}

fn raw_to_wit(entry: &BulkEntry, bytes: &Bytes, place: &Place<'_>) -> events::Event {
    events::Event {
        id: entry.entry_id.clone(),
        data: bytes.to_vec(),
        data_content_type: entry.content_type.clone(),
        ..bare(place, &entry.metadata)
    }
}

fn bare(place: &Place<'_>, metadata: &Metadata) -> events::Event {
    events::Event {
        id: String::new(),
        source: String::new(),
        type_: String::new(),
        spec_version: String::new(),
        data: Vec::new(),
        data_content_type: String::new(),
        pubsub: place.pubsub.to_owned(),
        topic: place.topic.to_owned(),
        path: place.path.to_owned(),
        time: None,
        subject: None,
        extensions: Vec::new(),
        metadata: metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_rules_every_event_has_a_route_and_with_rules_only_those_that_fit() {
        let rule = || vec![events::Rule { match_: "event.type == 'x'".into(), path: "x".into() }];
        let given = || Some("p".to_owned());
        assert_eq!(route(Vec::new(), None).default.as_deref(), Some(""));
        assert_eq!(route(Vec::new(), given()).default.as_deref(), Some("p"));
        assert_eq!(route(rule(), None).default, None);
        assert_eq!(route(rule(), given()).default.as_deref(), Some("p"));
    }
}
