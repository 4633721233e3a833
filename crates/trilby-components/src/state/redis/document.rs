//! The RedisJSON form of an item: a document `{"data": …, "version": …}`.

use bytes::{BufMut, Bytes, BytesMut};
use redis::Value as Reply;
use serde::Deserialize;
use serde_json::value::RawValue;
use trilby_component::{
    ComponentError, ErrorKind, Metadata, Result,
    json::{self, Style},
    state::{Item, Value},
};

/// The command that reads the document whole.
pub(super) fn read(key: &str) -> redis::Cmd {
    let mut command = redis::cmd("JSON.GET");
    command.arg(key);
    command
}

/// The document of a new item; the version is the script's.
///
/// # Errors
/// `InvalidRequest` if the value is not JSON.
pub(super) fn encode(value: &Value) -> Result<Bytes> {
    let (Value::Json(text) | Value::Bytes(text)) = value;
    let data = json::reencode(text, Style::Fast)?;
    let mut document = BytesMut::with_capacity(data.len() + 9);
    document.put_slice(b"{\"data\":");
    document.put_slice(&data);
    document.put_u8(b'}');
    Ok(document.freeze())
}

/// Reads what [`read`] returned; `None` if there is no such key.
///
/// # Errors
/// `Internal` if it is not an item's document.
pub(super) fn decode(reply: Reply) -> Result<Option<Item>> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
        version: Option<i64>,
    }
    let text = match reply {
        Reply::Nil => return Ok(None),
        Reply::BulkString(text) => text,
        _ => return Err(ComponentError::new(ErrorKind::Internal, "invalid result")),
    };
    let document: Document<'_> = serde_json::from_slice(&text)
        .map_err(|error| ComponentError::new(ErrorKind::Internal, format!("not an item's document: {error}")))?;
    let data = document.data.map_or("null", RawValue::get);
    Ok(Some(Item {
        value: json::reencode(data.as_bytes(), Style::Fast)?,
        etag: document.version.map(|version| version.to_string()),
        metadata: Metadata::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_holds_the_value_as_json() {
        let encode = |value| encode(&value).map(|document| String::from_utf8_lossy(&document).into_owned());
        assert_eq!(encode(Value::Json(r#" {"b":1, "a":2} "#.into())).expect("JSON"), r#"{"data":{"a":2,"b":1}}"#);
        assert_eq!(encode(Value::Bytes("[1, 2]".into())).expect("JSON"), r#"{"data":[1,2]}"#);
        let error = encode(Value::Bytes("\u{0}".into())).expect_err("not JSON");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }

    #[test]
    fn a_document_is_read_back_with_its_version() {
        let decode = |text: &str| decode(Reply::BulkString(text.into()));
        let item = decode(r#"{"data":{"a":"<"},"first-write":0,"version":3}"#).expect("valid").expect("an item");
        assert_eq!((&item.value[..], item.etag.as_deref()), (br#"{"a":"<"}"# as &[u8], Some("3")));
        let item = decode("{}").expect("valid").expect("an item");
        assert_eq!((&item.value[..], item.etag), (b"null" as &[u8], None));
        assert!(decode("1").is_err());
    }

    #[test]
    fn a_missing_document_is_no_item() {
        assert_eq!(decode(Reply::Nil).expect("valid"), None);
    }
}
