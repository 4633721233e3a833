//! Turns resources into running building blocks: YAML to components, components to the [`Api`](trilby_core::Api) of
//! each app. Knows no door.
//!
//! [`Resources`] are read first, then a [`Runtime`] is made of them and of a catalog, and asked for the blocks of one
//! app after the other. Everything comes in as a value: no environment is read and nothing is global, so that several
//! runtimes live in one process.

pub mod configuration;
pub mod env;
pub mod error;
pub mod local_apps;
mod parts;
pub mod quantity;
pub mod resources;
pub mod runtime;

mod endpoints;
mod load;
mod properties;

pub use configuration::Configuration;
pub use endpoints::{HttpClientFactory, TlsSettings};
pub use env::Env;
pub use error::StartError;
pub use local_apps::LocalApps;
pub use resources::Resources;
pub use runtime::{Options, Runtime};
