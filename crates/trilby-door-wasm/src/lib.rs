//! The door for Wasm guests: the blocks as WIT interfaces, and guests as applications.
//!
//! A guest's calls arrive in one file per block (`state.rs`, `secrets.rs`, …), which decode, call `trilby-core` and
//! encode. Calls into a guest go through [`WasmApp`], which is an `AppChannel` like any other app. Nothing is linked that
//! a component does not import, and what it may not import is named when it is loaded.

mod app;
mod app_info;
mod bindings;
mod configuration;
mod conversation;
mod crypto;
mod error;
mod guest;
mod invoke;
mod link;
mod lock;
mod logging;
mod message;
mod outgoing;
mod pubsub;
mod report;
mod secrets;
mod state;
mod stream;
mod wit;

pub use app::{WasmApp, WasmAppOptions};
pub use link::LoadError;
pub use outgoing::DaprHttp;
pub use report::{Entry, Handler, Reason, Refusal, Report};
