//! Secret stores, one module each.

#[cfg(feature = "vault")]
pub mod hashicorp_vault;
pub mod local_env;
pub mod local_file;
