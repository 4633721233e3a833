//! What can go wrong, for two readers: whoever loads a program, and whoever calls it.

use std::io;
use std::time::Duration;

use http::StatusCode;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::limits::{Exceeded, Meter};
use crate::program::Kind;

/// Why a program could not be loaded: the name it was asked for by, and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct LoadError {
    /// The path, URL or label under which the program was asked for.
    pub name: String,
    /// What is wrong with it.
    pub reason: LoadReason,
}

/// The reasons of a [`LoadError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadReason {
    #[error("no such file; check the path")]
    NotFound,
    #[error("cannot be read: {0}")]
    Read(io::Error),
    #[error("unknown scheme {0:?}; use a path, file://, http://, https:// or oci://")]
    Scheme(String),
    #[error("is not a valid address: {0}")]
    Address(String),
    #[error("cannot be fetched: {0}")]
    Fetch(String),
    #[error("cannot be fetched: the server answered {0}")]
    Status(StatusCode),
    #[error("cannot be fetched: more than {0} redirects")]
    Redirects(usize),
    #[error("cannot be fetched: no answer within {0:?}")]
    Timeout(Duration),
    #[error("is larger than {0} bytes, the limit for a program")]
    TooLarge(usize),
    #[error("cannot be taken from its registry: {0}")]
    Artifact(String),
    #[error("is empty, not WebAssembly")]
    Empty,
    #[error("is not WebAssembly: it starts with {0}; a .wasm file starts with \\0asm")]
    NotWasm(String),
    #[error("is WebAssembly text; convert it to the binary format, for instance with `wasm-tools parse`")]
    Text,
    #[error("is truncated: it ends at byte {0}, inside a section; copy or download it again")]
    Truncated(usize),
    #[error(
        "is a {kind} of binary version {found} and this build reads version {known}; update the runtime or build the guest with other tools"
    )]
    Version { kind: Kind, found: u16, known: u16 },
    #[error("is a {found}; a {wanted} is needed here")]
    WrongKind { found: Kind, wanted: Kind },
    #[error("is not valid WebAssembly: {0:#}")]
    Invalid(wasmtime::Error),
    #[error("is not compiled and this build has no compiler; compile it ahead of time")]
    NoCompiler,
    #[error("is compiled code, which is loaded only from a local file that you name, never from an address")]
    Untrusted,
    #[error("is compiled code without the seal of this runtime, or cut short; compile it again")]
    Unsealed,
    #[error("is compiled code that was changed or damaged; compile it again")]
    Damaged,
    #[error("is compiled for {found} and this engine is {wanted}; compile it again")]
    OtherEngine { found: String, wanted: String },
    #[error("is compiled code that this engine does not take, compile it again: {0:#}")]
    Incompatible(wasmtime::Error),
    #[error("cannot be linked: {0:#}")]
    Link(wasmtime::Error),
    #[error("needs the Wasm engine, which cannot start: {0}")]
    Engine(String),
}

impl LoadReason {
    /// Names the program that this is the trouble of.
    pub fn of(self, name: impl Into<String>) -> LoadError {
        LoadError { name: name.into(), reason: self }
    }
}

/// Why a call did not give a result. Only that call is lost: the instance that ran it is thrown away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    #[error(
        "too many concurrent calls: {running} are running and none finished within {waited:?}; raise max_concurrency or call less"
    )]
    Busy { running: u32, waited: Duration },
    #[error(
        "too many concurrent calls: {running} are running and {queued} wait already; raise max_concurrency or call less"
    )]
    QueueFull { running: u32, queued: u32 },
    #[error("no answer within {0:?}, the limit for one call (call_timeout)")]
    Deadline(Duration),
    #[error("{0}")]
    Limit(Exceeded),
    #[error("guest ran out of stack, by recursion without end or a very deep call chain")]
    StackOverflow {
        /// Where the guest was, innermost frame first.
        backtrace: String,
    },
    #[error("guest trapped: {message}")]
    Trap {
        /// What the guest did, for instance `wasm trap: integer divide by zero`.
        message: String,
        /// Where the guest was, innermost frame first.
        backtrace: String,
    },
    #[error("guest exited with code {0} instead of answering")]
    Exit(i32),
    #[error("every instance slot of the engine is in use: {0}; raise max_instances")]
    Exhausted(String),
    #[error("{message}")]
    Host {
        /// What the host says.
        message: String,
        /// Where the guest was, innermost frame first; empty if the guest was not running.
        backtrace: String,
    },
}

impl CallError {
    /// Names the cause of an error that came out of a guest call, with what its meter saw.
    pub fn new(error: wasmtime::Error, meter: &Meter) -> Self {
        // A refused allocation comes first: the trap that follows it is only the guest's way to give up.
        if let Some(exceeded) = meter.exceeded() {
            return Self::Limit(exceeded);
        }
        if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
            return Self::Limit(*exceeded);
        }
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return Self::Exit(exit.0);
        }
        if let Some(full) = error.downcast_ref::<PoolConcurrencyLimitError>() {
            return Self::Exhausted(full.to_string());
        }
        let Some(backtrace) = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string) else {
            return Self::host(&error);
        };
        match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => Self::StackOverflow { backtrace },
            Some(trap) => Self::Trap { message: trap.to_string(), backtrace },
            // The frames are the outermost context of the error; its message is what lies under them.
            None => Self::Host { message: error.root_cause().to_string(), backtrace },
        }
    }

    /// A failure of the host before or beside the guest.
    pub(crate) fn host(error: &wasmtime::Error) -> Self {
        Self::Host { message: format!("{error:#}"), backtrace: String::new() }
    }

    /// The guest's frames when the error has them, for the log: never for the answer to a caller.
    pub fn backtrace(&self) -> Option<&str> {
        match self {
            Self::StackOverflow { backtrace } | Self::Trap { backtrace, .. } | Self::Host { backtrace, .. } => {
                Some(backtrace.as_str()).filter(|backtrace| !backtrace.is_empty())
            }
            _ => None,
        }
    }
}
