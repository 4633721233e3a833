//! A sink for changes of configuration that remembers them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use trilby_component::{
    CancellationToken, Metadata,
    configuration::{ConfigurationStore, Item, Items, Sink},
};

use super::eventually;

/// The changes that were reported, in order.
#[derive(Default)]
pub(crate) struct Changes(Mutex<Vec<(String, Item)>>);

#[async_trait]
impl Sink for Changes {
    async fn changed(&self, items: Items) {
        self.0.lock().expect("no panic").extend(items);
    }
}

impl Changes {
    pub(crate) fn all(&self) -> Vec<(String, Item)> {
        self.0.lock().expect("no panic").clone()
    }

    /// What was reported of one key; empty where it was gone.
    pub(crate) fn values_of(&self, key: &str) -> Vec<String> {
        let changes = self.0.lock().expect("no panic");
        changes.iter().filter(|(changed, _)| changed == key).map(|(_, item)| item.value.clone()).collect()
    }

    /// Waits until the last value that was reported of a key is this one.
    pub(crate) async fn wait_for(&self, key: &str, value: &str) {
        let what = format!("{key} is reported as {value:?}");
        eventually(&what, || (self.values_of(key).last()? == value).then_some(())).await;
    }
}

/// Watches until the token is cancelled.
pub(crate) async fn watch(
    store: &dyn ConfigurationStore,
    keys: &[String],
    changes: &Arc<Changes>,
) -> CancellationToken {
    let stop = CancellationToken::new();
    let sink = Arc::clone(changes) as Arc<dyn Sink>;
    let watch = store.watch(keys, &Metadata::new(), sink, stop.clone()).await.expect("watch");
    tokio::spawn(watch);
    stop
}
