//! The secret store: what one must offer.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::{Metadata, error::Result};

/// One secret: its keys and values. Most stores have a single key, the secret's own name.
pub type Secret = BTreeMap<String, String>;

/// What a secret store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// A secret may hold several keys.
    MultipleKeyValuesPerSecret,
}

impl Feature {
    /// Dapr's name, as `/v1.0/metadata` lists it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MultipleKeyValuesPerSecret => "MULTIPLE_KEY_VALUES_PER_SECRET",
        }
    }
}

/// A secret store. Open it through the [`Catalog`](crate::Catalog); it is ready when `open` returns.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// What this store can do, fixed once it is open.
    fn features(&self) -> &[Feature] {
        &[]
    }

    /// Reads one secret.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name.
    async fn get(&self, name: &str, metadata: &Metadata) -> Result<Secret>;

    /// Reads every secret that this store may show.
    async fn bulk_get(&self, metadata: &Metadata) -> Result<BTreeMap<String, Secret>>;

    /// Whether the backend answers.
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    /// Releases connections. Called once, after the last request.
    async fn close(&self) {}
}
