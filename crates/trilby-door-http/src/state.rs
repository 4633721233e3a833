//! The state API: items one by one, in bulk, in transactions, and by query.
//!
//! Each method is three paragraphs: decode, call, encode. Values are passed on as the text that the caller wrote, as
//! slices of the body, and what a store returns becomes the body of the answer without a copy.

mod request;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderName, HeaderValue,
    header::{ETAG, IF_MATCH},
};
use serde::Serialize;
use serde_json::value::RawValue;
use trilby_component::{
    ComponentError, Metadata,
    state::{DeleteRequest, GetRequest, Item, Query, WriteOptions},
};
use trilby_core::{Body, Response, Result};

use crate::codec::{self, Call};

/// `GET v1.0/state/{store}/{key}`
pub(crate) async fn get(call: &Call<'_>) -> Result<Response> {
    let store = call.door.api.state.store(&call.store)?;
    let consistency = call.query.get("consistency").unwrap_or_default().as_ref().into();
    let request = GetRequest { key: call.state_key(), consistency, metadata: call.query.metadata() };

    let item = store.get(call.ctx, request).await?;

    Ok(item.map_or_else(codec::no_content, respond_with))
}

/// `POST|PUT v1.0/state/{store}`
pub(crate) async fn save(call: &Call<'_>, body: Body) -> Result<Response> {
    let store = call.door.api.state.store(&call.store)?;
    let body = call.json_body(body).await?;
    let items = request::items(&body, &call.query.metadata())?;

    store.save(call.ctx, items).await?;

    Ok(codec::no_content())
}

/// `DELETE v1.0/state/{store}/{key}`
pub(crate) async fn delete(call: &Call<'_>) -> Result<Response> {
    let store = call.door.api.state.store(&call.store)?;
    let word = |name| call.query.get(name).unwrap_or_default();
    let request = DeleteRequest {
        key: call.state_key(),
        etag: call.headers.get(IF_MATCH).map(|etag| String::from_utf8_lossy(etag.as_bytes()).into_owned()),
        options: WriteOptions {
            concurrency: word("concurrency").as_ref().into(),
            consistency: word("consistency").as_ref().into(),
        },
        metadata: call.query.metadata(),
    };

    store.delete(call.ctx, request).await?;

    Ok(codec::no_content())
}

/// `POST|PUT v1.0/state/{store}/bulk`
pub(crate) async fn bulk_get(call: &Call<'_>, body: Body) -> Result<Response> {
    let store = call.door.api.state.store(&call.store)?;
    let body = call.json_body(body).await?;
    let request = request::bulk_get(&body, call.query.metadata())?;

    let items = store.bulk_get(call.ctx, request.keys, request.parallelism, request.metadata).await?;

    let items: Vec<_> = items.iter().map(|(key, item)| BulkItem::new(key, item)).collect();
    Ok(codec::json_line(&items))
}

/// `POST|PUT v1.0/state/{store}/transaction`
pub(crate) async fn transact(call: &Call<'_>, body: Body) -> Result<Response> {
    let store = call.door.api.state.store(&call.store)?.transactional()?;
    let body = call.json_body(body).await?;
    let (operations, metadata) = request::transaction(&body, call.query.metadata())?;

    store.transact(call.ctx, operations, metadata).await?;

    Ok(codec::no_content())
}

/// `POST|PUT v1.0-alpha1/state/{store}/query`
pub(crate) async fn query(call: &Call<'_>, body: Body) -> Result<Response> {
    let query = Query { document: call.raw_body(body).await?, metadata: call.query.metadata() };

    let found = call.door.api.state.query(call.ctx, &call.store, &query).await?;

    if found.items.is_empty() {
        return Ok(codec::no_content());
    }
    let results = found.items.iter().map(|(key, item)| FoundItem::new(key, item)).collect();
    Ok(codec::json_line(&Found { results, token: found.token.as_deref(), metadata: &found.metadata }))
}

/// The item as the body, its etag and metadata as headers. A stored value may be empty; that is not the same as none.
fn respond_with(item: Item) -> Response {
    let mut response = codec::json(item.value);
    let headers = response.headers_mut();
    if let Some(etag) = item.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
        headers.insert(ETAG, etag);
    }
    for (name, value) in item.metadata {
        let name = HeaderName::try_from(format!("metadata.{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    response
}

/// One answer of a bulk get. Empty members are left out; see golden/http/state-mem.jsonl, `bulk`.
#[derive(Serialize)]
struct BulkItem<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> BulkItem<'a> {
    fn new(key: &'a str, read: &'a Result<Option<Item>, ComponentError>) -> Self {
        let empty = Self { key, data: None, etag: None, metadata: None, error: None };
        match read {
            Ok(Some(item)) => Self {
                data: Data::of(&item.value),
                etag: item.etag.as_deref(),
                metadata: (!item.metadata.is_empty()).then_some(&item.metadata),
                ..empty
            },
            Ok(None) => empty,
            Err(error) => Self { error: Some(error.to_string()), ..empty },
        }
    }
}

/// What a query found.
#[derive(Serialize)]
struct Found<'a> {
    results: Vec<FoundItem<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: &'a Metadata,
}

#[derive(Serialize)]
struct FoundItem<'a> {
    key: &'a str,
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
}

impl<'a> FoundItem<'a> {
    fn new(key: &'a str, item: &'a Item) -> Self {
        Self { key, data: Data::of(&item.value), etag: item.etag.as_deref() }
    }
}

/// A stored value inside a JSON document. Bytes that are no JSON, saved through another door, become base64 text;
/// daprd answers nothing at all as soon as there is one of them.
#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Json(&'a RawValue),
    Base64(String),
}

impl<'a> Data<'a> {
    fn of(value: &'a [u8]) -> Option<Self> {
        if value.is_empty() {
            return None;
        }
        Some(serde_json::from_slice(value).map_or_else(|_| Self::Base64(STANDARD.encode(value)), Self::Json))
    }
}
