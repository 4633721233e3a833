//! `state.in-memory`: items in this process's memory, gone when it ends. For development, tests and caches.
//!
//! The one to copy when you add a store. The order of such a file: documentation, `open`, the store, its
//! [`StateStore`], what it is made of, tests of the parts that need no backend. A store with settings has a documented
//! `Config` above `open`; `state/sqlite.rs` shows it.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{task::JoinSet, time};
use trilby_component::{
    ComponentError, Metadata, OpenRequest, Result,
    json::Style,
    state::{DeleteRequest, Feature, GetRequest, Item, Operation, SetRequest, StateStore, TTL_EXPIRE_TIME},
};
use uuid::Uuid;

use super::{condition::Condition, ttl};

/// How often expired items are dropped from memory. No read sees them, dropped or not.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Opens an empty store; it has no settings.
///
/// # Errors
/// None: the signature is the catalog's.
pub async fn open(_: OpenRequest) -> Result<Arc<dyn StateStore>> {
    Ok(Arc::new(InMemory::new()))
}

struct InMemory {
    /// One lock for all items: a transaction is one critical section, and a read holds it for one lookup.
    items: Arc<RwLock<Items>>,
    /// The task that drops expired items. It stops with the store.
    sweeper: Mutex<JoinSet<()>>,
}

#[async_trait]
impl StateStore for InMemory {
    fn features(&self) -> &[Feature] {
        &[Feature::Etag, Feature::Transactional, Feature::Ttl]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        Ok(read(&self.items).get(&request.key).map(Entry::to_item))
    }

    async fn set(&self, request: &SetRequest) -> Result<()> {
        let change = Change::upsert(request)?;
        write(&self.items).apply(&[change])
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        write(&self.items).apply(&[Change::delete(request)])
    }

    async fn bulk_get(&self, requests: &[GetRequest], _parallelism: usize) -> Result<Vec<Result<Option<Item>>>> {
        let items = read(&self.items);
        Ok(requests.iter().map(|request| Ok(items.get(&request.key).map(Entry::to_item))).collect())
    }

    async fn transact(&self, operations: &[Operation], _metadata: &Metadata) -> Result<()> {
        let changes = operations.iter().map(Change::of).collect::<Result<Vec<_>>>()?;
        write(&self.items).apply(&changes)
    }

    async fn close(&self) {
        let mut sweeper = mem::take(&mut *self.sweeper.lock().unwrap_or_else(PoisonError::into_inner));
        sweeper.shutdown().await;
        *write(&self.items) = Items::default();
    }
}

impl InMemory {
    fn new() -> Self {
        let items = Arc::default();
        let mut sweeper = JoinSet::new();
        sweeper.spawn(sweep(Arc::clone(&items)));
        Self { items, sweeper: Mutex::new(sweeper) }
    }
}

async fn sweep(items: Arc<RwLock<Items>>) {
    let mut ticks = time::interval(SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        write(&items).drop_expired(SystemTime::now());
    }
}

// Nothing panics while it holds the lock, so a poisoned lock would still guard whole items.
fn read(items: &RwLock<Items>) -> RwLockReadGuard<'_, Items> {
    items.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(items: &RwLock<Items>) -> RwLockWriteGuard<'_, Items> {
    items.write().unwrap_or_else(PoisonError::into_inner)
}

/// A write that is ready to be applied: everything that can fail or take time happened before the lock is taken.
struct Change<'a> {
    key: &'a str,
    condition: Condition,
    /// What the key holds from now on; `None` deletes it.
    entry: Option<Entry>,
}

impl<'a> Change<'a> {
    fn of(operation: &'a Operation) -> Result<Self> {
        match operation {
            Operation::Upsert(request) => Self::upsert(request),
            Operation::Delete(request) => Ok(Self::delete(request)),
        }
    }

    fn upsert(request: &'a SetRequest) -> Result<Self> {
        let seconds = ttl::parse_integer(&request.metadata, "Atoi")?;
        // A negative life means no limit, as in Dapr; so does one of more than a hundred years.
        let life = u32::try_from(seconds).ok().filter(|&seconds| seconds > 0);
        let entry = Entry {
            // A copy: the bytes may be a slice of a network buffer, which the item would keep alive.
            value: Bytes::copy_from_slice(&request.value.encode(Style::Standard)?),
            etag: Uuid::new_v4(),
            expires_at: life.map(|seconds| SystemTime::now() + Duration::from_secs(seconds.into())),
        };
        Ok(Self { key: &request.key, condition: Condition::of_set(request), entry: Some(entry) })
    }

    fn delete(request: &'a DeleteRequest) -> Self {
        Self { key: &request.key, condition: Condition::of_delete(request), entry: None }
    }
}

/// What a key holds.
#[derive(Clone)]
struct Entry {
    value: Bytes,
    etag: Uuid,
    expires_at: Option<SystemTime>,
}

impl Entry {
    fn is_live(&self) -> bool {
        // Asking the clock costs as much as the lookup, so only items that can expire pay for it.
        self.expires_at.is_none_or(|at| SystemTime::now() < at)
    }

    fn to_item(&self) -> Item {
        let expiry = self.expires_at.map(|at| humantime::format_rfc3339_seconds(at).to_string());
        Item {
            value: self.value.clone(),
            etag: Some(self.etag.to_string()),
            metadata: expiry.into_iter().map(|at| (TTL_EXPIRE_TIME.to_owned(), at)).collect(),
        }
    }
}

#[derive(Default)]
struct Items {
    by_key: HashMap<Arc<str>, Entry>,
    /// The items that can expire, the next one first: sweeping looks at no other.
    by_expiry: BTreeSet<(SystemTime, Arc<str>)>,
}

impl Items {
    fn get(&self, key: &str) -> Option<&Entry> {
        self.by_key.get(key).filter(|entry| entry.is_live())
    }

    /// Applies all changes, or none if the condition of one does not hold before the first.
    fn apply(&mut self, changes: &[Change<'_>]) -> Result<()> {
        for change in changes {
            self.check(change)?;
        }
        for change in changes {
            match &change.entry {
                Some(entry) => self.insert(change.key, entry.clone()),
                None => drop(self.remove(change.key)),
            }
        }
        Ok(())
    }

    fn check(&self, Change { key, condition, .. }: &Change<'_>) -> Result<()> {
        let reason = match (condition, self.get(key)) {
            (Condition::Any, _) | (Condition::Absent, None) => return Ok(()),
            (Condition::Absent, Some(_)) => "item already exists and no etag was passed".to_owned(),
            (Condition::Etag(_), None) => format!("state not exist or expired for key={key}"),
            (Condition::Etag(expected), Some(entry)) => {
                let current = entry.etag.hyphenated();
                if current.encode_lower(&mut Uuid::encode_buffer()) == expected {
                    return Ok(());
                }
                format!("state etag not match for key={key}: current={current}, expect={expected}")
            }
        };
        Err(ComponentError::etag_mismatch(reason))
    }

    fn insert(&mut self, key: &str, entry: Entry) {
        let key = self.remove(key).unwrap_or_else(|| key.into());
        if let Some(at) = entry.expires_at {
            self.by_expiry.insert((at, Arc::clone(&key)));
        }
        self.by_key.insert(key, entry);
    }

    /// Hands back the key, so that overwriting an item does not allocate it again.
    fn remove(&mut self, key: &str) -> Option<Arc<str>> {
        let (key, entry) = self.by_key.remove_entry(key)?;
        if let Some(at) = entry.expires_at {
            self.by_expiry.remove(&(at, Arc::clone(&key)));
        }
        Some(key)
    }

    fn drop_expired(&mut self, now: SystemTime) {
        let live = self.by_expiry.split_off(&(now, "".into()));
        for (_, key) in mem::replace(&mut self.by_expiry, live) {
            self.by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use trilby_component::state::{TTL_IN_SECONDS, Value};

    use super::*;

    fn get(key: &str) -> GetRequest {
        GetRequest { key: key.to_owned(), ..GetRequest::default() }
    }

    fn set(key: &str, value: &'static str) -> SetRequest {
        SetRequest {
            key: key.to_owned(),
            value: Value::Bytes(value.into()),
            etag: None,
            options: Default::default(),
            metadata: Metadata::new(),
        }
    }

    fn entry(expires_at: Option<SystemTime>) -> Entry {
        Entry { value: Bytes::new(), etag: Uuid::new_v4(), expires_at }
    }

    #[test]
    fn an_expired_item_is_gone_before_it_is_swept() {
        let past = SystemTime::now() - Duration::from_secs(1);
        let mut items = Items::default();
        items.insert("old", entry(Some(past)));
        assert!(items.get("old").is_none());
        let first_write = Change { key: "old", condition: Condition::Absent, entry: Some(entry(None)) };
        items.apply(&[first_write]).expect("an expired item does not exist");
        assert!(items.by_expiry.is_empty());
    }

    #[test]
    fn sweeping_drops_what_has_expired_and_nothing_else() {
        let now = SystemTime::now();
        let mut items = Items::default();
        items.insert("past", entry(Some(now - Duration::from_secs(1))));
        items.insert("future", entry(Some(now + Duration::from_secs(1))));
        items.insert("forever", entry(None));
        items.insert("renewed", entry(Some(now - Duration::from_secs(1))));
        items.insert("renewed", entry(None));
        items.drop_expired(now);
        assert!(!items.by_key.contains_key("past"));
        assert!(["future", "forever", "renewed"].iter().all(|key| items.by_key.contains_key(*key)));
        assert_eq!(items.by_expiry.len(), 1);
    }

    #[tokio::test]
    async fn an_empty_value_is_an_item() {
        let store = InMemory::new();
        store.set(&set("k", "")).await.expect("set");
        let item = store.get(&get("k")).await.expect("get").expect("an item");
        assert!(item.value.is_empty() && item.etag.is_some());
    }

    #[tokio::test]
    async fn every_write_changes_the_etag_and_a_stale_one_is_refused_with_both_named() {
        let store = InMemory::new();
        let etag_of = async || store.get(&get("k")).await.expect("get").expect("an item").etag.expect("an etag");
        store.set(&set("k", "1")).await.expect("set");
        let first = etag_of().await;
        store.set(&SetRequest { etag: Some(first.clone()), ..set("k", "2") }).await.expect("the etag is fresh");
        let second = etag_of().await;
        let error = store.set(&SetRequest { etag: Some(first.clone()), ..set("k", "3") }).await.expect_err("stale");
        assert_eq!(
            error.to_string(),
            format!(
                "possible etag mismatch. error from state store: \
                 state etag not match for key=k: current={second}, expect={first}"
            )
        );
    }

    #[tokio::test]
    async fn a_transaction_with_one_stale_etag_changes_nothing() {
        let store = InMemory::new();
        let stale = SetRequest { etag: Some("stale".to_owned()), ..set("b", "2") };
        let operations = [Operation::Upsert(set("a", "1")), Operation::Upsert(stale)];
        let error = store.transact(&operations, &Metadata::new()).await.expect_err("one is stale");
        assert!(error.is_etag());
        assert!(store.get(&get("a")).await.expect("get").is_none());
    }

    #[tokio::test]
    async fn a_life_that_is_no_number_is_refused_and_a_negative_one_means_no_limit() {
        let store = InMemory::new();
        let with_ttl = |text: &str| SetRequest {
            metadata: Metadata::from([(TTL_IN_SECONDS.to_owned(), text.to_owned())]),
            ..set("k", "v")
        };
        let error = store.set(&with_ttl("abc")).await.expect_err("not a number");
        assert_eq!(error.to_string(), r#"strconv.Atoi: parsing "abc": invalid syntax"#);
        for (text, expires) in [("-2", false), ("0", false), ("100", true), ("9223372036854775807", false)] {
            store.set(&with_ttl(text)).await.expect("valid");
            let item = store.get(&get("k")).await.expect("get").expect("an item");
            assert_eq!(item.metadata.contains_key(TTL_EXPIRE_TIME), expires, "{text}");
        }
    }

    #[tokio::test]
    async fn a_closed_or_dropped_store_leaves_no_task_behind() {
        let store = InMemory::new();
        let items = Arc::downgrade(&store.items);
        store.close().await;
        assert_eq!(items.strong_count(), 1);
        let dropped = InMemory::new();
        let items = Arc::downgrade(&dropped.items);
        drop(dropped);
        tokio::task::yield_now().await;
        assert_eq!(items.strong_count(), 0);
    }
}
