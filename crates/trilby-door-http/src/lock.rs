//! The lock API.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trilby_core::{Body, Response, Result};

use crate::codec::{self, Call};

/// What a lock or unlock request says; the names of Dapr's protobuf fields are taken too.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wanted {
    #[serde(alias = "resource_id")]
    resource_id: String,
    #[serde(alias = "lock_owner")]
    lock_owner: String,
    #[serde(alias = "expiry_in_seconds")]
    expiry_in_seconds: i32,
}

#[derive(Serialize)]
struct Taken {
    success: bool,
}

#[derive(Serialize)]
struct Returned {
    status: i32,
}

/// `POST v1.0-alpha1/lock/{store}`
pub(crate) async fn try_lock(call: &Call<'_>, body: Body) -> Result<Response> {
    let text = call.json_body(body).await?;
    let wanted: Wanted = codec::decode_proto(&text)?;
    // What is not positive is zero to the block, which refuses it.
    let expiry = Duration::from_secs(u64::try_from(wanted.expiry_in_seconds).unwrap_or(0));

    let lock = &call.door.api.lock;
    let success = lock.try_lock(call.ctx, &call.store, &wanted.resource_id, &wanted.lock_owner, expiry).await?;

    Ok(codec::json(codec::encode(&Taken { success })))
}

/// `POST v1.0-alpha1/unlock/{store}`
pub(crate) async fn unlock(call: &Call<'_>, body: Body) -> Result<Response> {
    let text = call.json_body(body).await?;
    let wanted: Wanted = codec::decode_proto(&text)?;

    let lock = &call.door.api.lock;
    let status = lock.unlock(call.ctx, &call.store, &wanted.resource_id, &wanted.lock_owner).await?;

    Ok(codec::json(codec::encode(&Returned { status: status as i32 })))
}
