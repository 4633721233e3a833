//! The secrets API.

use trilby_core::{Response, Result};

use crate::codec::{self, Call};

/// `GET v1.0/secrets/{store}/{key}`
pub(crate) async fn get(call: &Call<'_>) -> Result<Response> {
    let metadata = call.query.metadata();

    let secret = call.door.api.secrets.get(call.ctx, &call.store, &call.key, &metadata).await?;

    Ok(codec::json_line(&secret))
}

/// `GET v1.0/secrets/{store}/bulk`
pub(crate) async fn bulk_get(call: &Call<'_>) -> Result<Response> {
    let metadata = call.query.metadata();

    let secrets = call.door.api.secrets.bulk_get(call.ctx, &call.store, &metadata).await?;

    Ok(codec::json_line(&secrets))
}
