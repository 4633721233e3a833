//! Metadata: decode, call the block, encode.

use trilby_component::properties::duration;
use trilby_core::{
    Api, Ctx, Result,
    pubsub::{Origin, Rule, Subscription},
};
use trilby_proto::runtime::v1::{
    ActorRuntime, AppConnectionHealthProperties, AppConnectionProperties, GetMetadataRequest, GetMetadataResponse,
    MetadataHttpEndpoint, MetadataResiliency, MetadataWorkflows, PubsubSubscription, PubsubSubscriptionRule,
    PubsubSubscriptionRules, PubsubSubscriptionType, RegisteredComponents, SetMetadataRequest,
    actor_runtime::ActorRuntimeStatus,
};

use crate::codec;

pub(crate) async fn get(api: &Api, _: &Ctx, _: GetMetadataRequest) -> Result<GetMetadataResponse> {
    let facts = api.metadata.facts();
    let extended = api.metadata.extended();

    let connection = &facts.app_connection;
    let components = facts.components.iter().map(|component| RegisteredComponents {
        name: component.name.clone(),
        r#type: component.type_name.clone(),
        version: component.version.clone(),
        capabilities: component.capabilities.iter().map(|name| (*name).to_owned()).collect(),
    });
    let endpoints = facts.http_endpoints.iter().map(|name| MetadataHttpEndpoint { name: name.clone() });
    let resiliencies = facts.resiliencies.iter().map(|name| MetadataResiliency { name: name.clone() });
    Ok(GetMetadataResponse {
        id: api.app.id.clone(),
        runtime_version: facts.runtime_version.clone(),
        enabled_features: facts.enabled_features.clone(),
        registered_components: components.collect(),
        subscriptions: api.pubsub.subscriptions().iter().map(|one| subscription(one)).collect(),
        http_endpoints: endpoints.collect(),
        extended_metadata: codec::to_map(extended),
        app_connection_properties: Some(AppConnectionProperties {
            port: connection.port.unwrap_or_default().into(),
            protocol: connection.protocol.clone(),
            channel_address: connection.channel_address.clone(),
            max_concurrency: connection.max_concurrency.map_or(0, |most| i32::try_from(most).unwrap_or(i32::MAX)),
            health: connection.health.as_ref().map(|health| AppConnectionHealthProperties {
                health_check_path: health.path.clone(),
                health_probe_interval: duration::format(health.interval),
                health_probe_timeout: duration::format(health.timeout),
                health_threshold: i32::try_from(health.threshold).unwrap_or(i32::MAX),
            }),
        }),
        // Neither actors nor workflows are here; daprd without a control plane says it in these words.
        actor_runtime: Some(ActorRuntime {
            runtime_status: ActorRuntimeStatus::Disabled.into(),
            placement: "placement: disconnected".to_owned(),
            ..ActorRuntime::default()
        }),
        workflows: Some(MetadataWorkflows::default()),
        resiliencies: resiliencies.collect(),
        ..GetMetadataResponse::default()
    })
}

fn subscription(subscription: &Subscription) -> PubsubSubscription {
    let rule = |Rule { condition, path }| PubsubSubscriptionRule { r#match: condition, path };
    PubsubSubscription {
        pubsub_name: subscription.pubsub.clone(),
        topic: subscription.topic.clone(),
        metadata: codec::to_map(subscription.metadata.clone()),
        rules: Some(PubsubSubscriptionRules { rules: subscription.route.all_rules().map(rule).collect() }),
        dead_letter_topic: subscription.dead_letter_topic.clone().unwrap_or_default(),
        r#type: match subscription.origin {
            Origin::Declarative => PubsubSubscriptionType::Declarative,
            Origin::Programmatic => PubsubSubscriptionType::Programmatic,
            Origin::Streaming => PubsubSubscriptionType::Streaming,
        }
        .into(),
    }
}

pub(crate) async fn set(api: &Api, _: &Ctx, message: SetMetadataRequest) -> Result<()> {
    if !message.key.is_empty() {
        api.metadata.set(message.key, message.value);
    }
    Ok(())
}
