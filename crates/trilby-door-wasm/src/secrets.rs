//! The secrets block for guests.

use trilby_core::Result;

use crate::{guest::Guest, wit::trilby::dapr::secrets};

type Pairs = Vec<(String, String)>;

impl secrets::Host for Guest {
    async fn get(&mut self, store: String, key: String, metadata: Pairs) -> Result<Pairs> {
        let metadata = metadata.into_iter().collect();

        let (api, ctx) = self.blocks();
        let secret = api.secrets.get(ctx, &store, &key, &metadata).await?;

        Ok(secret.into_iter().collect())
    }

    async fn get_bulk(&mut self, store: String, metadata: Pairs) -> Result<Vec<(String, Pairs)>> {
        let metadata = metadata.into_iter().collect();

        let (api, ctx) = self.blocks();
        let secrets = api.secrets.bulk_get(ctx, &store, &metadata).await?;

        Ok(secrets.into_iter().map(|(name, secret)| (name, secret.into_iter().collect())).collect())
    }
}
