//! The conformance suite: what each building block must do, as an application sees it, whatever component is behind it
//! and whatever door is in front.
//!
//! Cases ([`cases`]) are sentences; they speak only to a [`client::Client`]. Which of them a component must pass is
//! decided by what it says it can do. The suite is a star: every component is tested through the embedded door, and the
//! in-memory and SQLite stores through every door. `tests/conformance.rs` runs it over the built-in components,
//! and the program `trilby-conformance` over anybody's.

pub mod backends;
pub mod cases;
pub mod client;
pub mod clients;
pub mod harness;
pub mod suite;
