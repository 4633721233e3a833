//! Configuration for guests.

use trilby_component::configuration::Items;
use trilby_core::Result;

use crate::{guest::Guest, wit::trilby::dapr::configuration};

impl configuration::Host for Guest {
    async fn get(
        &mut self,
        store: String,
        keys: Vec<String>,
        metadata: Vec<(String, String)>,
    ) -> Result<Vec<configuration::Item>> {
        let metadata = metadata.into_iter().collect();

        let (api, ctx) = self.blocks();
        let items = api.configuration.get(ctx, &store, &keys, &metadata).await?;

        Ok(to_wit(items))
    }
}

pub(crate) fn to_wit(items: Items) -> Vec<configuration::Item> {
    let item = |(key, item): (String, trilby_component::configuration::Item)| configuration::Item {
        key,
        value: item.value,
        version: item.version,
        metadata: item.metadata.into_iter().collect(),
    };
    items.into_iter().map(item).collect()
}
