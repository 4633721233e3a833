//! What a component author needs: the traits that a store implements, the types that cross them, and the catalog
//! that names the implementations. Nothing here knows a transport, a database or the building blocks above.

pub mod binding;
pub mod catalog;
pub mod configuration;
pub mod conversation;
pub mod crypto;
pub mod error;
pub mod json;
pub mod lock;
pub mod properties;
pub mod pubsub;
pub mod secret;
pub mod state;

use std::collections::BTreeMap;

pub use catalog::{Catalog, OpenRequest};
pub use error::{ComponentError, ErrorKind, Result};
pub use properties::Properties;
/// Ends a subscription, a reading or a watch.
pub use tokio_util::sync::CancellationToken;

/// Per-request or per-reply string pairs, Dapr's extension point. Empty costs no allocation.
pub type Metadata = BTreeMap<String, String>;
