//! The Wasm engine: compiles, limits, pools and runs guests, and knows nothing of what they are for.
//!
//! An [`Engine`] loads a [`Program`] from a [`Source`]. The embedder links it, says how one instance is made
//! ([`Blueprint`]) and calls instances through a [`Pool`], which applies [`Limits`], reuses what is healthy and keeps a
//! spinning guest from stalling its neighbours ([`lane`]). [`Command`] runs a program once, to its exit code.
//!
//! Nothing here is global: several engines live in one process, and an engine that loads nothing costs nothing.

pub mod inspect;
pub mod lane;

mod artifact;
#[cfg(feature = "compiler")]
mod cache;
mod command;
mod engine;
mod error;
mod limits;
mod pool;
mod program;
mod source;
mod ticker;
mod turns;
mod wasi;

pub use command::{Capture, Command, Finished, Invocation};
pub use engine::{Allocator, Engine, Options};
pub use error::{CallError, LoadError, LoadReason};
pub use limits::{Exceeded, HostState, Limits, Meter};
pub use pool::{Blueprint, Instance, Isolation, Pool, Stats};
pub use program::{Better, Kind, Program, Tiered};
pub use source::{FetchLimits, Reference, Source};
pub use wasi::{AllowedHosts, Directory, Grants, HostPattern, InvalidHost, LogSink, Logs, Stream};
// The embedder links against these very versions; a second copy would not fit.
pub use {wasmtime, wasmtime_wasi, wasmtime_wasi_http};
