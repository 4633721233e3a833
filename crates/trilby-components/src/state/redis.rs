//! `state.redis`: each item a hash of `data` and `version` in Redis 5 or later, or a server that speaks its language.
//!
//! The version is the etag and grows by one with each write. An item saved with first-write and without an etag bears
//! a mark, the field `first-write`, that makes Redis refuse every later write without an etag. Items whose metadata
//! say `contentType: application/json` are RedisJSON documents where the server has that module. A transaction is one
//! script, so it is all or nothing; in a cluster all its keys must be in one slot.
//!
//! Queries are not supported. Tested with Redis 7.0 as one server, a cluster, behind sentinels, and with TLS.

mod config;
mod document;
mod endpoint;
mod link;
mod write;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future;
use redis::{RedisError, RedisResult, Value as Reply};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, OpenRequest, Result,
    state::{Consistency, DeleteRequest, Feature, GetRequest, Item, Operation, Query, QueryResult, SetRequest, StateStore},
};

use self::{
    config::Config,
    link::{Link, Read, ReadMany},
    write::{Apply, Kind},
};

/// Connects and asks the server what it can do.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` or `Timeout` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn StateStore>> {
    let config = Config::parse(&request.properties)?;
    if !config.query_indexes.is_empty() {
        tracing::warn!(component = request.name, "queryIndexes has no effect: this store does not support queries");
    }
    let link = Link::new(&config)?;
    link.call(&Read(redis::cmd("PING")), Some(config.dial_timeout())).await?;
    let replicas = count_replicas(&link, config.read_timeout()).await?;
    Ok(Arc::new(Redis {
        has_json: has_json(&link, config.read_timeout()).await?,
        replicated: if replicas > 0 { Some((Link::new(&config)?, replicas)) } else { None },
        link,
        read_timeout: config.read_timeout(),
        write_timeout: config.write_timeout(),
        default_ttl: config.ttl_in_seconds,
    }))
}

struct Redis {
    link: Link,
    /// A connection of its own for writes of strong consistency, if there are replicas, and their number: such a write
    /// waits for replicas, and on a connection everything behind it waits too.
    replicated: Option<(Link, u64)>,
    has_json: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    default_ttl: Option<i64>,
}

#[async_trait]
impl StateStore for Redis {
    fn features(&self) -> &[Feature] {
        &[Feature::Etag, Feature::Transactional, Feature::Ttl, Feature::KeysLike]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        match self.kind(&request.metadata) {
            Kind::Json => document::decode(self.read(document::read(&request.key)).await?),
            Kind::Hash => match self.link.call(&Read(read_hash(&request.key)), self.read_timeout).await {
                Ok(reply) => self.decode_hash(reply),
                Err(error) if is_other_type(&error) => self.get_plain(&request.key).await,
                Err(error) => Err(error),
            },
        }
    }

    async fn set(&self, request: &SetRequest) -> Result<()> {
        let operation = write::Operation::set(request, self.kind(&request.metadata), self.default_ttl)?;
        self.apply(&[operation], &request.options.consistency).await
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        let operation = write::Operation::delete(request, self.kind(&request.metadata));
        self.apply(&[operation], &Consistency::Eventual).await
    }

    async fn bulk_get(&self, requests: &[GetRequest], _parallelism: usize) -> Result<Vec<Result<Option<Item>>>> {
        // One message to one server; in a cluster each key may be on another.
        if requests.is_empty() || self.link.is_cluster() {
            return Ok(future::join_all(requests.iter().map(|request| self.get(request))).await);
        }
        let mut reads = redis::pipe();
        reads.ignore_errors();
        for request in requests {
            reads.add_command(match self.kind(&request.metadata) {
                Kind::Json => document::read(&request.key),
                Kind::Hash => read_hash(&request.key),
            });
        }
        let replies = self.link.call(&ReadMany(reads), self.read_timeout).await?;
        let items = requests.iter().zip(replies).map(|(request, reply)| self.decode(request, reply));
        Ok(future::join_all(items).await)
    }

    async fn transact(&self, operations: &[Operation], metadata: &Metadata) -> Result<()> {
        let default = self.kind(metadata);
        let kind = |own: &Metadata| if default == Kind::Json { Kind::Json } else { self.kind(own) };
        let operations = operations
            .iter()
            .map(|operation| match operation {
                Operation::Upsert(request) => {
                    write::Operation::set(request, kind(&request.metadata), self.default_ttl)
                        .map(write::Operation::without_first_write)
                }
                Operation::Delete(request) => Ok(write::Operation::delete(request, kind(&request.metadata))),
            })
            .collect::<Result<Vec<_>>>()?;
        if operations.is_empty() {
            return Ok(());
        }
        self.apply(&operations, &Consistency::Eventual).await
    }

    async fn query(&self, _query: &Query) -> Result<QueryResult> {
        if self.has_json {
            return Err(ComponentError::unsupported("state.redis does not support queries"));
        }
        Err(ComponentError::request("redis-json server support is required for query capability"))
    }

    async fn ping(&self) -> Result<()> {
        self.read(redis::cmd("PING")).await.map(drop)
    }

    async fn close(&self) {
        self.link.close();
        if let Some((link, _)) = &self.replicated {
            link.close();
        }
    }
}
