//! `lock.in-memory`: locks in this process's memory, for apps of one process and for tests. Trilby's own.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use trilby_component::{
    OpenRequest, Result,
    lock::{LockStore, UnlockStatus},
};

/// Opens an empty store; it has no settings.
///
/// # Errors
/// None: the signature is the catalog's.
pub async fn open(_: OpenRequest) -> Result<Arc<dyn LockStore>> {
    Ok(Arc::new(InMemory::default()))
}

#[derive(Default)]
struct InMemory {
    locks: Mutex<Locks>,
}

#[async_trait]
impl LockStore for InMemory {
    async fn try_lock(&self, resource: &str, owner: &str, expiry: Duration) -> Result<bool> {
        Ok(self.change(|locks| locks.take(resource, owner, Instant::now(), expiry)))
    }

    async fn unlock(&self, resource: &str, owner: &str) -> Result<UnlockStatus> {
        Ok(self.change(|locks| locks.give_back(resource, owner, Instant::now())))
    }
}

impl InMemory {
    fn change<T>(&self, change: impl FnOnce(&mut Locks) -> T) -> T {
        // Nothing panics while it holds the lock.
        change(&mut self.locks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Default)]
struct Locks {
    by_resource: HashMap<Arc<str>, Lease>,
    /// The leases that end, the next one first: each request drops those that have ended, and no others are kept.
    by_end: BTreeSet<(Instant, Arc<str>)>,
}

struct Lease {
    owner: String,
    /// `None` if that is too far away to be counted.
    ends_at: Option<Instant>,
}

impl Locks {
    fn take(&mut self, resource: &str, owner: &str, now: Instant, expiry: Duration) -> bool {
        self.drop_ended(now);
        if self.by_resource.contains_key(resource) {
            return false;
        }
        let (resource, ends_at) = (Arc::<str>::from(resource), now.checked_add(expiry));
        self.by_end.extend(ends_at.map(|at| (at, Arc::clone(&resource))));
        self.by_resource.insert(resource, Lease { owner: owner.to_owned(), ends_at });
        true
    }

    fn give_back(&mut self, resource: &str, owner: &str, now: Instant) -> UnlockStatus {
        self.drop_ended(now);
        match self.by_resource.get(resource) {
            None => UnlockStatus::LockDoesNotExist,
            Some(lease) if lease.owner != owner => UnlockStatus::LockBelongsToOthers,
            Some(_) => {
                if let Some((resource, Lease { ends_at: Some(at), .. })) = self.by_resource.remove_entry(resource) {
                    self.by_end.remove(&(at, resource));
                }
                UnlockStatus::Success
            }
        }
    }

    fn drop_ended(&mut self, now: Instant) {
        while let Some((at, _)) = self.by_end.first()
            && *at <= now
            && let Some((_, resource)) = self.by_end.pop_first()
        {
            self.by_resource.remove(&resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_lock_has_one_owner_until_it_is_given_back() {
        let (mut locks, now) = (Locks::default(), Instant::now());
        assert!(locks.take("r", "a", now, MINUTE));
        assert!(!locks.take("r", "b", now, MINUTE));
        assert!(!locks.take("r", "a", now, MINUTE), "the owner does not get it twice");
        assert_eq!(locks.give_back("r", "b", now), UnlockStatus::LockBelongsToOthers);
        assert_eq!(locks.give_back("r", "a", now), UnlockStatus::Success);
        assert_eq!(locks.give_back("r", "a", now), UnlockStatus::LockDoesNotExist);
        assert!(locks.take("r", "b", now, MINUTE));
    }

    #[test]
    fn a_lock_that_is_not_given_back_ends() {
        let (mut locks, now) = (Locks::default(), Instant::now());
        assert!(locks.take("r", "a", now, MINUTE) && locks.take("long", "a", now, 2 * MINUTE));
        assert!(locks.take("for ever", "a", now, Duration::MAX));
        let later = now + MINUTE;
        assert_eq!(locks.give_back("r", "a", later), UnlockStatus::LockDoesNotExist);
        assert!(locks.take("r", "b", later, MINUTE));
        assert!(!locks.take("long", "b", later, MINUTE) && !locks.take("for ever", "b", later, MINUTE));
    }

    #[test]
    fn nothing_is_kept_of_locks_that_are_gone() {
        let (mut locks, now) = (Locks::default(), Instant::now());
        for index in 0..100 {
            locks.take(&index.to_string(), "a", now, MINUTE);
        }
        locks.give_back("7", "a", now);
        assert_eq!((locks.by_resource.len(), locks.by_end.len()), (99, 99));
        locks.take("r", "a", now + MINUTE, MINUTE);
        assert_eq!((locks.by_resource.len(), locks.by_end.len()), (1, 1));
    }
}
