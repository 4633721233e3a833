//! What the components over Redis share: settings, connections, and what is asked of every server.

mod config;
mod endpoint;
pub(crate) mod interval;
mod link;

use std::time::Duration;

use redis::Value as Reply;
use trilby_component::Result;

pub(crate) use config::{Config, Pauses, Topology};
pub(crate) use endpoint::Connection;
pub(crate) use link::{Link, Repeatable, Request};

impl Link {
    /// Connects to a server that is asked for the first time.
    ///
    /// # Errors
    /// `InvalidMetadata`; `Unavailable` or `Timeout` if it cannot be reached; `Denied` if it refuses the login.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        let link = Self::new(config)?;
        link.ping(config.read_timeout()).await.map_err(|error| link.refused_to_open(error))?;
        Ok(link)
    }

    /// Whether the server answers.
    pub(crate) async fn ping(&self, limit: Option<Duration>) -> Result<()> {
        self.call(&Repeatable(redis::cmd("PING")), limit).await.map(drop)
    }

    /// How many replicas confirm a write: of the server, or of that one of a cluster that has the fewest.
    pub(crate) async fn count_replicas(&self, limit: Option<Duration>) -> Result<u64> {
        let mut command = redis::cmd("INFO");
        command.arg("replication");
        let reports = match self.call(&Repeatable(command), limit).await? {
            Reply::Map(by_server) => by_server.into_iter().map(|(_, report)| report).collect(),
            report => vec![report],
        };
        let count = |report| {
            let text: String = redis::from_redis_value(report).ok()?;
            text.lines().find_map(|line| line.strip_prefix("connected_slaves:")?.trim().parse().ok())
        };
        Ok(reports.into_iter().filter_map(count).min().unwrap_or(0))
    }
}
