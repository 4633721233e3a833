//! Calls by the typed `service` interface: whole messages, and nothing between the two guests but a copy of each.

use trilby_component::ErrorKind;
use trilby_core::{ChannelError, Ctx, Request, Response, body::CollectError};

use super::{App, failure};
use crate::message::{self, Invalid};

pub(super) async fn call(app: &App, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
    let request = message::request_to_wit(request, app.max_body_bytes).await.map_err(|error| {
        let kind = match error {
            CollectError::TooLarge(_) => ErrorKind::InvalidRequest,
            CollectError::Broken(_) => ErrorKind::Unavailable,
        };
        ChannelError::new(kind, format!("the request's {error}"))
    })?;

    let answer = app
        .call(ctx, move |store, exports| Box::pin(async move { exports.service().call_call(store, &request).await }))
        .await?;

    if answer.body.len() > app.max_body_bytes {
        return Err(failure::of_answer(&app.id, CollectError::TooLarge(app.max_body_bytes)));
    }
    message::response_from_wit(answer).map_err(|Invalid(message)| failure::of_answer(&app.id, message))
}
