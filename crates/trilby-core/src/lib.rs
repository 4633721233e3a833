//! The building blocks. All semantics live here, once; doors decode and encode, components store.
//!
//! A door holds an [`Api`], one per app, and calls its blocks. A block reaches a component only through a
//! [`handle::Handle`]. Nothing here knows a transport or a database.

pub mod api;
pub mod app;
pub mod bindings;
pub mod body;
mod cel;
pub mod configuration;
pub mod conversation;
pub mod crypto;
pub mod ctx;
pub mod error;
pub mod handle;
pub mod health;
pub mod invoke;
pub mod lock;
pub mod metadata;
pub mod metrics;
pub mod pubsub;
pub mod resiliency;
pub mod secrets;
pub mod state;
pub mod wiring;

pub use api::{Api, Blocks};
pub use app::{AppChannel, ChannelError, Identity};
pub use body::Body;
pub use ctx::{Ctx, Trace};
pub use error::{Code, Error, Result};
pub use wiring::Wiring;

/// A request to an app or an endpoint.
pub type Request = http::Request<Body>;
/// What it answered.
pub type Response = http::Response<Body>;
