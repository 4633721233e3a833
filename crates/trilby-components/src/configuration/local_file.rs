//! `configuration.local.file`: the members of a JSON object in a file, watched while the program runs. Trilby's own, for
//! development and for the embedded set: change the file and the apps hear of it.
//!
//! Values are strings; a value of another kind is its JSON text. A file that does not parse while somebody edits it is
//! reported, and what was read before stays.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::{fs, select, time};
use trilby_component::{
    CancellationToken, ComponentError, Metadata, OpenRequest, Result,
    configuration::{ConfigurationStore, Item, Items, Sink, Watch},
    properties::duration,
};

use super::changes;

/// What `spec.metadata` may hold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The JSON file, relative to the working directory. Required.
    pub path: String,
    /// How often the file is looked at for changes. Default 500 ms.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { path: String::new(), poll_interval: Duration::from_millis(500) }
    }
}

/// Reads the file once, to see that it can be.
///
/// # Errors
/// `InvalidMetadata` if `path` is not set, cannot be read, or does not hold one JSON object.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn ConfigurationStore>> {
    let config: Config = request.properties.parse()?;
    if config.path.is_empty() {
        return Err(ComponentError::metadata("missing path in metadata; set it to the path of a JSON file"));
    }
    read(&config.path).await?;
    Ok(Arc::new(LocalFile { config: Arc::new(config) }))
}

struct LocalFile {
    config: Arc<Config>,
}

#[async_trait]
impl ConfigurationStore for LocalFile {
    async fn get(&self, keys: &[String], _: &Metadata) -> Result<Items> {
        Ok(select_keys(read(&self.config.path).await?, keys))
    }

    async fn watch(
        &self,
        keys: &[String],
        _: &Metadata,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Watch> {
        let (config, keys) = (Arc::clone(&self.config), keys.to_vec());
        let mut stamp = stamp(&config.path).await;
        let mut known = select_keys(read(&config.path).await?, &keys);
        Ok(Box::pin(async move {
            loop {
                select! {
                    () = time::sleep(config.poll_interval) => {}
                    () = stop.cancelled() => return Ok(()),
                }
                let now = self::stamp(&config.path).await;
                if now == stamp {
                    continue;
                }
                stamp = now;
                match read(&config.path).await {
                    Ok(items) => {
                        let items = select_keys(items, &keys);
                        let changed = changes(&known, &items);
                        known = items;
                        if !changed.is_empty() {
                            sink.changed(changed).await;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "configuration file has changed and is not taken over"),
                }
            }
        }))
    }
}

/// By what a change is noticed. `None` while the file is not there.
async fn stamp(path: &str) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

async fn read(path: &str) -> Result<Items> {
    let text = fs::read(path).await.map_err(|error| {
        let message = format!("configuration file {path} cannot be read: {error}; create it or correct the path");
        ComponentError::metadata(message).with_source(error)
    })?;
    let members: BTreeMap<String, Value> = serde_json::from_slice(&text).map_err(|error| {
        let message = format!("configuration file {path} is not one JSON object: {error}");
        ComponentError::metadata(message).with_source(error)
    })?;
    let item = |value| {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Item { value, ..Item::default() }
    };
    Ok(members.into_iter().map(|(key, value)| (key, item(value))).collect())
}

fn select_keys(mut items: Items, keys: &[String]) -> Items {
    if !keys.is_empty() {
        items.retain(|key, _| keys.contains(key));
    }
    items
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use trilby_component::Properties;

    use super::*;

    struct Heard(mpsc::Sender<Items>);

    #[async_trait]
    impl Sink for Heard {
        async fn changed(&self, items: Items) {
            self.0.send(items).await.expect("the test listens");
        }
    }

    fn items(pairs: &[(&str, &str)]) -> Items {
        let item = |value: &str| Item { value: value.to_owned(), ..Item::default() };
        pairs.iter().map(|(key, value)| ((*key).to_owned(), item(value))).collect()
    }

    async fn open_file(path: &std::path::Path) -> Result<Arc<dyn ConfigurationStore>> {
        let mut properties = Properties::default();
        properties.insert("path", path.display().to_string());
        properties.insert("pollInterval", "10ms");
        open(OpenRequest { name: "conf".to_owned(), properties }).await
    }

    #[tokio::test]
    async fn a_change_of_the_file_is_a_change_of_its_keys() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("configuration.json");
        std::fs::write(&path, r#"{"color": "blue", "size": 4, "other": "x"}"#).expect("writable");
        let store = open_file(&path).await.expect("opens");
        let keys = ["color".to_owned(), "size".to_owned()];
        let read = store.get(&keys, &Metadata::new()).await.expect("reads");
        assert_eq!(read, items(&[("color", "blue"), ("size", "4")]));

        let (sender, mut heard) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let watch = store.watch(&keys, &Metadata::new(), Arc::new(Heard(sender)), stop.clone()).await.expect("watches");
        let watching = tokio::spawn(watch);
        std::fs::write(&path, "{ not yet").expect("writable");
        time::sleep(Duration::from_millis(50)).await;
        std::fs::write(&path, r#"{"color": "dark red", "other": "y"}"#).expect("writable");
        assert_eq!(heard.recv().await, Some(items(&[("color", "dark red"), ("size", "")])));
        stop.cancel();
        watching.await.expect("no panic").expect("it was told to end");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("none.json");
        let error = open_file(&path).await.err().expect("there is no file").to_string();
        assert!(error.contains("none.json cannot be read"), "{error}");
    }
}
