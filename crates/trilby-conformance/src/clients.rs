//! The doors, each as a [`Client`](crate::client::Client) of the suite.

mod embedded;
mod grpc;
mod http;
mod wasm;

pub use embedded::Embedded;
pub use grpc::Grpc;
pub use http::Http;
pub use wasm::Wasm;
