//! Service invocation for guests.

use trilby_core::{Code, Error, Result, body::CollectError};

use crate::{
    guest::Guest,
    message::{self, Invalid},
    wit::trilby::dapr::{invoke, types},
};

impl invoke::Host for Guest {
    async fn call(&mut self, app_id: String, request: types::Request) -> Result<types::Response> {
        let request = message::request_from_wit(request)
            .map_err(|Invalid(message)| Error::new(Code::MalformedRequest, format!("invalid request: {message}")))?;

        let (api, ctx) = self.blocks();
        let response = api.invoke.call(ctx, &app_id, request).await?;

        let answer = message::response_to_wit(response, self.max_body_bytes()).await;
        answer.map_err(|error| {
            let code = match error {
                CollectError::TooLarge(_) => Code::BodyRead,
                CollectError::Broken(_) => Code::Invoke,
            };
            Error::new(code, format!("failed to invoke, id: {app_id}, err: the answer's {error}"))
        })
    }
}
