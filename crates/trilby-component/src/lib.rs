//! What a component author needs: the traits that a store implements, the types that cross them, and the catalog
//! that names the implementations. Nothing here knows a transport, a database or the building blocks above.

pub mod catalog;
pub mod error;
pub mod json;
pub mod properties;
pub mod secret;
pub mod state;

use std::collections::BTreeMap;

pub use catalog::{Catalog, OpenRequest};
pub use error::{ComponentError, ErrorKind, Result};
pub use properties::Properties;

/// Per-request or per-reply string pairs, Dapr's extension point. Empty costs no allocation.
pub type Metadata = BTreeMap<String, String>;
