//! Publishing for guests.

use std::collections::HashMap;

use trilby_component::Metadata;
use trilby_core::{
    Code, Result,
    pubsub::{BulkPublish, Publish, PublishEntry},
};

use crate::{
    error,
    guest::Guest,
    wit::trilby::dapr::{events, pubsub, types},
};

/// What a message is whose sender does not say.
const TEXT: &str = "text/plain";

impl pubsub::Host for Guest {
    async fn publish(
        &mut self,
        pubsub: String,
        topic: String,
        data: Vec<u8>,
        options: Option<pubsub::PublishOptions>,
    ) -> Result<()> {
        let (content_type, metadata) = parts(options);
        let publish = Publish { topic, data: data.into(), content_type, metadata };

        let (api, ctx) = self.blocks();
        api.pubsub.publish(ctx, &pubsub, publish).await
    }

    async fn publish_bulk(
        &mut self,
        pubsub: String,
        topic: String,
        entries: Vec<pubsub::Entry>,
        metadata: Vec<(String, String)>,
    ) -> Result<Vec<(String, Result<(), types::Error>)>> {
        let ids: Vec<_> = entries.iter().map(|entry| entry.entry_id.clone()).collect();
        let entries = entries.into_iter().map(|entry| {
            let (content_type, metadata) = parts(entry.options);
            PublishEntry { entry_id: entry.entry_id, data: entry.data.into(), content_type, metadata }
        });
        let publish = BulkPublish { topic, entries: entries.collect(), metadata: metadata.into_iter().collect() };

        let (api, ctx) = self.blocks();
        let failed = api.pubsub.bulk_publish(ctx, &pubsub, publish).await?;

        let mut failed: HashMap<_, _> = failed.into_iter().map(|entry| (entry.entry_id, entry.error)).collect();
        let result = |id: String| {
            let result = failed.remove(&id).map_or(Ok(()), |cause| Err(error::of_item(Code::PubSubPublish, &cause)));
            (id, result)
        };
        Ok(ids.into_iter().map(result).collect())
    }
}

/// Types only.
impl events::Host for Guest {}

fn parts(options: Option<pubsub::PublishOptions>) -> (String, Metadata) {
    match options {
        None => (TEXT.to_owned(), Metadata::new()),
        Some(options) => {
            (options.content_type.unwrap_or_else(|| TEXT.to_owned()), options.metadata.into_iter().collect())
        }
    }
}
