//! Bindings, one module each.

#[cfg(feature = "cron")]
pub mod cron;
#[cfg(feature = "http-client")]
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "local-storage")]
pub mod local_storage;
#[cfg(feature = "mqtt")]
pub mod mqtt3;
#[cfg(feature = "postgresql")]
pub mod postgresql;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "smtp")]
pub mod smtp;
#[cfg(feature = "wasm")]
pub mod wasm;
