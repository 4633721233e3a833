//! What this runtime is and has.

use std::collections::BTreeMap;

use serde::Serialize;
use trilby_component::properties::duration;
use trilby_core::{
    Body, Response, Result, metadata,
    pubsub::{Rule, Subscription},
};

use crate::codec::{self, Call};

/// Members in the order of golden/http/metadata-state.jsonl. Members of blocks that do not exist yet are left out, as
/// Dapr leaves out what is empty; a runtime without actors says so.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    id: &'a str,
    runtime_version: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    enabled_features: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Component<'a>>,
    extended: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions: Vec<Subscribed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    http_endpoints: Vec<HttpEndpoint<'a>>,
    app_connection_properties: AppConnection<'a>,
    actor_runtime: ActorRuntime,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resiliencies: Vec<Resiliency<'a>>,
}

#[derive(Serialize)]
struct Component<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    capabilities: &'a [&'static str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscribed {
    #[serde(rename = "pubsubname")]
    pubsub: String,
    topic: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    rules: Vec<RuleText>,
    dead_letter_topic: String,
    #[serde(rename = "type")]
    origin: &'static str,
}

#[derive(Serialize)]
struct RuleText {
    #[serde(rename = "match", skip_serializing_if = "String::is_empty")]
    condition: String,
    path: String,
}

#[derive(Serialize)]
struct HttpEndpoint<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Resiliency<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AppConnection<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "str::is_empty")]
    protocol: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    channel_address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<AppHealth<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AppHealth<'a> {
    health_check_path: &'a str,
    health_probe_interval: String,
    health_probe_timeout: String,
    health_threshold: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActorRuntime {
    runtime_status: &'static str,
    host_ready: bool,
    placement: &'static str,
}

const NO_ACTORS: ActorRuntime =
    ActorRuntime { runtime_status: "DISABLED", host_ready: false, placement: "placement: disconnected" };

/// `GET v1.0/metadata`
pub(crate) fn get(call: &Call<'_>) -> Response {
    let api = &call.door.api;

    let facts = api.metadata.facts();
    let extended = api.metadata.extended();

    codec::json_line(&Answer {
        id: &api.app.id,
        runtime_version: &facts.runtime_version,
        enabled_features: &facts.enabled_features,
        components: facts.components.iter().map(show).collect(),
        extended,
        subscriptions: api.pubsub.subscriptions().iter().map(|one| show_subscription(one)).collect(),
        http_endpoints: facts.http_endpoints.iter().map(|name| HttpEndpoint { name }).collect(),
        app_connection_properties: AppConnection {
            port: facts.app_connection.port,
            protocol: &facts.app_connection.protocol,
            channel_address: &facts.app_connection.channel_address,
            max_concurrency: facts.app_connection.max_concurrency,
            health: facts.app_connection.health.as_ref().map(|health| AppHealth {
                health_check_path: &health.path,
                health_probe_interval: duration::format(health.interval),
                health_probe_timeout: duration::format(health.timeout),
                health_threshold: health.threshold,
            }),
        },
        actor_runtime: NO_ACTORS,
        resiliencies: facts.resiliencies.iter().map(|name| Resiliency { name }).collect(),
    })
}

/// `PUT v1.0/metadata/{key}`
pub(crate) async fn set(call: &Call<'_>, body: Body) -> Result<Response> {
    let value = String::from_utf8_lossy(&call.raw_body(body).await?).into_owned();

    call.door.api.metadata.set(call.key.clone().into_owned(), value);

    Ok(codec::no_content())
}

fn show(component: &metadata::Component) -> Component<'_> {
    Component {
        name: &component.name,
        type_name: &component.type_name,
        version: &component.version,
        capabilities: &component.capabilities,
    }
}

fn show_subscription(subscription: &Subscription) -> Subscribed {
    let rule = |Rule { condition, path }| RuleText { condition, path };
    Subscribed {
        pubsub: subscription.pubsub.clone(),
        topic: subscription.topic.clone(),
        metadata: subscription.metadata.clone(),
        rules: subscription.route.all_rules().map(rule).collect(),
        dead_letter_topic: subscription.dead_letter_topic.clone().unwrap_or_default(),
        origin: subscription.origin.name(),
    }
}
