//! Changes of configuration for guests that export `configuration-watcher`.

use trilby_component::ErrorKind;
use trilby_core::{ChannelError, Ctx, app::ConfigurationUpdate};

use super::App;
use crate::configuration;

/// Stores and keys that the guest wants to hear of.
pub(super) async fn watched(app: &App, ctx: &Ctx) -> Result<Vec<(String, Vec<String>)>, ChannelError> {
    let asked = app
        .call(ctx, |store, exports| Box::pin(async move { exports.configuration_watcher().call_watch(store).await }));
    Ok(asked.await?.into_iter().map(|watched| (watched.store, watched.keys)).collect())
}

pub(super) async fn changed(app: &App, ctx: &Ctx, update: &ConfigurationUpdate<'_>) -> Result<(), ChannelError> {
    let name = update.store.to_owned();
    let items = configuration::to_wit(update.items.clone());

    let told = app.call(ctx, move |store, exports| {
        Box::pin(async move { exports.configuration_watcher().call_changed(store, &name, &items).await })
    });
    told.await?.map_err(|reason| ChannelError::new(ErrorKind::Internal, reason))
}
