//! State stores, one module each, and what they share.

pub mod in_memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;

mod condition;
mod ttl;
