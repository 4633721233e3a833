//! State stores, one module each, and what they share.

pub mod in_memory;
#[cfg(feature = "postgresql")]
pub mod postgresql;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqlite")]
pub mod sqlite;

mod condition;
mod go_integer;
mod ttl;
