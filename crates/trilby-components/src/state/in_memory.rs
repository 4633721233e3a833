//! `state.in-memory`: items in this process's memory, gone when it ends. For development, tests and caches.
//!
//! The one to copy when you add a store: documentation, `open`, the store, its [`StateStore`], what it is made of,
//! tests of the parts that need no backend. A store that has settings also has a documented `Config` above `open`; see
//! `state/sqlite.rs`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinSet;
use trilby_component::{
    ComponentError, Metadata, OpenRequest, Result,
    json::Style,
    state::{
        Concurrency, DeleteRequest, Feature, GetRequest, Item, Operation, SetRequest, StateStore, TTL_EXPIRE_TIME,
    },
};
use uuid::Uuid;

use super::ttl;

/// How often items whose time is over are dropped from memory. Reads never see them, swept or not.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Opens an empty store of its own; it has no settings.
///
/// # Errors
/// Never: the signature is the catalog's.
pub async fn open(_: OpenRequest) -> Result<Arc<dyn StateStore>> {
    let items = Arc::new(RwLock::new(Items::default()));
    let mut sweeper = JoinSet::new();
    sweeper.spawn(sweep_forever(Arc::clone(&items)));
    Ok(Arc::new(InMemory { items, sweeper: Mutex::new(sweeper) }))
}

/// All items under one lock: a transaction is one critical section, and a read holds it for a lookup only.
struct InMemory {
    items: Arc<RwLock<Items>>,
    /// Stops with the store.
    sweeper: Mutex<JoinSet<()>>,
}

#[async_trait]
impl StateStore for InMemory {
    fn features(&self) -> &[Feature] {
        &[Feature::Etag, Feature::Transactional, Feature::Ttl, Feature::DeleteWithPrefix, Feature::KeysLike]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        Ok(self.read().get(&request.key).map(Entry::to_item))
    }

    async fn set(&self, request: &SetRequest) -> Result<()> {
        let change = Change::put(request)?;
        self.write().apply(&[change])
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        self.write().apply(&[Change::remove(request)])
    }

    async fn bulk_get(&self, requests: &[GetRequest], _parallelism: usize) -> Result<Vec<Result<Option<Item>>>> {
        let items = self.read();
        Ok(requests.iter().map(|request| Ok(items.get(&request.key).map(Entry::to_item))).collect())
    }

    async fn transact(&self, operations: &[Operation], _metadata: &Metadata) -> Result<()> {
        let changes = operations.iter().map(Change::of).collect::<Result<Vec<_>>>()?;
        self.write().apply(&changes)
    }

    async fn close(&self) {
        let mut sweeper = std::mem::take(&mut *self.sweeper.lock().unwrap_or_else(PoisonError::into_inner));
        sweeper.shutdown().await;
        *self.write() = Items::default();
    }
}

impl InMemory {
    // Nothing panics while it holds the lock, so a poisoned one guards whole items all the same.
    fn read(&self) -> RwLockReadGuard<'_, Items> {
        self.items.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Items> {
        self.items.write().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sweep_forever(items: Arc<RwLock<Items>>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        items.write().unwrap_or_else(PoisonError::into_inner).drop_expired(SystemTime::now());
    }
}

/// What one key holds.
#[derive(Clone)]
struct Entry {
    value: Bytes,
    etag: Uuid,
    expires_at: Option<SystemTime>,
}

impl Entry {
    fn is_live(&self) -> bool {
        // Asking the clock costs more than the lookup, so only items that can expire pay for it.
        self.expires_at.is_none_or(|at| SystemTime::now() < at)
    }

    fn to_item(&self) -> Item {
        let expiry = self.expires_at.map(|at| (TTL_EXPIRE_TIME.to_owned(), rfc3339(at)));
        Item { value: self.value.clone(), etag: Some(self.etag.to_string()), metadata: expiry.into_iter().collect() }
    }
}
