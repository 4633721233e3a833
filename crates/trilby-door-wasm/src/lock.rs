//! Locks for guests.

use std::time::Duration;

use trilby_component::lock;
use trilby_core::{Code, Error, Result};
use wasmtime::component::Resource;

use crate::{
    guest::Guest,
    wit::trilby::dapr::lock::{Host, HostLease, UnlockStatus},
};

/// A lock that a guest holds.
#[expect(unreachable_pub, reason = "the generated code exports it again")]
pub struct Lease {
    store: String,
    resource: String,
    owner: String,
}

impl Host for Guest {
    async fn try_acquire(
        &mut self,
        store: String,
        resource: String,
        owner: String,
        expiry_seconds: u32,
    ) -> Result<Option<Resource<Lease>>> {
        // First a place for the lease: without one nobody would give the lock back.
        let lease = Lease { store: store.clone(), resource: resource.clone(), owner: owner.clone() };
        let lease = self.table().push(lease).map_err(|_| {
            let message = "guest holds more host resources at a time than its limit allows (resources)";
            Error::new(Code::TryLock, message)
        })?;

        let taken = self.try_lock(store, resource, owner, expiry_seconds).await;

        if matches!(taken, Ok(true)) {
            return Ok(Some(lease));
        }
        // It was put there a moment ago, and the guest has not seen it.
        let _ = self.table().delete(lease);
        taken.map(|_| None)
    }

    async fn try_lock(&mut self, store: String, resource: String, owner: String, expiry_seconds: u32) -> Result<bool> {
        let expiry = Duration::from_secs(expiry_seconds.into());

        let (api, ctx) = self.blocks();
        api.lock.try_lock(ctx, &store, &resource, &owner, expiry).await
    }

    async fn unlock(&mut self, store: String, resource: String, owner: String) -> Result<UnlockStatus> {
        let (api, ctx) = self.blocks();
        api.lock.unlock(ctx, &store, &resource, &owner).await.map(status)
    }
}

impl HostLease for Guest {
    async fn release(&mut self, lease: Resource<Lease>) -> Result<UnlockStatus> {
        let lease = self.table().delete(lease).map_err(|error| Error::new(Code::Unlock, error.to_string()))?;
        self.unlock(lease.store, lease.resource, lease.owner).await
    }

    /// Nobody is there to hear what came of it, so that is logged.
    async fn drop(&mut self, lease: Resource<Lease>) -> wasmtime::Result<()> {
        let Lease { store, resource, owner } = self.table().delete(lease)?;
        if let Err(error) = self.unlock(store.clone(), resource, owner).await {
            tracing::warn!(store, %error, "lock was not given back, and lasts until its time is over");
        }
        Ok(())
    }
}

fn status(status: lock::UnlockStatus) -> UnlockStatus {
    match status {
        lock::UnlockStatus::Success => UnlockStatus::Success,
        lock::UnlockStatus::LockDoesNotExist => UnlockStatus::DoesNotExist,
        lock::UnlockStatus::LockBelongsToOthers => UnlockStatus::BelongsToOthers,
        lock::UnlockStatus::InternalError => UnlockStatus::InternalError,
    }
}
