//! Calls that a guest did not answer: what the caller hears, and what the log does.

use trilby_component::ErrorKind;
use trilby_core::ChannelError;
use trilby_wasm::CallError;
use wasmtime_wasi::ResourceTableError;

/// Logs a failed call, and says of it what a caller may know.
pub(super) fn of_call(app_id: &str, error: &CallError) -> ChannelError {
    let (kind, message) = match error {
        CallError::Busy { .. } | CallError::QueueFull { .. } | CallError::Exhausted(_) => {
            tracing::warn!(app_id, %error, "guest was not called");
            return ChannelError::new(ErrorKind::Unavailable, error.to_string());
        }
        CallError::Deadline(_) => (ErrorKind::Timeout, error.to_string()),
        CallError::Limit(_) | CallError::StackOverflow { .. } | CallError::Exit(_) => {
            (ErrorKind::Internal, error.to_string())
        }
        CallError::Trap { .. } => (ErrorKind::Internal, "guest trapped; see the log".to_owned()),
        _ => (ErrorKind::Internal, "guest failed; see the log".to_owned()),
    };
    tracing::error!(app_id, %error, backtrace = error.backtrace(), "guest failed");
    ChannelError::new(kind, message)
}

/// Logs an answer that is none, and says so.
pub(super) fn of_answer(app_id: &str, what: impl std::fmt::Display) -> ChannelError {
    let message = format!("guest's answer is invalid: {what}");
    tracing::error!(app_id, "{message}");
    ChannelError::new(ErrorKind::Internal, message)
}

/// Says which limit a guest ran into, where wasmtime only says that a table is full.
pub(super) fn named(error: wasmtime::Error) -> wasmtime::Error {
    match error.downcast_ref() {
        Some(ResourceTableError::Full) => {
            wasmtime::Error::msg("guest holds more host resources at a time than its limit allows (resources)")
        }
        _ => error,
    }
}
