//! The state block for guests.

use std::collections::BTreeMap;

use trilby_component::{
    Metadata,
    state::{
        Concurrency, Consistency, DeleteRequest, GetRequest, Item, Operation, SetRequest, TTL_IN_SECONDS, Value,
        WriteOptions,
    },
};
use trilby_core::{Code, Result, pubsub::OUTBOX_CONTENT_TYPE};

use crate::{
    error,
    guest::Guest,
    wit::trilby::dapr::{state, types},
};

impl state::Host for Guest {
    async fn get(
        &mut self,
        store: String,
        key: String,
        options: Option<state::GetOptions>,
    ) -> Result<Option<state::Item>> {
        let (consistency, metadata) = read_options(options);
        let request = GetRequest { key: key.clone(), consistency, metadata };

        let (api, ctx) = self.blocks();
        let found = api.state.store(&store)?.get(ctx, request).await?;

        Ok(found.map(|item| item_to_wit(key, item)))
    }

    async fn get_bulk(
        &mut self,
        store: String,
        keys: Vec<String>,
        options: Option<state::GetOptions>,
    ) -> Result<Vec<(String, Result<Option<state::Item>, types::Error>)>> {
        // The block reads in bulk as Dapr does, which knows no consistency there.
        let (_, metadata) = read_options(options);

        let (api, ctx) = self.blocks();
        let found = api.state.store(&store)?.bulk_get(ctx, keys, 0, metadata).await?;

        let to_wit = |(key, result): (String, Result<Option<Item>, _>)| match result {
            Ok(item) => (key.clone(), Ok(item.map(|item| item_to_wit(key, item)))),
            Err(cause) => (key, Err(error::of_item(Code::StateGet, &cause))),
        };
        Ok(found.into_iter().map(to_wit).collect())
    }

    async fn save(
        &mut self,
        store: String,
        key: String,
        value: Vec<u8>,
        options: Option<state::WriteOptions>,
    ) -> Result<()> {
        let item = set_request(state::Write { key, value, options });

        let (api, ctx) = self.blocks();
        api.state.store(&store)?.save(ctx, vec![item]).await
    }

    async fn save_bulk(&mut self, store: String, items: Vec<state::Write>) -> Result<()> {
        let items = items.into_iter().map(set_request).collect();

        let (api, ctx) = self.blocks();
        api.state.store(&store)?.save(ctx, items).await
    }

    async fn delete(&mut self, store: String, key: String, options: Option<state::WriteOptions>) -> Result<()> {
        let request = delete_request(state::Removal { key, options });

        let (api, ctx) = self.blocks();
        api.state.store(&store)?.delete(ctx, request).await
    }

    async fn transact(
        &mut self,
        store: String,
        operations: Vec<state::Operation>,
        metadata: Vec<(String, String)>,
    ) -> Result<()> {
        let operations = operations.into_iter().map(|operation| match operation {
            state::Operation::Upsert(write) => Operation::Upsert(upsert(write)),
            state::Operation::Delete(removal) => Operation::Delete(delete_request(removal)),
        });
        let operations = operations.collect();

        let (api, ctx) = self.blocks();
        api.state.store(&store)?.transact(ctx, operations, metadata.into_iter().collect()).await
    }
}

fn read_options(options: Option<state::GetOptions>) -> (Consistency, Metadata) {
    match options {
        None => (Consistency::Unspecified, Metadata::new()),
        Some(options) => (consistency(options.consistency), options.metadata.into_iter().collect()),
    }
}

pub(crate) fn set_request(write: state::Write) -> SetRequest {
    let state::Write { key, value, options } = write;
    let options = Options::from(options);
    let value = if options.is_json { Value::Json(value.into()) } else { Value::Bytes(value.into()) };
    SetRequest { key, value, etag: options.etag, options: options.write, metadata: options.metadata }
}

/// A write within a transaction. If the store has an outbox, its event is told what the value is.
fn upsert(write: state::Write) -> SetRequest {
    let content_type = write.options.as_ref().and_then(|options| options.content_type.clone());
    let mut request = set_request(write);
    request.metadata.extend(content_type.map(|content_type| (OUTBOX_CONTENT_TYPE.to_owned(), content_type)));
    request
}

fn delete_request(removal: state::Removal) -> DeleteRequest {
    let options = Options::from(removal.options);
    DeleteRequest { key: removal.key, etag: options.etag, options: options.write, metadata: options.metadata }
}

/// The options of a write, as stores take them.
#[derive(Default)]
struct Options {
    is_json: bool,
    etag: Option<String>,
    write: WriteOptions,
    metadata: Metadata,
}

impl From<Option<state::WriteOptions>> for Options {
    fn from(options: Option<state::WriteOptions>) -> Self {
        let Some(options) = options else { return Self::default() };
        let concurrency = match options.concurrency {
            None => Concurrency::Unspecified,
            Some(state::Concurrency::FirstWrite) => Concurrency::FirstWrite,
            Some(state::Concurrency::LastWrite) => Concurrency::LastWrite,
        };
        let mut metadata: BTreeMap<_, _> = options.metadata.into_iter().collect();
        if let Some(seconds) = options.ttl_seconds {
            metadata.insert(TTL_IN_SECONDS.to_owned(), seconds.to_string());
        }
        Self {
            is_json: options.content_type.is_some_and(|content_type| is_json(&content_type)),
            etag: options.etag,
            write: WriteOptions { concurrency, consistency: consistency(options.consistency) },
            metadata,
        }
    }
}

/// Parameters such as `; charset=utf-8` change nothing: JSON is UTF-8.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn consistency(word: Option<state::Consistency>) -> Consistency {
    match word {
        None => Consistency::Unspecified,
        Some(state::Consistency::Eventual) => Consistency::Eventual,
        Some(state::Consistency::Strong) => Consistency::Strong,
    }
}

fn item_to_wit(key: String, item: Item) -> state::Item {
    state::Item { key, value: item.value.into(), etag: item.etag, metadata: item.metadata.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_by_its_content_type() {
        for (content_type, expect) in [
            ("application/json", true),
            ("Application/JSON ; charset=utf-8", true),
            ("application/cloudevents+json", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_json(content_type), expect, "{content_type:?}");
        }
    }
}
