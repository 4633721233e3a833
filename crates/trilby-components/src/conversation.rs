//! Language models.

pub mod echo;
#[cfg(feature = "conversation")]
pub mod openai;
