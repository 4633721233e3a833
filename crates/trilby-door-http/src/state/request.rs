//! The bodies of the state API, from JSON to what the block takes.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use trilby_component::{
    Metadata,
    state::{DeleteRequest, Operation, SetRequest, Value, WriteOptions},
};
use trilby_core::{Error, Result, pubsub::OUTBOX_CONTENT_TYPE, state::unsupported_operation};

use crate::codec::{self, Expected, storable};

/// An item to save, or to delete in a transaction. Go's decoder does not tell upper from lower case in names; of the
/// ways in which that is used, names like those of Go's and C#'s fields are taken here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Item<'a> {
    #[serde(alias = "Key")]
    key: Option<String>,
    #[serde(alias = "Value", borrow)]
    value: Option<&'a RawValue>,
    #[serde(alias = "ETag", alias = "Etag", alias = "eTag")]
    etag: Option<String>,
    #[serde(alias = "Metadata")]
    metadata: Option<Metadata>,
    #[serde(alias = "ContentType", rename = "contentType")]
    content_type: Option<String>,
    #[serde(alias = "Options", borrow)]
    options: Option<Options<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Options<'a> {
    #[serde(alias = "Concurrency", borrow)]
    concurrency: Option<Cow<'a, str>>,
    #[serde(alias = "Consistency", borrow)]
    consistency: Option<Cow<'a, str>>,
}

impl From<Options<'_>> for WriteOptions {
    fn from(options: Options<'_>) -> Self {
        Self {
            concurrency: options.concurrency.unwrap_or_default().as_ref().into(),
            consistency: options.consistency.unwrap_or_default().as_ref().into(),
        }
    }
}

impl Item<'_> {
    /// `body` is what this item was decoded from, so that the value can share it.
    fn into_set(self, body: &Bytes, from_query: &Metadata) -> Result<SetRequest, String> {
        let value = match self.value {
            Some(value) => {
                storable::check(value.get())?;
                body.slice_ref(value.get().as_bytes())
            }
            None => Bytes::from_static(b"null"),
        };
        Ok(SetRequest {
            key: self.key.unwrap_or_default(),
            value: Value::Json(value),
            etag: self.etag,
            options: self.options.unwrap_or_default().into(),
            metadata: merge(self.metadata, from_query),
        })
    }

    /// As [`into_set`](Self::into_set), with the media type that an outbox gives the event.
    fn into_published_set(mut self, body: &Bytes, from_query: &Metadata) -> Result<SetRequest, String> {
        let content_type = self.content_type.take();
        let mut set = self.into_set(body, from_query)?;
        set.metadata.extend(content_type.map(|content_type| (OUTBOX_CONTENT_TYPE.to_owned(), content_type)));
        Ok(set)
    }

    fn into_delete(self, from_query: &Metadata) -> DeleteRequest {
        DeleteRequest {
            key: self.key.unwrap_or_default(),
            etag: self.etag,
            options: self.options.unwrap_or_default().into(),
            metadata: merge(self.metadata, from_query),
        }
    }
}

/// Metadata in the query wins over that in the body.
fn merge(metadata: Option<Metadata>, from_query: &Metadata) -> Metadata {
    let mut metadata = metadata.unwrap_or_default();
    metadata.extend(from_query.iter().map(|(name, value)| (name.clone(), value.clone())));
    metadata
}

/// The items of a save.
pub(super) fn items(body: &Bytes, from_query: &Metadata) -> Result<Vec<SetRequest>> {
    let expected = Expected { opening: b'[', go_type: "[]state.SetRequest" };
    let items: Vec<Item<'_>> = codec::decode(body, expected).map_err(codec::malformed)?;
    items.into_iter().map(|item| item.into_set(body, from_query).map_err(codec::malformed)).collect()
}

/// What a bulk get asks for.
pub(super) struct BulkGet {
    pub(super) keys: Vec<String>,
    /// 0 means no limit.
    pub(super) parallelism: usize,
    pub(super) metadata: Metadata,
}

/// The body of a bulk get.
pub(super) fn bulk_get(body: &Bytes, from_query: Metadata) -> Result<BulkGet> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Body {
        #[serde(alias = "Keys")]
        keys: Option<Vec<String>>,
        #[serde(alias = "Parallelism")]
        parallelism: Option<i64>,
        #[serde(alias = "Metadata")]
        metadata: Option<Metadata>,
    }

    let expected = Expected { opening: b'{', go_type: "http.BulkGetRequest" };
    let request: Body = codec::decode(body, expected).map_err(codec::undecodable)?;
    Ok(BulkGet {
        keys: request.keys.unwrap_or_default(),
        parallelism: request.parallelism.and_then(|given| usize::try_from(given).ok()).unwrap_or(0),
        metadata: merge(request.metadata, &from_query),
    })
}

/// The operations of a transaction and its metadata.
pub(super) fn transaction(body: &Bytes, from_query: Metadata) -> Result<(Vec<Operation>, Metadata)> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Body<'a> {
        #[serde(alias = "Operations", borrow)]
        operations: Option<Vec<Step<'a>>>,
        #[serde(alias = "Metadata")]
        metadata: Option<Metadata>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Step<'a> {
        #[serde(alias = "Operation", borrow)]
        operation: Option<Cow<'a, str>>,
        #[serde(alias = "Request", borrow)]
        request: Option<&'a RawValue>,
    }

    let expected = Expected { opening: b'{', go_type: "http.stateTransactionRequestBody" };
    let transaction: Body<'_> = codec::decode(body, expected).map_err(codec::undecodable)?;
    let steps = transaction.operations.unwrap_or_default().into_iter();
    let operations = steps.map(|step| match step.operation.as_deref().unwrap_or_default() {
        "upsert" => {
            let item = step_item(step.request)?.into_published_set(body, &from_query);
            item.map(Operation::Upsert).map_err(codec::undecodable)
        }
        "delete" => Ok(Operation::Delete(step_item(step.request)?.into_delete(&from_query))),
        other => Err(unsupported_operation(other)),
    });
    Ok((operations.collect::<Result<_>>()?, merge(transaction.metadata, &from_query)))
}

/// The request of one operation; none is an empty one. The texts are mapstructure's, with which daprd decodes it.
fn step_item(request: Option<&RawValue>) -> Result<Item<'_>, Error> {
    let Some(request) = request.map(RawValue::get) else { return Ok(Item::default()) };
    let found = match request.as_bytes().first() {
        Some(b'{') => return serde_json::from_str(request).map_err(codec::undecodable),
        Some(b'[') => "slice",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        _ => "float64",
    };
    Err(codec::undecodable(format_args!("'' expected a map, got '{found}'")))
}

#[cfg(test)]
mod tests {
    use trilby_component::state::{Concurrency, Consistency};

    use super::*;

    fn body(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn value(item: &SetRequest) -> &[u8] {
        match &item.value {
            Value::Json(text) => text,
            Value::Bytes(_) => panic!("HTTP saves JSON"),
        }
    }

    #[test]
    fn a_value_is_the_text_that_the_caller_wrote_and_is_not_copied() {
        let body = body(r#"[{"key":"a","value": { "b" : [1, 2.50] } },{"key":"n","value":null},{"key":"m"}]"#);
        let items = items(&body, &Metadata::new()).expect("decodes");
        assert_eq!(value(&items[0]), br#"{ "b" : [1, 2.50] }"#);
        assert!(body.as_ptr_range().contains(&value(&items[0]).as_ptr()));
        assert_eq!((value(&items[1]), value(&items[2])), (&b"null"[..], &b"null"[..]));
    }

    #[test]
    fn every_member_may_be_null_or_missing() {
        let body = body(r#"[{"key":null,"etag":null,"metadata":null,"options":null,"contentType":"text/plain"},{}]"#);
        for item in items(&body, &Metadata::new()).expect("decodes") {
            assert_eq!((item.key.as_str(), item.etag, item.options), ("", None, WriteOptions::default()));
        }
    }

    #[test]
    fn options_and_etag_are_read_in_either_case() {
        let body = body(r#"[{"Key":"k","ETag":"1","Options":{"Concurrency":"first-write","consistency":"odd"}}]"#);
        let item = items(&body, &Metadata::new()).expect("decodes").remove(0);
        assert_eq!((item.key.as_str(), item.etag.as_deref()), ("k", Some("1")));
        assert_eq!(item.options.concurrency, Concurrency::FirstWrite);
        assert_eq!(item.options.consistency, Consistency::Unrecognized("odd".into()));
    }

    #[test]
    fn metadata_of_the_query_wins() {
        let body = body(r#"[{"key":"k","metadata":{"ttlInSeconds":"1","other":"2"}}]"#);
        let item = items(&body, &[("ttlInSeconds".into(), "5".into())].into()).expect("decodes").remove(0);
        assert_eq!(item.metadata, [("other".into(), "2".into()), ("ttlInSeconds".into(), "5".into())].into());
    }

    #[test]
    fn a_negative_parallelism_means_no_limit() {
        let request = bulk_get(&body(r#"{"keys":["a"],"parallelism":-1}"#), Metadata::new()).expect("decodes");
        assert_eq!((request.keys, request.parallelism), (vec!["a".to_owned()], 0));
    }

    #[test]
    fn operations_are_decoded_in_order_and_the_first_bad_one_is_named() {
        let fails = |text| transaction(&body(text), Metadata::new()).expect_err(text).message().to_owned();
        assert_eq!(fails(r#"{"operations":[{"operation":"bad","request":5}]}"#), "operation type bad not supported");
        assert_eq!(
            fails(r#"{"operations":[{"operation":"delete","request":[]},{"operation":"bad"}]}"#),
            "failed deserializing HTTP body: '' expected a map, got 'slice'"
        );
        let steps =
            r#"{"operations":[{"operation":"upsert"},{"operation":"delete","request":{"key":"k","etag":"1"}}]}"#;
        let (operations, _) = transaction(&body(steps), Metadata::new()).expect("decodes");
        assert!(matches!(&operations[0], Operation::Upsert(item) if item.key.is_empty()));
        assert!(matches!(&operations[1], Operation::Delete(item) if item.etag.as_deref() == Some("1")));
    }
}
