//! The blocks of one app, as doors and embedders hold them.

use std::{ops::Deref, sync::Arc};

use crate::{
    Identity, health::Health, invoke::InvokeApi, metadata::MetadataApi, metrics::ErrorMeter, secrets::SecretsApi,
    state::StateApi,
};

/// The building blocks as one app may use them: scopes, key prefixes and secret scopes are already applied.
pub struct Blocks {
    /// The app.
    pub app: Identity,
    /// State stores.
    pub state: StateApi,
    /// Secret stores.
    pub secrets: SecretsApi,
    /// Service invocation.
    pub invoke: InvokeApi,
    /// What this runtime is and has.
    pub metadata: MetadataApi,
    /// Whether it is ready.
    pub health: Health,
    /// Counts the errors that doors answer with.
    pub errors: Arc<ErrorMeter>,
}

/// A cheap handle on the blocks of one app.
#[derive(Clone)]
pub struct Api(Arc<Blocks>);

impl Api {
    /// Shares the blocks of one app.
    #[must_use]
    pub fn new(blocks: Blocks) -> Self {
        Self(Arc::new(blocks))
    }
}

impl Deref for Api {
    type Target = Blocks;

    fn deref(&self) -> &Blocks {
        &self.0
    }
}
