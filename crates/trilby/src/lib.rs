//! Dapr's building blocks inside a Rust program: state, secrets and invocation, for the program itself, for Wasm guests
//! that run in it, and for ordinary apps beside it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use trilby::{AppSpec, Body, Response, Trilby};
//!
//! let component = "
//! apiVersion: dapr.io/v1alpha1
//! kind: Component
//! metadata: {name: statestore}
//! spec: {type: state.in-memory, version: v1}
//! ";
//! let trilby = Trilby::builder()
//!     .resources_text("state", component)
//!     .app(AppSpec::function("greeter", |_| async { Response::new(Body::from("hello")) }))
//!     .app(AppSpec::wasm("storefront", "storefront.wasm"))
//!     .start()
//!     .await?;
//! let store = trilby.api("greeter").expect("it was started").state.store("statestore")?;
//! # let _ = store;
//! trilby.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Trilby`] is a value: it reads no environment, sets no global, and opens no port that it was not told to. Several
//! live in one process and share nothing.

#![cfg_attr(
    not(all(feature = "http", feature = "grpc")),
    allow(
        dead_code,
        unreachable_code,
        unused_imports,
        unused_variables,
        reason = "a build without a door keeps the code around it; marking each place would hide what it does"
    )
)]

mod address;
mod app;
mod builder;
mod channel;
mod doors;
mod embedded;
mod error;
mod guard;
#[cfg(feature = "wasm")]
mod guest;
mod handlers;
mod health;
mod start;
mod trilby;

pub use address::Address;
pub use app::{AppSpec, DoorSettings};
pub use builder::Builder;
pub use doors::Listener;
pub use embedded::Embedded;
pub use error::Error;
pub use health::HealthCheck;
pub use trilby::{Stop, Trilby};

pub use http;
pub use trilby_component::{self as component, Catalog};
#[cfg(feature = "components")]
pub use trilby_components::builtins;
pub use trilby_core::{
    self as core, Api, AppChannel, Body, ChannelError, Code, Ctx, Error as ApiError, Identity, Request, Response,
};
#[cfg(feature = "grpc")]
pub use trilby_door_grpc as door_grpc;
#[cfg(feature = "http")]
pub use trilby_door_http as door_http;
#[cfg(feature = "wasm")]
pub use trilby_door_wasm as door_wasm;
pub use trilby_runtime::{self as runtime, Configuration, Env, Resources, StartError, configuration::WasmSettings};
#[cfg(feature = "wasm")]
pub use trilby_wasm::{self as wasm, Engine};

/// The Dapr whose API this is. Metadata shows it as the runtime's version, because clients compare it with Dapr's.
pub const VERSION: &str = "1.18.3";
