//! Health checks of guests that export `health`.

use trilby_component::ErrorKind;
use trilby_core::{ChannelError, Ctx};

use super::App;

pub(super) async fn check(app: &App, ctx: &Ctx) -> Result<(), ChannelError> {
    let checked = app.call(ctx, |store, exports| Box::pin(async move { exports.health().call_check(store).await }));
    checked.await?.map_err(|reason| ChannelError::new(ErrorKind::Unavailable, reason))
}
