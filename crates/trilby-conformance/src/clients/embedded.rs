//! The embedded door: the blocks called from Rust.

use async_trait::async_trait;
use bytes::Bytes;
use trilby_component::{
    Metadata,
    state::{
        self, Concurrency, DeleteRequest, GetRequest, Operation, SetRequest, TTL_EXPIRE_TIME, TTL_IN_SECONDS, Value,
    },
};
use trilby_core::{Api, Ctx, Error, error::Kind};

use crate::client::{Answer, Failure, FailureKind, Item, SecretClient, StateClient, Step, Write};

/// Calls the blocks directly.
pub struct Embedded(pub Api);

#[async_trait]
impl StateClient for Embedded {
    async fn get(&self, store: &str, key: &str) -> Answer<Option<Item>> {
        let request = GetRequest { key: key.to_owned(), ..GetRequest::default() };
        let item = self.0.state.store(store).map_err(failure)?.get(&Ctx::default(), request).await;
        item.map(|item| item.map(to_item)).map_err(failure)
    }

    async fn bulk_get(&self, store: &str, keys: &[&str]) -> Answer<Vec<(String, Option<Item>)>> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let store = self.0.state.store(store).map_err(failure)?;
        let items = store.bulk_get(&Ctx::default(), keys, 0, Metadata::new()).await.map_err(failure)?;
        items
            .into_iter()
            .map(|(key, item)| match item {
                Ok(item) => Ok((key, item.map(to_item))),
                Err(error) => Err(Failure { kind: FailureKind::Other, text: error.to_string() }),
            })
            .collect()
    }

    async fn save(&self, store: &str, writes: &[Write]) -> Answer<()> {
        let store = self.0.state.store(store).map_err(failure)?;
        store.save(&Ctx::default(), writes.iter().map(to_set).collect()).await.map_err(failure)
    }

    async fn delete(&self, store: &str, key: &str, etag: Option<&str>) -> Answer<()> {
        let store = self.0.state.store(store).map_err(failure)?;
        store.delete(&Ctx::default(), to_delete(key, etag)).await.map_err(failure)
    }

    async fn transact(&self, store: &str, steps: &[Step]) -> Answer<()> {
        let operations = steps.iter().map(|step| match step {
            Step::Upsert(write) => Operation::Upsert(to_set(write)),
            Step::Delete(key, etag) => Operation::Delete(to_delete(key, etag.as_deref())),
        });
        let store = self.0.state.store(store).map_err(failure)?;
        store.transact(&Ctx::default(), operations.collect(), Metadata::new()).await.map_err(failure)
    }
}

#[async_trait]
impl SecretClient for Embedded {
    async fn get_secret(&self, store: &str, name: &str) -> Answer<Vec<(String, String)>> {
        let secret = self.0.secrets.get(&Ctx::default(), store, name, &Metadata::new()).await;
        secret.map(|secret| secret.into_iter().collect()).map_err(failure)
    }
}

fn to_set(write: &Write) -> SetRequest {
    let ttl = write.ttl_seconds.map(|ttl| (TTL_IN_SECONDS.to_owned(), ttl.to_string()));
    SetRequest {
        key: write.key.clone(),
        value: Value::Json(Bytes::from(write.json.clone())),
        etag: write.etag.clone(),
        options: state::WriteOptions {
            concurrency: if write.first_write { Concurrency::FirstWrite } else { Concurrency::Unspecified },
            ..state::WriteOptions::default()
        },
        metadata: ttl.into_iter().collect(),
    }
}

fn to_delete(key: &str, etag: Option<&str>) -> DeleteRequest {
    DeleteRequest { key: key.to_owned(), etag: etag.map(str::to_owned), ..DeleteRequest::default() }
}

fn to_item(item: state::Item) -> Item {
    Item { value: item.value.to_vec(), etag: item.etag, expires: item.metadata.get(TTL_EXPIRE_TIME).cloned() }
}

pub(super) fn failure(error: Error) -> Failure {
    let kind = match error.kind() {
        Kind::Conflict => FailureKind::Conflict,
        Kind::Invalid => FailureKind::Invalid,
        Kind::Denied => FailureKind::Denied,
        _ => FailureKind::Other,
    };
    Failure { kind, text: format!("{:?} {error}", error.code()) }
}
