//! The two programs: `trilby`, which runs apps, and `daprd`, which runs beside one. Flags and environment become a
//! [`trilby::Builder`]; signals end what it started. Nothing else reads the environment, logs, or ends a process.

pub mod commands;
pub mod run;
pub mod sidecar;

mod apps;
mod env;
mod go_flags;
mod listen;
mod log;
mod metrics;
mod signals;
mod suggest;

/// The version that both programs show: that of the Dapr whose behaviour this is, then our own. Tools compare it, so it
/// is a semantic version.
pub const VERSION: &str = concat!("1.18.3-trilby.", env!("CARGO_PKG_VERSION"));
