//! Locks: decode, call the block, encode.

use std::time::Duration;

use trilby_core::{Api, Ctx, Result};
use trilby_proto::runtime::v1::{TryLockRequest, TryLockResponse, UnlockRequest, UnlockResponse};

pub(crate) async fn try_lock(api: &Api, ctx: &Ctx, message: TryLockRequest) -> Result<TryLockResponse> {
    // What is not positive is zero to the block, which refuses it.
    let expiry = Duration::from_secs(u64::try_from(message.expiry_in_seconds).unwrap_or(0));

    let taken = api.lock.try_lock(ctx, &message.store_name, &message.resource_id, &message.lock_owner, expiry).await?;

    Ok(TryLockResponse { success: taken })
}

pub(crate) async fn unlock(api: &Api, ctx: &Ctx, message: UnlockRequest) -> Result<UnlockResponse> {
    let status = api.lock.unlock(ctx, &message.store_name, &message.resource_id, &message.lock_owner).await?;

    Ok(UnlockResponse { status: status as i32 })
}
