//! Publishing: decode, call the block, encode.

use trilby_core::{
    Api, Ctx, Result,
    pubsub::{BulkPublish, Publish, PublishEntry},
};
use trilby_proto::runtime::v1::{
    BulkPublishRequest, BulkPublishRequestEntry, BulkPublishResponse, PublishEventRequest,
};

use crate::codec;

pub(crate) async fn publish(api: &Api, ctx: &Ctx, message: PublishEventRequest) -> Result<()> {
    let event = Publish {
        topic: message.topic,
        data: message.data,
        content_type: message.data_content_type,
        metadata: codec::from_map(message.metadata),
    };

    api.pubsub.publish(ctx, &message.pubsub_name, event).await
}

pub(crate) async fn bulk_publish(api: &Api, ctx: &Ctx, message: BulkPublishRequest) -> Result<BulkPublishResponse> {
    let BulkPublishRequest { pubsub_name, topic, entries, metadata } = message;
    let entries = entries.into_iter().map(entry).collect();
    let events = BulkPublish { topic: topic.clone(), entries, metadata: codec::from_map(metadata) };

    let failed = api.pubsub.bulk_publish(ctx, &pubsub_name, events).await?;

    // The answer has room for failed entries. Dapr nevertheless fails as a whole if there is one.
    match failed.first() {
        None => Ok(BulkPublishResponse::default()),
        Some(first) => Err(api.pubsub.publish_error(&pubsub_name, &topic, &first.error.to_string())),
    }
}

fn entry(wire: BulkPublishRequestEntry) -> PublishEntry {
    PublishEntry {
        entry_id: wire.entry_id,
        data: wire.event,
        content_type: wire.content_type,
        metadata: codec::from_map(wire.metadata),
    }
}
