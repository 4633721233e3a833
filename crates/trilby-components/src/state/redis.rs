//! `state.redis`: each item a hash of `data` and `version` in Redis, or in a server that speaks its language.
//!
//! The version is the etag and grows by one with each write. An item saved with first-write bears a mark, the field
//! `first-write`, that makes Redis refuse every later write without an etag. Items whose metadata say
//! `contentType: application/json` are RedisJSON documents where the server has that module. A transaction is one
//! script, so it is all or nothing; in a cluster all its keys must be in one slot.
//!
//! Queries are not supported. Tested with Redis 7.0 as one server, a cluster, behind sentinels, and with TLS.

mod format;
mod write;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future;
use redis::{RedisResult, Value as Reply};
use serde::Deserialize;
use trilby_component::{
    ComponentError, ErrorKind, Metadata, OpenRequest, Result,
    state::{
        Consistency, DeleteRequest, Feature, GetRequest, Item, Operation, Query, QueryResult, SetRequest, StateStore,
    },
};

use self::{
    format::Format,
    write::{Apply, Change},
};
use crate::redis::{Config, Link, Pauses, Repeatable};

/// Metadata of the component besides that of [`Config`].
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    /// The life of an item whose request names none, in seconds. Zero or less means for ever. Default: none.
    ttl_in_seconds: Option<i64>,
    /// Indexes for queries, which this store does not have. Default: none.
    query_indexes: String,
}

/// Connects, and asks the server what it can do.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` or `Timeout` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn StateStore>> {
    let config = Config::parse(&request.properties, Pauses::STORE)?;
    let settings: Settings = request.properties.parse()?;
    if !settings.query_indexes.is_empty() {
        tracing::warn!(component = request.name, "queryIndexes has no effect: state.redis does not support queries");
    }
    let link = Link::open(&config).await?;
    let replicas = link.count_replicas(config.read_timeout()).await?;
    let replicated = if replicas > 0 { Some((Link::new(&config)?, replicas)) } else { None };
    Ok(Arc::new(Redis {
        has_json: has_json(&link, config.read_timeout()).await?,
        link,
        replicated,
        read_timeout: config.read_timeout(),
        write_timeout: config.write_timeout(),
        default_ttl: settings.ttl_in_seconds,
    }))
}

struct Redis {
    link: Link,
    /// The number of replicas, if there are any, and a second connection for writes that wait for them: on one
    /// connection, everything behind such a write would wait too.
    replicated: Option<(Link, u64)>,
    /// Whether the server has RedisJSON.
    has_json: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    default_ttl: Option<i64>,
}

#[async_trait]
impl StateStore for Redis {
    fn features(&self) -> &[Feature] {
        &[Feature::Etag, Feature::Transactional, Feature::Ttl]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        let mut items = self.read_together(std::slice::from_ref(request)).await?;
        items.pop().unwrap_or(Ok(None))
    }

    async fn bulk_get(&self, requests: &[GetRequest], _parallelism: usize) -> Result<Vec<Result<Option<Item>>>> {
        if self.link.is_cluster() {
            // Each key may be on another server.
            return Ok(future::join_all(requests.iter().map(|request| self.get(request))).await);
        }
        self.read_together(requests).await
    }

    async fn set(&self, request: &SetRequest) -> Result<()> {
        let change = Change::set(request, self.format(&request.metadata), self.default_ttl)?;
        self.apply(&[change], &request.options.consistency).await
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        let change = Change::delete(request, self.format(&request.metadata));
        self.apply(&[change], &Consistency::Unspecified).await
    }

    async fn transact(&self, operations: &[Operation], metadata: &Metadata) -> Result<()> {
        let changes =
            operations.iter().map(|operation| self.change(operation, metadata)).collect::<Result<Vec<_>>>()?;
        self.apply(&changes, &Consistency::Unspecified).await
    }

    async fn query(&self, _query: &Query) -> Result<QueryResult> {
        Err(if self.has_json {
            ComponentError::unsupported("state.redis does not support queries")
        } else {
            ComponentError::request("redis-json server support is required for query capability")
        })
    }

    async fn ping(&self) -> Result<()> {
        self.link.ping(self.read_timeout).await
    }

    async fn close(&self) {
        self.link.close();
        if let Some((link, _)) = &self.replicated {
            link.close();
        }
    }
}

impl Redis {
    fn format(&self, metadata: &Metadata) -> Format {
        let wants_json = metadata.get("contentType").is_some_and(|content_type| content_type == "application/json");
        if wants_json && self.has_json { Format::Json } else { Format::Hash }
    }

    /// One step of a transaction. `metadata` of the transaction can ask for RedisJSON, and so can the step's own.
    fn change<'a>(&self, operation: &'a Operation, metadata: &Metadata) -> Result<Change<'a>> {
        let format = |own: &Metadata| match self.format(metadata) {
            Format::Json => Format::Json,
            Format::Hash => self.format(own),
        };
        match operation {
            Operation::Upsert(request) => {
                Change::set(request, format(&request.metadata), self.default_ttl).map(Change::without_mark)
            }
            Operation::Delete(request) => Ok(Change::delete(request, format(&request.metadata))),
        }
    }

    /// Reads items in one message to one server.
    async fn read_together(&self, requests: &[GetRequest]) -> Result<Vec<Result<Option<Item>>>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = redis::pipe();
        reads.ignore_errors();
        for request in requests {
            reads.add_command(self.format(&request.metadata).read(&request.key));
        }
        let replies = self.link.call(&Repeatable(reads), self.read_timeout).await?;
        Ok(future::join_all(requests.iter().zip(replies).map(|(request, reply)| self.decode(request, reply))).await)
    }

    async fn decode(&self, request: &GetRequest, reply: RedisResult<Reply>) -> Result<Option<Item>> {
        match (self.format(&request.metadata), reply) {
            (format, Ok(reply)) => format.decode(reply),
            (Format::Hash, Err(error)) if error.code() == Some("WRONGTYPE") => self.get_plain(&request.key).await,
            (_, Err(error)) => Err(self.link.explain(&error)),
        }
    }

    /// Reads what a release of Dapr before etags left: a plain string.
    async fn get_plain(&self, key: &str) -> Result<Option<Item>> {
        let mut command = redis::cmd("GET");
        command.arg(key);
        match self.link.call(&Repeatable(command), self.read_timeout).await? {
            Reply::BulkString(value) => Ok(Some(Item { value: value.into(), etag: None, metadata: Metadata::new() })),
            _ => Ok(None),
        }
    }

    async fn apply(&self, changes: &[Change<'_>], consistency: &Consistency) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let (link, replicas) = match &self.replicated {
            Some((link, replicas)) if *consistency == Consistency::Strong => (link, *replicas),
            _ => (&self.link, 0),
        };
        let apply = Apply::new(changes, replicas);
        apply.check(link.call(&apply, self.write_timeout).await?)
    }
}

async fn has_json(link: &Link, limit: Option<Duration>) -> Result<bool> {
    let mut command = redis::cmd("COMMAND");
    command.arg("INFO").arg("JSON.GET");
    match link.call(&Repeatable(command), limit).await {
        Ok(Reply::Array(known)) => Ok(known.iter().any(|entry| *entry != Reply::Nil)),
        // A proxy that does not know COMMAND knows no modules either.
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::Internal => Ok(false),
        Err(error) => Err(error),
    }
}
