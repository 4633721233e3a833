//! `GET /dapr/subscribe`: what an app with routes subscribes to.

use http::{Method, StatusCode};
use serde::{Deserialize, Deserializer};
use trilby_component::{ErrorKind, Metadata, pubsub::BulkSettings};

use super::{JSON, MAX_ANSWER_BYTES, broken, request};
use crate::{
    Ctx,
    app::{AppChannel, ChannelError},
    pubsub::{Origin, Route, Rule, Subscription},
};

/// One entry of the answer. `route` is the older way to say it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    #[serde(rename = "pubsubname", alias = "pubsubName", deserialize_with = "or_default")]
    pubsub: String,
    #[serde(deserialize_with = "or_default")]
    topic: String,
    #[serde(deserialize_with = "or_default")]
    dead_letter_topic: String,
    #[serde(deserialize_with = "or_default")]
    metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    route: String,
    #[serde(deserialize_with = "or_default")]
    routes: Routes,
    #[serde(deserialize_with = "or_default")]
    bulk_subscribe: BulkSubscribe,
    /// Ours.
    #[serde(deserialize_with = "or_default")]
    order_by: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Routes {
    #[serde(deserialize_with = "or_default")]
    rules: Vec<RuleEntry>,
    #[serde(deserialize_with = "or_default")]
    default: String,
}

#[derive(Deserialize)]
struct RuleEntry {
    #[serde(default, rename = "match", deserialize_with = "or_default")]
    condition: String,
    #[serde(default, deserialize_with = "or_default")]
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BulkSubscribe {
    enabled: bool,
    max_messages_count: i64,
    max_await_duration_ms: i64,
}

/// Go reads `null` as nothing said.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(in crate::app) async fn subscriptions<A: AppChannel + ?Sized>(
    app: &A,
    ctx: &Ctx,
) -> Result<Vec<Subscription>, ChannelError> {
    let response = app.invoke(ctx, request(Method::GET, "/dapr/subscribe", JSON, bytes::Bytes::new())?).await?;

    let (head, body) = response.into_parts();
    match head.status {
        StatusCode::OK => {
            let body = body.collect(MAX_ANSWER_BYTES).await.map_err(broken)?;
            parse(&body)
        }
        StatusCode::NOT_FOUND => Ok(Vec::new()),
        status => {
            let code = status.as_u16();
            let text = format!("app returned http status code {code} from subscription endpoint");
            Err(ChannelError::new(ErrorKind::Internal, text).with_status(code))
        }
    }
}

/// An empty answer is none; an entry without a route is dropped.
fn parse(body: &[u8]) -> Result<Vec<Subscription>, ChannelError> {
    let entries = serde_json::Deserializer::from_slice(body).into_iter::<Option<Vec<Entry>>>().next();
    let entries = entries.transpose().map_err(|error| {
        let text = format!("app's answer from subscription endpoint is not a list of subscriptions: {error}");
        ChannelError::new(ErrorKind::InvalidRequest, text)
    })?;
    let has_route = |subscription: &Subscription| {
        let Route { rules, default } = &subscription.route;
        let has_route = !rules.is_empty() || default.is_some();
        if !has_route {
            tracing::warn!(topic = subscription.topic, "subscription has no route and is not opened");
        }
        has_route
    };
    Ok(entries.flatten().unwrap_or_default().into_iter().map(Subscription::from).filter(has_route).collect())
}

impl From<Entry> for Subscription {
    fn from(entry: Entry) -> Self {
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        let rules = entry.routes.rules.into_iter().map(|RuleEntry { condition, path }| Rule { condition, path });
        Self {
            pubsub: entry.pubsub,
            topic: entry.topic,
            metadata: entry.metadata,
            route: Route { rules: rules.collect(), default: said(entry.routes.default).or_else(|| said(entry.route)) },
            dead_letter_topic: said(entry.dead_letter_topic),
            bulk: entry.bulk_subscribe.bulk(),
            order_by: said(entry.order_by),
            scopes: Vec::new(),
            origin: Origin::Programmatic,
        }
    }
}

impl BulkSubscribe {
    fn bulk(&self) -> Option<BulkSettings> {
        self.enabled.then(|| BulkSettings::new(self.max_messages_count, self.max_await_duration_ms))
    }
}
