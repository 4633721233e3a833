//! Metadata: decode, call the block, encode.

use trilby_core::{Api, Ctx, Result};
use trilby_proto::runtime::v1::{
    ActorRuntime, AppConnectionProperties, GetMetadataRequest, GetMetadataResponse, MetadataHttpEndpoint,
    MetadataWorkflows, RegisteredComponents, SetMetadataRequest, actor_runtime::ActorRuntimeStatus,
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
    Ok(GetMetadataResponse {
        id: api.app.id.clone(),
        runtime_version: facts.runtime_version.clone(),
        enabled_features: facts.enabled_features.clone(),
        registered_components: components.collect(),
        http_endpoints: endpoints.collect(),
        extended_metadata: codec::to_map(extended),
        app_connection_properties: Some(AppConnectionProperties {
            port: connection.port.unwrap_or_default().into(),
            protocol: connection.protocol.clone(),
            channel_address: connection.channel_address.clone(),
            max_concurrency: connection.max_concurrency.map_or(0, |most| i32::try_from(most).unwrap_or(i32::MAX)),
            health: None,
        }),
        // Neither actors nor workflows are here; daprd without a control plane says it in these words.
        actor_runtime: Some(ActorRuntime {
            runtime_status: ActorRuntimeStatus::Disabled.into(),
            placement: "placement: disconnected".to_owned(),
            ..ActorRuntime::default()
        }),
        workflows: Some(MetadataWorkflows::default()),
        ..GetMetadataResponse::default()
    })
}

pub(crate) async fn set(api: &Api, _: &Ctx, message: SetMetadataRequest) -> Result<()> {
    if !message.key.is_empty() {
        api.metadata.set(message.key, message.value);
    }
    Ok(())
}
