//! Cryptography providers.

mod key;
mod local;

pub mod jwks;
pub mod local_storage;
