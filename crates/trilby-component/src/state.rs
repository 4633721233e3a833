//! The state store: what one must offer, and the requests that reach it.
//!
//! A store sees complete keys (prefix included) and values that are already encrypted where the component asks for
//! it. It owns etags, TTL, atomicity and its storage format; it never sees app ids or scopes.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::{
    Metadata,
    error::{ComponentError, Result},
    json,
};

/// Reply metadata key under which a store reports when an item expires, as RFC 3339 in UTC.
pub const TTL_EXPIRE_TIME: &str = "ttlExpireTime";
/// Request metadata key for the life of an item in seconds.
pub const TTL_IN_SECONDS: &str = "ttlInSeconds";

/// What a store can do. The only such list: conformance, `/v1.0/metadata` and the docs all read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// Every item has an etag and writes can be conditional on it.
    Etag,
    /// Several operations can be applied all or nothing.
    Transactional,
    /// Items can expire.
    Ttl,
    /// Items can be found by their JSON content.
    QueryApi,
}

impl Feature {
    /// Dapr's name, as `/v1.0/metadata` lists it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etag => "ETAG",
            Self::Transactional => "TRANSACTIONAL",
            Self::Ttl => "TTL",
            Self::QueryApi => "QUERY_API",
        }
    }
}

/// A value on its way into a store.
///
/// Dapr's stores write decoded JSON as JSON and anything else as bytes, each in its own format, so the two must
/// stay apart up to the store: a bytes-only seam could not share a table with a stock daprd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The text of one JSON value, as the caller wrote it.
    Json(Bytes),
    /// Opaque bytes, stored as they are.
    Bytes(Bytes),
}

impl Value {
    /// The bytes that a store without a JSON type of its own keeps: re-encoded JSON, or the bytes as they are.
    ///
    /// # Errors
    /// `InvalidRequest` if the JSON text does not parse.
    pub fn encode(&self, style: json::Style) -> Result<Bytes> {
        match self {
            Self::Json(text) => json::reencode(text, style),
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

/// What a write does when another writer was faster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// An etag is checked when one is given.
    #[default]
    Unspecified,
    /// An etag is checked when one is given; without one the item must not exist.
    FirstWrite,
    /// As unspecified: stores check an etag that is given even here, as Dapr's do.
    LastWrite,
    /// A word that Dapr does not know. The block refuses it before a store is called.
    Unrecognized(Box<str>),
}

impl From<&str> for Concurrency {
    fn from(word: &str) -> Self {
        match word {
            "" => Self::Unspecified,
            "first-write" => Self::FirstWrite,
            "last-write" => Self::LastWrite,
            other => Self::Unrecognized(other.into()),
        }
    }
}

/// How many replicas must know of a write or answer a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The store's default.
    #[default]
    Unspecified,
    /// One replica is enough.
    Eventual,
    /// A majority, or whatever the store calls strong.
    Strong,
    /// A word that Dapr does not know. Refused on writes, ignored on reads, as Dapr does.
    Unrecognized(Box<str>),
}

impl From<&str> for Consistency {
    fn from(word: &str) -> Self {
        match word {
            "" => Self::Unspecified,
            "eventual" => Self::Eventual,
            "strong" => Self::Strong,
            other => Self::Unrecognized(other.into()),
        }
    }
}

/// Options of a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Default: [`Concurrency::Unspecified`].
    pub concurrency: Concurrency,
    /// Default: [`Consistency::Unspecified`].
    pub consistency: Consistency,
}

impl WriteOptions {
    /// Refuses words that Dapr does not know.
    ///
    /// # Errors
    /// `InvalidRequest`, with Dapr's text.
    pub fn check(&self) -> Result<()> {
        if let Consistency::Unrecognized(word) = &self.consistency {
            return Err(ComponentError::request(format!("unrecognized consistency model '{word}'")));
        }
        if let Concurrency::Unrecognized(word) = &self.concurrency {
            return Err(ComponentError::request(format!("unrecognized concurrency model '{word}'")));
        }
        Ok(())
    }
}

/// Reads one item.
#[derive(Debug, Clone, Default)]
pub struct GetRequest {
    /// Complete key, prefix included.
    pub key: String,
    /// Default: the store's own.
    pub consistency: Consistency,
    /// Component-specific extras.
    pub metadata: Metadata,
}

/// Writes one item.
#[derive(Debug, Clone)]
pub struct SetRequest {
    /// Complete key, prefix included.
    pub key: String,
    /// What to store.
    pub value: Value,
    /// Only write if the item still has this etag. Empty counts as none.
    pub etag: Option<String>,
    /// Concurrency and consistency.
    pub options: WriteOptions,
    /// `ttlInSeconds` and component-specific extras.
    pub metadata: Metadata,
}

/// Deletes one item. Deleting what does not exist succeeds unless an etag was given.
#[derive(Debug, Clone, Default)]
pub struct DeleteRequest {
    /// Complete key, prefix included.
    pub key: String,
    /// Only delete if the item still has this etag. Empty counts as none.
    pub etag: Option<String>,
    /// Concurrency and consistency.
    pub options: WriteOptions,
    /// Component-specific extras.
    pub metadata: Metadata,
}

/// One step of a transaction.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Write the item.
    Upsert(SetRequest),
    /// Delete the item.
    Delete(DeleteRequest),
}

/// An item as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The stored bytes; JSON where JSON was saved. May be empty.
    pub value: Bytes,
    /// Opaque; `None` if the store has no etags.
    pub etag: Option<String>,
    /// For example [`TTL_EXPIRE_TIME`].
    pub metadata: Metadata,
}

/// How a bulk write failed.
#[derive(Debug)]
pub enum BulkError {
    /// As a whole: of no item is it known whether it was written.
    Whole(ComponentError),
    /// These items, by position in the request, never none; the others were written.
    Items(Vec<(usize, ComponentError)>),
}

impl From<ComponentError> for BulkError {
    fn from(error: ComponentError) -> Self {
        Self::Whole(error)
    }
}

/// A query in Dapr's query document language, as text: `filter`, `sort`, `page`.
#[derive(Debug, Clone)]
pub struct Query {
    /// The JSON document.
    pub document: Bytes,
    /// For example `queryIndexName`, `contentType`.
    pub metadata: Metadata,
}

/// What a query found.
#[derive(Debug, Clone, Default)]
pub struct QueryResult {
    /// Matching items with their complete keys.
    pub items: Vec<(String, Item)>,
    /// Where the next page starts; `None` after the last.
    pub token: Option<String>,
    /// Component-specific extras.
    pub metadata: Metadata,
}

/// How many items a default bulk operation works on at once when the caller sets no limit. Dapr has none; an
/// unbounded number of in-flight requests to one backend only makes each slower.
const BULK_PARALLELISM: usize = 64;

/// A state store. Open it through the [`Catalog`](crate::Catalog); it is ready when `open` returns.
///
/// Methods may be called concurrently. A dropped future may leave a write done or not done, never half done.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// What this store can do, fixed once it is open.
    fn features(&self) -> &[Feature];

    /// Reads an item; `None` if it is missing or has expired.
    async fn get(&self, request: &GetRequest) -> Result<Option<Item>>;

    /// Writes an item.
    ///
    /// # Errors
    /// `EtagMismatch` if the item changed since `etag` was read; `EtagInvalid` if the etag cannot be one of this
    /// store's; `InvalidRequest` for a bad TTL.
    async fn set(&self, request: &SetRequest) -> Result<()>;

    /// Deletes an item.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    async fn delete(&self, request: &DeleteRequest) -> Result<()>;

    /// Reads many items, answers in the order of `requests`. `parallelism` 0 means the store's choice; a store with
    /// a bulk read of its own may ignore it.
    async fn bulk_get(&self, requests: &[GetRequest], parallelism: usize) -> Result<Vec<Result<Option<Item>>>> {
        let width = if parallelism == 0 { BULK_PARALLELISM } else { parallelism };
        // The futures are collected first: a closure inside the stream would have to be general over lifetimes.
        let reads: Vec<_> = requests.iter().map(|request| self.get(request)).collect();
        Ok(stream::iter(reads).buffered(width).collect().await)
    }

    /// Writes many items, each on its own: some may fail while others are written.
    async fn bulk_set(&self, requests: &[SetRequest]) -> Result<(), BulkError> {
        let writes: Vec<_> = requests.iter().map(|request| self.set(request)).collect();
        all(writes).await
    }

    /// Deletes many items, each on its own.
    async fn bulk_delete(&self, requests: &[DeleteRequest]) -> Result<(), BulkError> {
        let deletes: Vec<_> = requests.iter().map(|request| self.delete(request)).collect();
        all(deletes).await
    }

    /// Applies all operations or none, in order.
    ///
    /// # Errors
    /// `Unsupported` without [`Feature::Transactional`].
    async fn transact(&self, operations: &[Operation], metadata: &Metadata) -> Result<()> {
        let _ = (operations, metadata);
        Err(ComponentError::unsupported("this state store does not support transactions"))
    }

    /// The most operations that one transaction may hold; `None` means no limit.
    fn max_transaction_size(&self) -> Option<usize> {
        None
    }

    /// Finds items by content.
    ///
    /// # Errors
    /// `Unsupported` without [`Feature::QueryApi`]; `InvalidRequest` for a document that does not parse.
    async fn query(&self, query: &Query) -> Result<QueryResult> {
        let _ = query;
        Err(ComponentError::unsupported("this state store does not support querying"))
    }

    /// Whether the backend answers.
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    /// Releases connections and background tasks. Called once, after the last request.
    async fn close(&self) {}
}

async fn all(writes: Vec<impl Future<Output = Result<()>> + Send>) -> Result<(), BulkError> {
    let results: Vec<Result<()>> = stream::iter(writes).buffered(BULK_PARALLELISM).collect().await;
    let failed: Vec<_> =
        results.into_iter().enumerate().filter_map(|(index, result)| Some((index, result.err()?))).collect();
    if failed.is_empty() { Ok(()) } else { Err(BulkError::Items(failed)) }
}
