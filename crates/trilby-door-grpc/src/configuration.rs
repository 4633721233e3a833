//! Configuration: decode, call the block, encode.

use std::collections::HashMap;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::Status;
use trilby_component::configuration::Items;
use trilby_core::{Api, Code, Ctx, Result};
use trilby_proto::{
    common::v1::ConfigurationItem,
    runtime::v1::{
        GetConfigurationRequest, GetConfigurationResponse, SubscribeConfigurationRequest,
        SubscribeConfigurationResponse, UnsubscribeConfigurationRequest, UnsubscribeConfigurationResponse,
    },
};

use crate::codec;

pub(crate) async fn get(api: &Api, ctx: &Ctx, message: GetConfigurationRequest) -> Result<GetConfigurationResponse> {
    let metadata = codec::from_map(message.metadata);

    let items = api.configuration.get(ctx, &message.store_name, &message.keys, &metadata).await?;

    Ok(GetConfigurationResponse { items: to_proto(items) })
}

/// The first message carries the id and nothing else, so that the caller can unsubscribe.
pub(crate) async fn subscribe(
    api: &Api,
    ctx: &Ctx,
    message: SubscribeConfigurationRequest,
) -> Result<impl Stream<Item = Result<SubscribeConfigurationResponse, Status>> + Send + 'static + use<>> {
    let metadata = codec::from_map(message.metadata);

    let changes = api.configuration.stream(ctx, &message.store_name, &message.keys, &metadata).await?;

    let id = changes.id().to_owned();
    let first = SubscribeConfigurationResponse { id: id.clone(), items: HashMap::new() };
    let later = stream::unfold((changes, id), |(mut changes, id)| async {
        let items = to_proto(changes.next().await?);
        Some((SubscribeConfigurationResponse { id: id.clone(), items }, (changes, id)))
    });
    Ok(stream::once(std::future::ready(first)).chain(later).map(Ok))
}

/// That there is no such subscription is an answer here, not an error.
pub(crate) async fn unsubscribe(
    api: &Api,
    _: &Ctx,
    message: UnsubscribeConfigurationRequest,
) -> Result<UnsubscribeConfigurationResponse> {
    match api.configuration.unsubscribe(&message.store_name, &message.id) {
        Ok(()) => Ok(UnsubscribeConfigurationResponse { ok: true, message: String::new() }),
        Err(error) if error.code() == Code::ConfigurationUnsubscribe => {
            api.errors.record(error.code());
            Ok(UnsubscribeConfigurationResponse { ok: false, message: error.message().to_owned() })
        }
        Err(error) => Err(error),
    }
}

fn to_proto(items: Items) -> HashMap<String, ConfigurationItem> {
    let to_proto = |(key, item): (String, trilby_component::configuration::Item)| {
        let metadata = codec::to_map(item.metadata);
        (key, ConfigurationItem { value: item.value, version: item.version, metadata })
    };
    items.into_iter().map(to_proto).collect()
}
