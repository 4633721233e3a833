//! The doors, each as a [`Client`](crate::client::Client) of the suite.

mod bindings;
mod configuration;
mod conversation;
mod crypto;
mod embedded;
mod grpc;
mod http;
mod inbox;
mod lock;
mod pubsub;
mod wasm;

pub use embedded::Embedded;
pub use grpc::Grpc;
pub use http::Http;
pub use inbox::Inbox;
pub use wasm::Wasm;
