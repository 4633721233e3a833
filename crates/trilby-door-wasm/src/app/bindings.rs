//! Events of input bindings for guests that export `input-binding`.

use trilby_component::ErrorKind;
use trilby_core::{
    ChannelError, Ctx,
    app::{BindingEvent, BindingReply},
};

use super::App;
use crate::{state, wit::exports::trilby::dapr::input_binding};

/// Whether the guest asks for the events of a binding.
pub(super) async fn listens(app: &App, ctx: &Ctx, binding: &str) -> Result<bool, ChannelError> {
    let asked =
        app.call(ctx, |store, exports| Box::pin(async move { exports.input_binding().call_bindings(store).await }));
    Ok(asked.await?.iter().any(|name| name == binding))
}

pub(super) async fn handle(app: &App, ctx: &Ctx, event: &BindingEvent<'_>) -> Result<BindingReply, ChannelError> {
    let event = input_binding::Event {
        binding: event.binding.to_owned(),
        data: event.data.to_vec(),
        content_type: event.content_type.map(str::to_owned),
        metadata: event.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    };

    let handled = app.call(ctx, move |store, exports| {
        Box::pin(async move { exports.input_binding().call_handle(store, &event).await })
    });
    let reply = handled.await?.map_err(|reason| ChannelError::new(ErrorKind::Internal, reason))?;

    Ok(BindingReply {
        data: reply.data.map(Into::into),
        to: reply.to,
        parallel: reply.parallel,
        state: reply.state.into_iter().map(state::set_request).collect(),
        store: reply.store,
    })
}
