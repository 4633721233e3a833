//! The building blocks. All semantics live here, once; doors decode and encode, components store.
//!
//! A door holds an [`Api`], one per app, and calls its blocks. A block reaches a component only through a
//! [`handle::Handle`]. Nothing here knows a transport or a database.

pub mod api;
pub mod app;
pub mod body;
pub mod ctx;
pub mod error;
pub mod handle;
pub mod health;
pub mod invoke;
pub mod metadata;
pub mod metrics;
pub mod secrets;
pub mod state;

pub use api::{Api, Blocks};
pub use app::{AppChannel, ChannelError, Identity};
pub use body::Body;
pub use ctx::{Ctx, Trace};
pub use error::{Code, Error, Result};

/// A request to an app or an endpoint.
pub type Request = http::Request<Body>;
/// What it answered.
pub type Response = http::Response<Body>;
