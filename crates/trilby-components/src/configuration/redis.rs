//! `configuration.redis`: each key a string in Redis, `value` or `value||version`, watched through keyspace
//! notifications.
//!
//! As with Dapr, a watch switches the notifications on in the server, if it may, and sees changes by commands on strings
//! and whole keys. Keys of other kinds, and empty values, count as absent. Notifications that a lost connection cost are
//! made up for where keys are named: they are read again, and what has changed is reported.
//!
//! A cluster can be read but not watched: there each server only tells of its own keys.

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{Fuse, FusedFuture as _},
};
use redis::{
    Msg, Value as Reply,
    aio::{PubSubSink, PubSubStream},
};
use tokio::time::{self, Instant};
use trilby_component::{
    CancellationToken, ComponentError, Metadata, OpenRequest, Result,
    configuration::{ConfigurationStore, Item, Items, Sink, Watch},
};

use crate::redis::{Config, Link, Pauses, Repeatable};

/// Keyspace notifications of generic and string commands, expiry and eviction: Dapr's choice.
const EVENTS: &str = "Kg$xe";

/// Between attempts to get a lost connection back.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a watch makes sure that its connection still lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Keys that are read together.
const PAGE: usize = 1000;

/// Connects. The settings are those of every component over Redis.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` or `Timeout` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn ConfigurationStore>> {
    let config = Config::parse(&request.properties, Pauses::CONFIGURATION)?;
    let link = Link::open(&config).await?;
    let channels = format!("__keyspace@{}__:", config.redis_db);
    let server = Server { link, channels, read_timeout: config.read_timeout(), write_timeout: config.write_timeout() };
    Ok(Arc::new(Redis { server: Arc::new(server) }))
}

struct Redis {
    server: Arc<Server>,
}

#[async_trait]
impl ConfigurationStore for Redis {
    async fn get(&self, keys: &[String], _: &Metadata) -> Result<Items> {
        if keys.is_empty() { self.server.read(&self.server.keys().await?).await } else { self.server.read(keys).await }
    }

    async fn watch(
        &self,
        keys: &[String],
        _: &Metadata,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Watch> {
        if self.server.link.is_cluster() {
            return Err(ComponentError::unsupported("configuration.redis cannot watch a redis cluster, only read it"));
        }
        let watcher = Watcher { server: Arc::clone(&self.server), keys: keys.to_vec(), sink, stop };
        let line = watcher.listen().await?;
        let known = watcher.server.read(keys).await?;
        Ok(Box::pin(watcher.run(line, known)))
    }

    async fn ping(&self) -> Result<()> {
        self.server.link.ping(self.server.read_timeout).await
    }

    async fn close(&self) {
        self.server.link.close();
    }
}

struct Server {
    link: Link,
    /// What the names of the channels begin with that tell of keys.
    channels: String,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Server {
    async fn keys(&self) -> Result<Vec<String>> {
        let mut command = redis::cmd("KEYS");
        command.arg("*");
        let keys = self.link.call(&Repeatable(command), self.read_timeout).await?;
        Ok(match keys {
            Reply::Array(keys) => keys.into_iter().filter_map(text).collect(),
            _ => Vec::new(),
        })
    }

    async fn read(&self, keys: &[String]) -> Result<Items> {
        let mut items = Items::new();
        for page in keys.chunks(PAGE) {
            let mut command = redis::cmd("MGET");
            command.arg(page);
            if let Reply::Array(values) = self.link.call(&Repeatable(command), self.read_timeout).await? {
                let found =
                    page.iter().zip(values).filter_map(|(key, value)| Some((key.clone(), item(&text(value)?)?)));
                items.extend(found);
            }
        }
        Ok(items)
    }

    /// Asks for notifications. Where the server does not allow that, somebody else may have.
    async fn notify(&self) {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("notify-keyspace-events").arg(EVENTS);
        if let Err(error) = self.link.call(&Repeatable(command), self.write_timeout).await {
            tracing::warn!(%error, "redis does not let us switch keyspace notifications on; set notify-keyspace-events to {EVENTS} in its configuration");
        }
    }
}

/// A connection that is subscribed, in its two halves.
type Line = (PubSubSink, PubSubStream);

struct Watcher {
    server: Arc<Server>,
    /// All keys, if there are none.
    keys: Vec<String>,
    sink: Arc<dyn Sink>,
    stop: CancellationToken,
}

impl Watcher {
    async fn run(self, mut line: Line, mut known: Items) -> Result<()> {
        let mut changed = BTreeSet::new();
        let mut reporting = pin!(Fuse::terminated());
        let mut beats = time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        loop {
            if reporting.is_terminated()
                && let Some(key) = changed.pop_first()
            {
                reporting.set(self.report(key).fuse());
            }
            let is_lost = tokio::select! {
                () = self.stop.cancelled() => break,
                message = line.1.next() => match message {
                    Some(message) => {
                        changed.extend(self.key_of(&message));
                        false
                    }
                    None => true,
                },
                (key, item) = &mut reporting => {
                    if !self.keys.is_empty() {
                        known.insert(key, item);
                    }
                    false
                }
                _ = beats.tick() => !self.is_alive(&mut line.0).await,
            };
            if is_lost {
                let Some((again, missed)) = self.listen_again(&known).await else { break };
                line = again;
                changed.extend(missed);
            }
        }
        if !reporting.is_terminated() {
            reporting.await;
        }
        Ok(())
    }

    async fn listen(&self) -> Result<Line> {
        self.server.notify().await;
        let mut line = self.server.link.listen().await?.split();
        let channels = &self.server.channels;
        let subscribed = match &self.keys[..] {
            [] => line.0.psubscribe(format!("{channels}*")).await,
            keys => line.0.subscribe(keys.iter().map(|key| format!("{channels}{key}")).collect::<Vec<_>>()).await,
        };
        subscribed.map_err(|error| self.server.link.explain(&error))?;
        Ok(line)
    }

    /// Subscribes anew, however long that takes, and looks which of the named keys have changed in the meantime; `None`
    /// once the watch is to end.
    async fn listen_again(&self, known: &Items) -> Option<(Line, Vec<String>)> {
        tracing::warn!("lost the connection to redis that tells of changes; connecting again");
        let attempts = async {
            loop {
                let attempt = async {
                    let line = self.listen().await?;
                    Ok::<_, ComponentError>((line, self.server.read(&self.keys).await?))
                };
                match attempt.await {
                    Ok((line, items)) => return (line, items),
                    Err(error) => tracing::debug!(%error, "not connected again yet"),
                }
                time::sleep(PAUSE).await;
            }
        };
        let (line, items) = self.stop.run_until_cancelled(attempts).await?;
        tracing::info!("connected to redis again");
        let is_missed = |key: &&String| {
            items.get(*key).cloned().unwrap_or_default() != known.get(*key).cloned().unwrap_or_default()
        };
        Some((line, self.keys.iter().filter(is_missed).cloned().collect()))
    }

    async fn is_alive(&self, line: &mut PubSubSink) -> bool {
        let limit = self.server.read_timeout.unwrap_or(HEARTBEAT);
        matches!(time::timeout(limit, line.ping::<Reply>()).await, Ok(Ok(_)))
    }

    /// Reads a key that changed and reports it; one that is gone has an empty value.
    async fn report(&self, key: String) -> (String, Item) {
        let keys = [key];
        let item = loop {
            match self.server.read(&keys).await {
                Ok(items) => break items.into_values().next().unwrap_or_default(),
                Err(error) => tracing::warn!(%error, "a changed key cannot be read; trying again"),
            }
            if self.stop.run_until_cancelled(time::sleep(PAUSE)).await.is_none() {
                let [key] = keys;
                return (key, Item::default());
            }
        };
        let [key] = keys;
        self.sink.changed(Items::from([(key.clone(), item.clone())])).await;
        (key, item)
    }

    fn key_of(&self, message: &Msg) -> Option<String> {
        message.get_channel_name().strip_prefix(&self.server.channels).map(str::to_owned)
    }
}

/// What a text means: a value, and its version behind `||`. A key without a value counts as absent.
fn item(text: &str) -> Option<Item> {
    let mut parts = text.split("||");
    let value = parts.next().filter(|value| !value.is_empty())?;
    let version = parts.next().unwrap_or_default();
    Some(Item { value: value.to_owned(), version: version.to_owned(), metadata: Metadata::new() })
}

fn text(reply: Reply) -> Option<String> {
    match reply {
        Reply::BulkString(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_stand_behind_the_value() {
        let parts = |text| item(text).map(|item| (item.value, item.version));
        let pair = |value: &str, version: &str| Some((value.to_owned(), version.to_owned()));
        assert_eq!(parts("blue"), pair("blue", ""));
        assert_eq!(parts("blue||7"), pair("blue", "7"));
        assert_eq!(parts("a||b||c"), pair("a", "b"));
        assert_eq!(parts("|x|"), pair("|x|", ""));
        assert_eq!(parts(""), None);
        assert_eq!(parts("||7"), None);
    }
}
