//! Calls by the typed `service` interface: whole messages, and nothing between the two guests but a copy of each.

use trilby_component::ErrorKind;
use trilby_core::{ChannelError, Ctx, Request, Response, body::CollectError};
use trilby_wasm::{Instance, Pool};

use super::{App, Plan, failure};
use crate::{
    bindings::ServiceAppPre,
    guest::Guest,
    message::{self, Invalid},
};

pub(super) async fn call(
    app: &App,
    pool: &Pool<Plan<ServiceAppPre<Guest>>>,
    ctx: &Ctx,
    request: Request,
) -> Result<Response, ChannelError> {
    let request = message::request_to_wit(request, app.max_body_bytes).await.map_err(|error| {
        let kind = match error {
            CollectError::TooLarge(_) => ErrorKind::InvalidRequest,
            CollectError::Broken(_) => ErrorKind::Unavailable,
        };
        ChannelError::new(kind, format!("the request's {error}"))
    })?;

    let ctx = ctx.clone();
    let answer = pool.call(move |Instance { store, exports, .. }: &mut Instance<_>| {
        Box::pin(async move {
            store.data_mut().begin(ctx);
            exports.trilby_dapr_service().call_call(store, &request).await.map_err(failure::named)
        })
    });
    let answer = answer.await.map_err(|error| failure::of_call(&app.id, &error))?;

    if answer.body.len() > app.max_body_bytes {
        return Err(failure::of_answer(&app.id, CollectError::TooLarge(app.max_body_bytes)));
    }
    message::response_from_wit(answer).map_err(|Invalid(message)| failure::of_answer(&app.id, message))
}
