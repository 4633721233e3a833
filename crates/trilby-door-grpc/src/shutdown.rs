//! Ending the runtime from outside.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use crate::unary::{self, Reply};

const FORCE: HeaderName = HeaderName::from_static("dapr-force-shutdown");
/// A framed `google.protobuf.Empty`.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);

/// How the runtime is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// After what is under way.
    Graceful,
    /// At once, as far as the answer can still be sent. Asked for with the metadata `dapr-force-shutdown: true`.
    Forced,
}

/// Called when the runtime is asked to end; only starts that, and returns.
pub type Hook = Arc<dyn Fn(Shutdown) + Send + Sync>;

pub(crate) fn answer(hook: &Hook, metadata: &HeaderMap) -> http::Response<Reply> {
    let forced = metadata.get(FORCE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));

    hook(if forced { Shutdown::Forced } else { Shutdown::Graceful });

    unary::reply(EMPTY)
}
