//! Output bindings for guests.

use trilby_core::Result;

use crate::{guest::Guest, wit::trilby::dapr::bindings};

impl bindings::Host for Guest {
    async fn invoke(
        &mut self,
        name: String,
        operation: String,
        data: Vec<u8>,
        metadata: Vec<(String, String)>,
    ) -> Result<bindings::Reply> {
        let metadata = metadata.into_iter().collect();

        let (api, ctx) = self.blocks();
        let answer = api.bindings.invoke(ctx, &name, &operation, data.into(), metadata).await;

        let answer = answer.map_err(|failure| failure.error)?;
        Ok(bindings::Reply {
            data: answer.data.map(Into::into),
            content_type: answer.content_type,
            metadata: answer.metadata.into_iter().collect(),
        })
    }
}
