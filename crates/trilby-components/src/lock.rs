//! Lock stores, one module each.

pub mod in_memory;
#[cfg(feature = "redis")]
pub mod redis;
