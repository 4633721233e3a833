//! Secret stores, one module each.

pub mod local_env;
pub mod local_file;
