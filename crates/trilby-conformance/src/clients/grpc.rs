//! The gRPC door, as an application with a generated client sees it.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use tonic::{Code, Status, transport::Channel};
use trilby_core::Api;
use trilby_proto::{
    common::v1::{Etag, StateItem, StateOptions, state_options::StateConcurrency},
    runtime::v1::{
        DeleteStateRequest, ExecuteStateTransactionRequest, GetBulkStateRequest, GetSecretRequest, GetStateRequest,
        SaveStateRequest, TransactionalStateOperation, dapr_client::DaprClient,
    },
};

use crate::client::{Answer, Failure, FailureKind, Item, SecretClient, StateClient, Step, Write};

/// Calls Dapr's gRPC API on loopback.
pub struct Grpc(pub(super) DaprClient<Channel>, pub(super) Option<Api>);

impl Grpc {
    /// A client of the API on this port. Connects with its first call.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(port: u16) -> Self {
        let address = format!("http://127.0.0.1:{port}");
        let channel = Channel::from_shared(address).expect("an address is a URI").connect_lazy();
        Self(DaprClient::new(channel), None)
    }

    /// With an app that listens to what is published.
    #[must_use]
    pub fn heard_by(self, listener: Api) -> Self {
        Self(self.0, Some(listener))
    }
}

#[async_trait]
impl StateClient for Grpc {
    async fn get(&self, store: &str, key: &str) -> Answer<Option<Item>> {
        let request = GetStateRequest { store_name: store.into(), key: key.into(), ..GetStateRequest::default() };
        let reply = self.0.clone().get_state(request).await.map_err(failure)?.into_inner();
        Ok(to_item(reply.data, reply.etag, &reply.metadata))
    }

    async fn bulk_get(&self, store: &str, keys: &[&str]) -> Answer<Vec<(String, Option<Item>)>> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let request = GetBulkStateRequest { store_name: store.into(), keys, ..GetBulkStateRequest::default() };
        let reply = self.0.clone().get_bulk_state(request).await.map_err(failure)?.into_inner();
        let items = reply.items.into_iter();
        Ok(items.map(|item| (item.key, to_item(item.data, item.etag, &item.metadata))).collect())
    }

    async fn save(&self, store: &str, writes: &[Write]) -> Answer<()> {
        let states = writes.iter().map(to_state_item).collect();
        let request = SaveStateRequest { store_name: store.into(), states };
        self.0.clone().save_state(request).await.map(drop).map_err(failure)
    }

    async fn delete(&self, store: &str, key: &str, etag: Option<&str>) -> Answer<()> {
        let request = DeleteStateRequest {
            store_name: store.into(),
            key: key.into(),
            etag: etag.map(to_etag),
            ..DeleteStateRequest::default()
        };
        self.0.clone().delete_state(request).await.map(drop).map_err(failure)
    }

    async fn transact(&self, store: &str, steps: &[Step]) -> Answer<()> {
        let operation = |step: &Step| match step {
            Step::Upsert(write) => {
                TransactionalStateOperation { operation_type: "upsert".into(), request: Some(to_state_item(write)) }
            }
            Step::Delete(key, etag) => TransactionalStateOperation {
                operation_type: "delete".into(),
                request: Some(StateItem {
                    key: key.clone(),
                    etag: etag.as_deref().map(to_etag),
                    ..StateItem::default()
                }),
            },
        };
        let request = ExecuteStateTransactionRequest {
            store_name: store.into(),
            operations: steps.iter().map(operation).collect(),
            ..ExecuteStateTransactionRequest::default()
        };
        self.0.clone().execute_state_transaction(request).await.map(drop).map_err(failure)
    }
}

#[async_trait]
impl SecretClient for Grpc {
    async fn get_secret(&self, store: &str, name: &str) -> Answer<Vec<(String, String)>> {
        let request = GetSecretRequest { store_name: store.into(), key: name.into(), ..GetSecretRequest::default() };
        let reply = self.0.clone().get_secret(request).await.map_err(failure)?.into_inner();
        Ok(reply.data.into_iter().collect())
    }
}

fn to_etag(etag: &str) -> Etag {
    Etag { value: etag.to_owned() }
}

fn to_state_item(write: &Write) -> StateItem {
    let ttl = write.ttl_seconds.map(|ttl| ("ttlInSeconds".to_owned(), ttl.to_string()));
    let options = write.first_write.then(|| StateOptions {
        concurrency: StateConcurrency::ConcurrencyFirstWrite.into(),
        ..StateOptions::default()
    });
    StateItem {
        key: write.key.clone(),
        value: Bytes::from(write.json.clone()),
        etag: write.etag.as_deref().map(to_etag),
        metadata: ttl.into_iter().collect(),
        options,
    }
}

/// gRPC says nothing about an item that is missing: no data and no etag.
fn to_item(data: Bytes, etag: String, metadata: &HashMap<String, String>) -> Option<Item> {
    if data.is_empty() && etag.is_empty() {
        return None;
    }
    let etag = Some(etag).filter(|etag| !etag.is_empty());
    Some(Item { value: data.to_vec(), etag, expires: metadata.get("ttlExpireTime").cloned() })
}

pub(super) fn failure(status: Status) -> Failure {
    let kind = match status.code() {
        Code::Aborted => FailureKind::Conflict,
        Code::InvalidArgument => FailureKind::Invalid,
        Code::PermissionDenied => FailureKind::Denied,
        _ => FailureKind::Other,
    };
    Failure { kind, text: format!("{:?} {}", status.code(), status.message()) }
}
