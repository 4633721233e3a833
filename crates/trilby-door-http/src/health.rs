//! Health probes.

use trilby_core::{Code, Error, Response, Result};

use crate::codec::{self, Call};

/// `GET v1.0/healthz`; with `appid` also whether this is that app.
pub(crate) fn check(call: &Call<'_>) -> Result<Response> {
    let asked_for = call.query.get("appid");

    call.door.api.health.check()?;

    if asked_for.is_some_and(|id| id != call.door.api.app.id) {
        return Err(Error::new(Code::HealthAppIdMismatch, "dapr app-id does not match"));
    }
    Ok(codec::no_content())
}

/// `GET v1.0/healthz/outbound`
pub(crate) fn check_outbound(call: &Call<'_>) -> Result<Response> {
    call.door.api.health.check_outbound()?;
    Ok(codec::no_content())
}
