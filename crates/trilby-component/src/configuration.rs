//! The configuration store: values that operators change while apps run.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::{CancellationToken, Metadata, error::Result};

/// A configuration value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// The value; empty once its key is gone.
    pub value: String,
    /// The store's version of it; may be empty.
    pub version: String,
    /// Component-specific extras.
    pub metadata: Metadata,
}

/// Values by key.
pub type Items = BTreeMap<String, Item>;

/// Where changes go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Hands on what changed. The store waits for it before it reports the next change.
    async fn changed(&self, items: Items);
}

/// A watch at work; as [`pubsub::Subscription`](crate::pubsub::Subscription).
pub type Watch = BoxFuture<'static, Result<()>>;

/// A configuration store. Open it through the [`Catalog`](crate::Catalog); it is ready when `open` returns.
#[async_trait]
pub trait ConfigurationStore: Send + Sync {
    /// Reads the values of `keys`, or of all keys if there are none. What does not exist is left out.
    async fn get(&self, keys: &[String], metadata: &Metadata) -> Result<Items>;

    /// Watches `keys`, or all of them if there are none: when this returns, changes from then on will be reported.
    ///
    /// # Errors
    /// If the store cannot be reached or refuses it.
    async fn watch(
        &self,
        keys: &[String],
        metadata: &Metadata,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Watch>;

    /// Whether the backend answers.
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    /// Releases connections. Called once, after the last request and the last watch.
    async fn close(&self) {}
}
