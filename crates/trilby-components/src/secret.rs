//! Secret stores, one module each.

#[cfg(feature = "vault")]
pub mod hashicorp_vault;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod local_env;
pub mod local_file;
