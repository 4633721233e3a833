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
mod open_files;
mod signals;
mod suggest;
