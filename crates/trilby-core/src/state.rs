//! The state block: key prefixes, encryption at rest, bulk and transactions over any state store.
//!
//! The order of the steps is part of Dapr's contract, so each function is straight code: check the request, complete
//! the key, encrypt, call the store, name the error.

mod bulk;
mod encryption;
mod key_prefix;

use std::{collections::HashMap, sync::Arc};

use trilby_component::{
    ComponentError, ErrorKind, Metadata,
    state::{
        BulkError, DeleteRequest, Feature, GetRequest, Item, Operation, Query, QueryResult, SetRequest, StateStore,
    },
};

use crate::{
    Code, Ctx, Error, Result, Wiring, error::Details, handle::Handle, metrics::Op, pubsub::Outbox, resiliency::Block,
};

pub use encryption::{Encryption, Key};
pub use key_prefix::KeyPrefix;
pub(crate) use key_prefix::SEPARATOR;

/// A state store that is open, and how this block uses it.
pub struct StateComponent {
    /// The resource's name.
    pub name: String,
    /// The store.
    pub store: Arc<dyn StateStore>,
    /// What is put in front of keys. The component's `keyPrefix`.
    pub key_prefix: KeyPrefix,
    /// Keys for encryption at rest, if the component has them.
    pub encryption: Option<Arc<Encryption>>,
}

/// The state block of one app.
#[derive(Default)]
pub struct StateApi {
    app_id: String,
    stores: HashMap<String, Store>,
}

impl StateApi {
    /// A block over the stores that the app may use.
    pub fn new(wiring: &Wiring<'_>, stores: impl IntoIterator<Item = StateComponent>) -> Self {
        let open = |component: StateComponent| {
            let store = Store {
                prefix: component.key_prefix.resolve(wiring.app, &component.name),
                encryption: component.encryption,
                outbox: None,
                handle: wiring.handle(Block::State, &component.name, component.store),
            };
            (component.name, store)
        };
        Self { app_id: wiring.app.id.clone(), stores: stores.into_iter().map(open).collect() }
    }

    /// Gives stores their outbox.
    #[must_use]
    pub fn with_outboxes(mut self, outbox: impl Fn(&str) -> Option<Arc<Outbox>>) -> Self {
        for (name, store) in &mut self.stores {
            store.outbox = outbox(name);
        }
        self
    }

    /// The store of that name.
    ///
    /// # Errors
    /// [`Code::StateStoreNotConfigured`] if this app has no store at all, [`Code::StateStoreNotFound`] if none of that
    /// name.
    pub fn store(&self, name: &str) -> Result<&Store> {
        self.find(name).map_err(|error| {
            let metadata = [("appID".to_owned(), self.app_id.clone())].into();
            error.with_details(Details { metadata, ..Details::default() })
        })
    }

    /// Finds items by content, in Dapr's query language. Alpha in Dapr.
    ///
    /// # Errors
    /// [`Code::StateQueryUnsupported`] if the store has no queries or is encrypted; [`Code::StateQuery`] if it fails.
    pub async fn query(&self, ctx: &Ctx, store: &str, query: &Query) -> Result<QueryResult> {
        // Unlike every other call, Dapr's query does not say the app id when the store is missing.
        self.find(store).map_err(|error| error.with_details(Details::default()))?.query(ctx, query).await
    }

    fn find(&self, name: &str) -> Result<&Store> {
        if self.stores.is_empty() {
            let message = format!("state store {name} is not configured");
            return Err(Error::new(Code::StateStoreNotConfigured, message));
        }
        self.stores
            .get(name)
            .ok_or_else(|| Error::new(Code::StateStoreNotFound, format!("state store {name} is not found")))
    }
}

/// One state store as one app sees it. Keys in requests and answers are the app's own, without prefix.
pub struct Store {
    handle: Handle<dyn StateStore>,
    prefix: String,
    encryption: Option<Arc<Encryption>>,
    /// Where transactions are published, if they are.
    outbox: Option<Arc<Outbox>>,
}

impl Store {
    /// Reads an item; `None` if it is missing or has expired.
    ///
    /// # Errors
    /// [`Code::StateIllegalKey`], [`Code::StateGet`].
    pub async fn get(&self, ctx: &Ctx, mut request: GetRequest) -> Result<Option<Item>> {
        self.complete(&mut request.key)?;
        let read = self.handle.call(ctx, Op::Get, |store| store.get(&request)).await;
        read.and_then(|item| self.decrypted(item)).map_err(|cause| {
            let key = self.strip(&request.key);
            let message = format!("fail to get {key} from state store {}: {cause}", self.handle.name());
            Error::from_component(Code::StateGet, message, &cause)
        })
    }

    /// Reads many items, in the order of `keys`. `parallelism` 0 means no limit of the caller's.
    ///
    /// # Errors
    /// [`Code::StateIllegalKey`] for any of the keys; [`Code::StateBulkGet`] if nothing could be read. What concerns one
    /// key alone is in its own result.
    pub async fn bulk_get(
        &self,
        ctx: &Ctx,
        keys: Vec<String>,
        parallelism: usize,
        metadata: Metadata,
    ) -> Result<Vec<(String, Result<Option<Item>, ComponentError>)>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut requests = Vec::with_capacity(keys.len());
        for mut key in keys {
            self.complete(&mut key)?;
            requests.push(GetRequest { key, metadata: metadata.clone(), ..GetRequest::default() });
        }
        let read = self.handle.call(ctx, Op::BulkGet, |store| store.bulk_get(&requests, parallelism)).await;
        let read = read.map_err(|cause| Error::from_component(Code::StateBulkGet, cause.to_string(), &cause))?;
        let keys = requests.into_iter().map(|request| self.strip(&request.key).to_owned());
        Ok(keys.zip(read.into_iter().map(|item| item.and_then(|item| self.decrypted(item)))).collect())
    }

    /// Writes items, each on its own: if one fails, others may have been written.
    ///
    /// # Errors
    /// [`Code::StateKeyEmpty`] and [`Code::StateIllegalKey`] before anything is written; [`Code::StateSave`] and its
    /// etag variants.
    pub async fn save(&self, ctx: &Ctx, mut items: Vec<SetRequest>) -> Result<()> {
        for item in &mut items {
            if item.key.is_empty() {
                return Err(Error::new(Code::StateKeyEmpty, "state key cannot be empty"));
            }
            self.complete(&mut item.key)?;
        }
        let written = match self.prepare_writes(&mut items) {
            Err(cause) => Err(cause),
            Ok(()) => match items.as_slice() {
                [] => return Ok(()),
                [item] => self.handle.call(ctx, Op::Set, |store| store.set(item)).await,
                many => {
                    let write = bulk::write(
                        &self.handle,
                        ctx,
                        Op::Set,
                        many,
                        |store, item| store.set(item),
                        |store, items| store.bulk_set(items),
                    );
                    write.await.map_err(joined)
                }
            },
        };
        written.map_err(|cause| {
            let code = match cause.kind() {
                ErrorKind::EtagMismatch => Code::StateSaveEtagMismatch,
                ErrorKind::EtagInvalid => Code::StateSaveEtagInvalid,
                _ => Code::StateSave,
            };
            let message = format!("failed saving state in state store {}: {cause}", self.handle.name());
            Error::from_component(code, message, &cause)
        })
    }

    /// Deletes an item. Deleting what does not exist succeeds unless an etag was given.
    ///
    /// # Errors
    /// [`Code::StateIllegalKey`]; [`Code::StateDelete`] and its etag variants.
    pub async fn delete(&self, ctx: &Ctx, mut request: DeleteRequest) -> Result<()> {
        self.complete(&mut request.key)?;
        let deleted = match request.options.check() {
            Err(cause) => Err(cause),
            Ok(()) => self.handle.call(ctx, Op::Delete, |store| store.delete(&request)).await,
        };
        deleted.map_err(|cause| {
            let code = match cause.kind() {
                ErrorKind::EtagMismatch => Code::StateDeleteEtagMismatch,
                ErrorKind::EtagInvalid => Code::StateDeleteEtagInvalid,
                _ => Code::StateDelete,
            };
            let message = format!("failed deleting state with key {}: {cause}", self.strip(&request.key));
            Error::from_component(code, message, &cause)
        })
    }

    /// Deletes items, each on its own: if one fails, others may have been deleted.
    ///
    /// # Errors
    /// [`Code::StateIllegalKey`] before anything is deleted; [`Code::StateBulkDelete`] and its etag variants.
    pub async fn bulk_delete(&self, ctx: &Ctx, mut requests: Vec<DeleteRequest>) -> Result<()> {
        for request in &mut requests {
            self.complete(&mut request.key)?;
        }
        let deleted = match requests.iter().try_for_each(|request| request.options.check()) {
            Err(cause) => Err(cause),
            Ok(()) => match requests.as_slice() {
                [] => return Ok(()),
                [request] => self.handle.call(ctx, Op::BulkDelete, |store| store.delete(request)).await,
                many => {
                    let delete = bulk::write(
                        &self.handle,
                        ctx,
                        Op::BulkDelete,
                        many,
                        |store, one| store.delete(one),
                        |store, all| store.bulk_delete(all),
                    );
                    delete.await.map_err(joined)
                }
            },
        };
        deleted.map_err(|cause| {
            let code = match cause.kind() {
                ErrorKind::EtagMismatch => Code::StateBulkDeleteEtagMismatch,
                ErrorKind::EtagInvalid => Code::StateBulkDeleteEtagInvalid,
                _ => Code::StateBulkDelete,
            };
            let message = format!("failed deleting state in state store {}: {cause}", self.handle.name());
            Error::from_component(code, message, &cause)
        })
    }

    /// This store, if it has transactions. Doors ask before they decode, as Dapr does.
    ///
    /// # Errors
    /// [`Code::StateTransactionsUnsupported`].
    pub fn transactional(&self) -> Result<&Self> {
        if self.handle.describe(|store| store.features().contains(&Feature::Transactional)) {
            return Ok(self);
        }
        let help = (
            "https://docs.dapr.io/reference/components-reference/supported-state-stores/",
            "Check the list of state stores and the features they support",
        );
        let message = format!("state store {} doesn't support transactions", self.handle.name());
        let details = Details { help: Some(help), resource: Some(self.resource()), ..Details::default() };
        Err(Error::new(Code::StateTransactionsUnsupported, message).with_details(details))
    }

    /// Applies all operations or none, in order.
    ///
    /// # Errors
    /// [`Code::StateTransactionsUnsupported`], [`Code::StateIllegalKey`], [`Code::StateTooManyOperations`],
    /// [`Code::StateTransaction`] (of kind conflict for an etag mismatch), [`Code::PubSubOutbox`] before anything is done.
    pub async fn transact(&self, ctx: &Ctx, mut operations: Vec<Operation>, metadata: Metadata) -> Result<()> {
        self.transactional()?;
        if operations.is_empty() {
            return Ok(());
        }
        for operation in &mut operations {
            match operation {
                Operation::Upsert(item) => self.complete(&mut item.key)?,
                Operation::Delete(request) => self.complete(&mut request.key)?,
            }
        }
        self.check_transaction_size(operations.len())?;
        let pending = match &self.outbox {
            Some(outbox) => Some((outbox, outbox.publish(ctx, &mut operations).await?)),
            None => None,
        };
        let done = match self.prepare_operations(&mut operations) {
            Err(cause) => Err(cause),
            Ok(()) => {
                operations.extend(pending.iter().flat_map(|(_, events)| events.markers()));
                self.handle.call(ctx, Op::Transaction, |store| store.transact(&operations, &metadata)).await
            }
        };
        done.map_err(|cause| {
            if let Some((outbox, events)) = pending
                && !cause.kind().is_retryable()
            {
                outbox.abort(events);
            }
            let message = format!("error while executing state transaction: {cause}");
            Error::from_component(Code::StateTransaction, message, &cause)
        })
    }

    async fn query(&self, ctx: &Ctx, query: &Query) -> Result<QueryResult> {
        let unsupported = |message| {
            let details = Details { resource: Some(self.resource()), ..Details::default() };
            Error::new(Code::StateQueryUnsupported, message).with_details(details)
        };
        if self.encryption.is_some() {
            let message = format!("state store {} query failed: cannot query encrypted store", self.handle.name());
            let details = Details { resource: Some(self.resource()), ..Details::default() };
            return Err(Error::new(Code::StateQuery, message).with_details(details));
        }
        let found = self.handle.call(ctx, Op::Query, |store| store.query(query)).await;
        let mut found = found.map_err(|cause| match cause.kind() {
            ErrorKind::Unsupported => unsupported("state store does not support querying"),
            _ => {
                let message = format!("state store {} query failed: {cause}", self.handle.name());
                let details = Details { resource: Some(self.resource()), ..Details::default() };
                Error::from_component(Code::StateQuery, message, &cause).with_details(details)
            }
        })?;
        for (key, _) in &mut found.items {
            *key = self.strip(key).to_owned();
        }
        Ok(found)
    }

    /// Turns the app's key into the store's.
    fn complete(&self, key: &mut String) -> Result<()> {
        if key.contains(SEPARATOR) {
            let description = format!("input key/keyPrefix '{key}' can't contain '||'");
            let field = Some((key.clone(), description.clone()));
            let details = Details { field, resource: Some(self.resource()), ..Details::default() };
            return Err(Error::new(Code::StateIllegalKey, description).with_details(details));
        }
        key.insert_str(0, &self.prefix);
        Ok(())
    }

    fn strip<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(self.prefix.as_str()).unwrap_or(key)
    }

    fn resource(&self) -> (&'static str, String) {
        ("state", self.handle.name().to_owned())
    }

    fn check_transaction_size(&self, count: usize) -> Result<()> {
        let Some(max) = self.handle.describe(|store| store.max_transaction_size()).filter(|max| count > *max) else {
            return Ok(());
        };
        let metadata = [
            ("currentOpsTransaction".to_owned(), count.to_string()),
            ("maxOpsPerTransaction".to_owned(), max.to_string()),
        ]
        .into();
        let message = format!(
            "the transaction contains {count} operations, which is more than what the state store supports: {max}"
        );
        let details = Details { metadata, resource: Some(self.resource()), ..Details::default() };
        Err(Error::new(Code::StateTooManyOperations, message).with_details(details))
    }

    fn prepare_writes(&self, items: &mut [SetRequest]) -> Result<(), ComponentError> {
        for item in items {
            item.options.check()?;
            if let Some(encryption) = &self.encryption {
                item.value = encryption.encrypt(&item.value)?;
            }
        }
        Ok(())
    }

    fn prepare_operations(&self, operations: &mut [Operation]) -> Result<(), ComponentError> {
        for operation in operations {
            match operation {
                Operation::Upsert(item) => self.prepare_writes(std::slice::from_mut(item))?,
                Operation::Delete(request) => request.options.check()?,
            }
        }
        Ok(())
    }

    fn decrypted(&self, item: Option<Item>) -> Result<Option<Item>, ComponentError> {
        match (item, &self.encryption) {
            (Some(item), Some(encryption)) => Ok(Some(Item { value: encryption.decrypt(&item.value)?, ..item })),
            (item, _) => Ok(item),
        }
    }
}

/// A bulk write fails as one error. If etags alone are to blame it is an etag error itself, prefix and all, as daprd
/// wraps it.
fn joined(error: BulkError) -> ComponentError {
    let failed = match error {
        BulkError::Whole(error) => return error,
        BulkError::Items(failed) => failed,
    };
    let message = failed.iter().map(|(_, error)| error.to_string()).collect::<Vec<_>>().join("\n");
    let has = |kind| failed.iter().any(|(_, error)| error.kind() == kind);
    let kind = if failed.iter().all(|(_, error)| error.is_etag()) {
        if has(ErrorKind::EtagInvalid) { ErrorKind::EtagInvalid } else { ErrorKind::EtagMismatch }
    } else {
        failed.iter().find(|(_, error)| !error.is_etag()).map_or(ErrorKind::Internal, |(_, error)| error.kind())
    };
    ComponentError::new(kind, message)
}

/// An operation type in a transaction that is neither `upsert` nor `delete`.
#[must_use]
pub fn unsupported_operation(operation: &str) -> Error {
    Error::new(Code::StateOperationUnsupported, format!("operation type {operation} not supported"))
}

/// Capabilities of a store by Dapr's names. A store with etags and transactions can hold actors too.
#[must_use]
pub fn capabilities(store: &dyn StateStore) -> Vec<&'static str> {
    let features = store.features();
    let mut names: Vec<_> = features.iter().map(|feature| feature.name()).collect();
    if features.contains(&Feature::Etag) && features.contains(&Feature::Transactional) {
        names.push("ACTOR");
    }
    names
}
