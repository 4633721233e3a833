//! State stores, one module each.

pub mod in_memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod ttl;
