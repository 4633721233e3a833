//! The lock store: leases on resources that processes share.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;

/// What came of an unlock. The numbers are Dapr's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnlockStatus {
    /// It is free now.
    Success = 0,
    /// Nobody held it.
    LockDoesNotExist = 1,
    /// Another owner holds it, and still does.
    LockBelongsToOthers = 2,
    /// The store failed.
    InternalError = 3,
}

/// A lock store. Open it through the [`Catalog`](crate::Catalog); it is ready when `open` returns.
#[async_trait]
pub trait LockStore: Send + Sync {
    /// Takes the lock of `resource` for `owner`, for at most `expiry`. `false` if somebody holds it, the same owner
    /// included.
    async fn try_lock(&self, resource: &str, owner: &str, expiry: Duration) -> Result<bool>;

    /// Gives it back.
    async fn unlock(&self, resource: &str, owner: &str) -> Result<UnlockStatus>;

    /// Whether the backend answers.
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    /// Releases connections. Called once, after the last request.
    async fn close(&self) {}
}
