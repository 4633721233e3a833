//! `configuration.postgresql`: rows of a table, watched through notifications that a trigger of the table sends.
//!
//! The table has the columns `key`, `value`, `version` and, as JSON, `metadata`. Of several rows of a key that with the
//! highest number as its version counts. A notification is a JSON object whose `data` is the row; one whose `action` is
//! `DELETE` says that the key is gone. Notifications that a lost connection cost are made up for: the rows are read
//! again, and what has changed is reported.

mod listener;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time;
use tokio_postgres::{Row, types::Type};
use trilby_component::{
    CancellationToken, ComponentError, Metadata, OpenRequest, Result,
    configuration::{ConfigurationStore, Item, Items, Sink, Watch},
};

use self::listener::Listener;
use super::changes;
use crate::state::postgresql::{config, database::Database};

/// Between attempts to get a lost connection back.
const PAUSE: Duration = Duration::from_millis(500);

/// Dapr's limit for the names of tables and channels.
const LONGEST_NAME: usize = 64;

/// What `spec.metadata` may hold beside the settings of the connection, which are those of `state.postgresql`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The table, `table` or `schema.table`, in lower case. Required. Dapr's `table`.
    pub table: String,
    /// The channel on which the table's trigger sends notifications. Default: what the metadata of a subscription says as
    /// `pgNotifyChannel`. Dapr's `notifyChannel`.
    #[serde(alias = "pgNotifyChannel")]
    pub notify_channel: String,
}

/// Connects and looks for the table.
///
/// # Errors
/// `InvalidMetadata`, also if there is no such table; `Unavailable` or `Timeout` if the server cannot be reached; `Denied`
/// if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn ConfigurationStore>> {
    let Config { table, notify_channel } = request.properties.parse()?;
    check_table(&table)?;
    if !notify_channel.is_empty() {
        check_channel(&notify_channel).map_err(ComponentError::metadata)?;
    }
    let database = Database::new(&config::Config::parse(&request.properties)?).await?;
    let found = database.fetch("SELECT to_regclass($1) IS NOT NULL", &[(&table, Type::TEXT)]).await?;
    if !found.first().is_some_and(|row| row.get(0)) {
        return Err(ComponentError::metadata(format!("postgreSQL configuration table '{table}' does not exist")));
    }
    Ok(Arc::new(Postgresql { table: Arc::new(Table::new(database, table)), notify_channel }))
}

fn check_table(name: &str) -> Result<()> {
    let message = if name.is_empty() {
        "missing postgreSQL configuration table name".to_owned()
    } else if name.len() > LONGEST_NAME {
        format!("table name is too long - tableName : '{name}'. max allowed field length is {LONGEST_NAME}")
    } else if !is_plain(name) {
        format!("invalid table name '{name}'. non-alphanumerics or upper cased table names are not supported")
    } else {
        return Ok(());
    };
    Err(ComponentError::metadata(message))
}

fn check_channel(name: &str) -> Result<(), String> {
    if name.len() > LONGEST_NAME {
        return Err(format!("notifyChannel name is too long - {name:?}. max allowed length is {LONGEST_NAME}"));
    }
    if !is_plain(name) {
        return Err(format!(
            "invalid notifyChannel name {name:?}. non-alphanumerics or upper cased names are not supported"
        ));
    }
    Ok(())
}

/// Whether a name can stand in a statement.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'/' | b'_'))
}

struct Postgresql {
    table: Arc<Table>,
    notify_channel: String,
}

#[async_trait]
impl ConfigurationStore for Postgresql {
    async fn get(&self, keys: &[String], _: &Metadata) -> Result<Items> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'_');
        match keys.iter().find(|key| !key.bytes().all(is_legal)) {
            Some(key) => Err(ComponentError::request(format!("invalid key : '{key}'"))),
            None => self.table.read(keys).await,
        }
    }

    async fn watch(
        &self,
        keys: &[String],
        metadata: &Metadata,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Watch> {
        let channel = self.channel(metadata)?.to_owned();
        let watcher = Watcher { table: Arc::clone(&self.table), channel, keys: keys.to_vec(), sink, stop };
        let (listener, known) = watcher.listen().await?;
        Ok(Box::pin(watcher.run(listener, known)))
    }

    async fn ping(&self) -> Result<()> {
        self.table.database.ping().await
    }

    async fn close(&self) {
        self.table.database.close();
    }
}

impl Postgresql {
    /// The channel of a subscription. What the component says goes before what the request says.
    fn channel<'a>(&'a self, metadata: &'a Metadata) -> Result<&'a str> {
        if !self.notify_channel.is_empty() {
            return Ok(&self.notify_channel);
        }
        let asked = metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case("pgNotifyChannel"));
        let Some((_, channel)) = asked.filter(|(_, channel)| !channel.is_empty()) else {
            let table = &self.table.name;
            let advice = "notifyChannel must be set in component metadata or request metadata";
            return Err(ComponentError::request(format!("unable to subscribe to {table:?}. {advice}")));
        };
        check_channel(channel).map_err(ComponentError::request)?;
        Ok(channel)
    }
}

struct Table {
    database: Database,
    name: String,
    select_all: String,
    select_keys: String,
}

impl Table {
    fn new(database: Database, name: String) -> Self {
        let select_all = format!("SELECT key::text, value::text, version::text, metadata::text FROM {name}");
        let select_keys = format!("{select_all} WHERE key = ANY($1)");
        Self { database, name, select_all, select_keys }
    }

    async fn read(&self, keys: &[String]) -> Result<Items> {
        let rows = match keys {
            [] => self.database.fetch(&self.select_all, &[]).await?,
            keys => self.database.fetch(&self.select_keys, &[(&keys, Type::TEXT_ARRAY)]).await?,
        };
        Ok(newest(rows.iter().map(of_row)))
    }
}

fn of_row(row: &Row) -> (String, Item) {
    let text = |column: usize| row.get::<_, Option<String>>(column).unwrap_or_default();
    let metadata: Map<String, Value> = serde_json::from_str(&text(3)).unwrap_or_default();
    (text(0), Item { value: text(1), version: text(2), metadata: to_metadata(metadata) })
}

/// One item a key: that with the highest version. What is no number is lower than any that is.
fn newest(rows: impl Iterator<Item = (String, Item)>) -> Items {
    let version = |item: &Item| item.version.parse::<i64>().unwrap_or(-1);
    let mut items = Items::new();
    for (key, item) in rows {
        if items.get(&key).is_none_or(|known| version(known) < version(&item)) {
            items.insert(key, item);
        }
    }
    items
}

struct Watcher {
    table: Arc<Table>,
    channel: String,
    /// All keys, if there are none.
    keys: Vec<String>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
}

impl Watcher {
    async fn run(self, mut listener: Listener, mut known: Items) -> Result<()> {
        loop {
            let Some(heard) = self.stop.run_until_cancelled(listener.next(&self.table.database)).await else { break };
            let changed = match heard {
                Ok(payload) => self.change(&payload),
                Err(error) => {
                    tracing::warn!(%error, "lost the connection to postgresql that tells of changes; connecting again");
                    let Some((again, items)) = self.stop.run_until_cancelled(self.listen_again()).await else { break };
                    tracing::info!("connected to postgresql again");
                    listener = again;
                    changes(&known, &items)
                }
            };
            if changed.is_empty() {
                continue;
            }
            for (key, item) in &changed {
                if *item == Item::default() {
                    known.remove(key);
                } else {
                    known.insert(key.clone(), item.clone());
                }
            }
            self.sink.changed(changed).await;
        }
        Ok(())
    }

    /// Listens, and then reads what there is, so that no change falls between the two.
    async fn listen(&self) -> Result<(Listener, Items)> {
        let listener = Listener::open(&self.table.database, &self.channel).await?;
        Ok((listener, self.table.read(&self.keys).await?))
    }

    async fn listen_again(&self) -> (Listener, Items) {
        loop {
            match self.listen().await {
                Ok(done) => return done,
                Err(error) => tracing::debug!(%error, "not connected again yet"),
            }
            time::sleep(PAUSE).await;
        }
    }

    /// The change that a notification tells of; nothing if it is about another key, or not of this kind.
    fn change(&self, payload: &str) -> Items {
        let Some((key, item)) = of_notification(payload) else {
            tracing::warn!(channel = self.channel, "a notification is no change of a row and is left out");
            return Items::new();
        };
        let is_watched = self.keys.is_empty() || self.keys.contains(&key);
        is_watched.then_some((key, item)).into_iter().collect()
    }
}

/// The key and item of a notification; the item is empty if the row was deleted.
fn of_notification(payload: &str) -> Option<(String, Item)> {
    #[derive(Deserialize)]
    struct Notification {
        #[serde(default)]
        action: String,
        data: BTreeMap<String, Value>,
    }
    let Notification { action, data } = serde_json::from_str(payload).ok()?;
    let (mut key, mut item) = (None, Item::default());
    for (name, value) in data {
        match name.to_ascii_lowercase().as_str() {
            "key" => key = Some(to_text(value)),
            "value" => item.value = to_text(value),
            "version" => item.version = to_text(value),
            "metadata" => {
                if let Value::Object(members) = value {
                    item.metadata = to_metadata(members);
                }
            }
            _ => {}
        }
    }
    Some((key?, if action == "DELETE" { Item::default() } else { item }))
}

fn to_metadata(members: Map<String, Value>) -> Metadata {
    members.into_iter().map(|(name, value)| (name, to_text(value))).collect()
}

fn to_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(value: &str, version: &str) -> Item {
        Item { value: value.to_owned(), version: version.to_owned(), ..Item::default() }
    }

    #[test]
    fn of_several_rows_of_a_key_the_highest_version_counts() {
        let rows = [("a", "x", "9"), ("a", "y", "10"), ("a", "z", "next"), ("b", "first", "?"), ("b", "second", "")];
        let items = newest(rows.into_iter().map(|(key, value, version)| (key.to_owned(), item(value, version))));
        assert_eq!(items["a"], item("y", "10"));
        assert_eq!(items["b"], item("first", "?"));
    }

    #[test]
    fn a_notification_holds_a_row() {
        let row = r#"{"KEY": "k", "value": "v", "version": "1", "metadata": {"a": "b", "n": 1}}"#;
        let (key, read) = of_notification(&format!(r#"{{"action": "INSERT", "data": {row}}}"#)).expect("a row");
        let metadata = [("a", "b"), ("n", "1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!((key.as_str(), read), ("k", Item { metadata: metadata.into(), ..item("v", "1") }));
        let gone = of_notification(&format!(r#"{{"action": "DELETE", "data": {row}}}"#));
        assert_eq!(gone, Some(("k".to_owned(), Item::default())));
        let plain = of_notification(r#"{"data": {"key": "k", "value": null, "version": 2, "metadata": null}}"#);
        assert_eq!(plain, Some(("k".to_owned(), item("", "2"))));
        for other in ["", "x", "{}", r#"{"data": 1}"#, r#"{"data": {"value": "v"}}"#] {
            assert_eq!(of_notification(other), None, "{other}");
        }
    }

    #[test]
    fn names_that_cannot_stand_in_a_statement_are_refused() {
        for (name, expect) in [
            ("", "missing postgreSQL configuration table name"),
            (
                "Settings",
                "invalid table name 'Settings'. non-alphanumerics or upper cased table names are not supported",
            ),
        ] {
            assert_eq!(check_table(name).expect_err("refused").to_string(), expect);
        }
        assert!(
            check_table(&"t".repeat(65)).expect_err("refused").to_string().starts_with("table name is too long - ")
        );
        assert!(check_table("my.settings_2").is_ok() && check_channel("config").is_ok());
        assert!(check_channel("a\"; drop").is_err() && check_channel(&"c".repeat(65)).is_err());
    }
}
