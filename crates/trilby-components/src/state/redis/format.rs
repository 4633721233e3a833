//! The two forms in which an item is kept: a hash with the fields `data` and `version`, or a RedisJSON document with
//! the members `data` and `version`.

use bytes::{BufMut, Bytes, BytesMut};
use redis::{Cmd, Value as Reply};
use serde::Deserialize;
use serde_json::value::RawValue;
use trilby_component::{
    ComponentError, ErrorKind, Metadata, Result,
    json::{self, Style},
    state::{Item, Value},
};

/// How an item is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Hash,
    Json,
}

impl Format {
    /// As the script calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Json => "json",
        }
    }

    /// The command that reads an item.
    pub(super) fn read(self, key: &str) -> Cmd {
        let mut command;
        match self {
            Self::Hash => {
                command = redis::cmd("HMGET");
                command.arg(key).arg("data").arg("version");
            }
            Self::Json => {
                command = redis::cmd("JSON.GET");
                command.arg(key);
            }
        }
        command
    }

    /// What the script stores; the version is its own business.
    ///
    /// # Errors
    /// `InvalidRequest` if the value should be JSON and is not.
    pub(super) fn encode(self, value: &Value) -> Result<Bytes> {
        match self {
            Self::Hash => value.encode(Style::Fast),
            Self::Json => {
                let (Value::Json(text) | Value::Bytes(text)) = value;
                let data = json::reencode(text, Style::Fast)?;
                let mut document = BytesMut::with_capacity(data.len() + 9);
                document.put_slice(b"{\"data\":");
                document.put_slice(&data);
                document.put_u8(b'}');
                Ok(document.freeze())
            }
        }
    }

    /// Reads the reply to [`read`](Self::read); `None` if there is no such item.
    ///
    /// # Errors
    /// `Internal` if it is not an item.
    pub(super) fn decode(self, reply: Reply) -> Result<Option<Item>> {
        match self {
            Self::Hash => decode_hash(reply),
            Self::Json => decode_document(reply),
        }
    }
}

fn decode_hash(reply: Reply) -> Result<Option<Item>> {
    let fields: [Option<Vec<u8>>; 2] =
        redis::from_redis_value(reply).map_err(|error| broken(format!("not an item's hash: {error}")))?;
    match fields {
        [None, None] => Ok(None),
        [Some(data), Some(version)] => Ok(Some(Item {
            value: data.into(),
            etag: Some(String::from_utf8_lossy(&version).into_owned()),
            metadata: Metadata::new(),
        })),
        _ => Err(broken("required hash field 'data' or 'version' was not found")),
    }
}

fn decode_document(reply: Reply) -> Result<Option<Item>> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
        version: Option<i64>,
    }
    let text = match reply {
        Reply::Nil => return Ok(None),
        Reply::BulkString(text) => text,
        _ => return Err(broken("not an item's document")),
    };
    let document: Document<'_> =
        serde_json::from_slice(&text).map_err(|error| broken(format!("not an item's document: {error}")))?;
    let data = document.data.map_or("null", RawValue::get);
    Ok(Some(Item {
        value: json::reencode(data.as_bytes(), Style::Fast)?,
        etag: document.version.map(|version| version.to_string()),
        metadata: Metadata::new(),
    }))
}

fn broken(message: impl Into<String>) -> ComponentError {
    ComponentError::new(ErrorKind::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::BulkString(text.into())
    }

    fn parts(item: &Item) -> (&str, Option<&str>) {
        (std::str::from_utf8(&item.value).expect("UTF-8"), item.etag.as_deref())
    }

    #[test]
    fn a_hash_is_an_item_if_it_has_both_fields() {
        let decode = |data, version| Format::Hash.decode(Reply::Array(vec![data, version]));
        assert_eq!(parts(&decode(text("{}"), text("7")).expect("valid").expect("an item")), ("{}", Some("7")));
        assert_eq!(parts(&decode(text(""), text("1")).expect("valid").expect("an item")), ("", Some("1")));
        assert_eq!(decode(Reply::Nil, Reply::Nil).expect("valid"), None);
        let error = decode(text("1"), Reply::Nil).expect_err("no version");
        assert_eq!(error.to_string(), "required hash field 'data' or 'version' was not found");
    }

    #[test]
    fn a_document_holds_the_value_as_json() {
        let encode = |value| Format::Json.encode(&value);
        assert_eq!(encode(Value::Json(r#" {"b":1, "a":2} "#.into())).expect("JSON"), r#"{"data":{"a":2,"b":1}}"#);
        assert_eq!(encode(Value::Bytes("[1, 2]".into())).expect("JSON"), r#"{"data":[1,2]}"#);
        let error = encode(Value::Bytes("\u{0}".into())).expect_err("not JSON");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }

    #[test]
    fn a_document_is_read_back_with_its_version() {
        let decode = |document| Format::Json.decode(text(document));
        let item = decode(r#"{"data":{"a":"<"},"first-write":0,"version":3}"#).expect("valid").expect("an item");
        assert_eq!(parts(&item), (r#"{"a":"<"}"#, Some("3")));
        assert_eq!(parts(&decode("{}").expect("valid").expect("an item")), ("null", None));
        assert!(decode("1").is_err());
        assert_eq!(Format::Json.decode(Reply::Nil).expect("valid"), None);
    }
}
