//! Ending the runtime from outside.

use std::sync::Arc;

use http::HeaderName;
use trilby_core::Response;

use crate::codec::{self, Call};

const FORCE: HeaderName = HeaderName::from_static("dapr-force-shutdown");

/// How the runtime is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// After what is under way.
    Graceful,
    /// At once, as far as the answer can still be sent. Asked for with the header `dapr-force-shutdown: true`.
    Forced,
}

/// Called when the runtime is asked to end; only starts that, and returns.
pub type Hook = Arc<dyn Fn(Shutdown) + Send + Sync>;

/// `POST v1.0/shutdown`
pub(crate) fn shut_down(call: &Call<'_>) -> Response {
    let forced = call.headers.get(FORCE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));

    if let Some(hook) = &call.door.options.shutdown {
        hook(if forced { Shutdown::Forced } else { Shutdown::Graceful });
    }

    codec::no_content()
}
