//! The environment of the process, as a value.

use trilby::Env;

/// Every variable that is text.
pub(crate) fn read() -> Env {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}
