//! The publish API: one event as the body, or several as a JSON list.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use trilby_component::{
    Metadata,
    json::{self, Style},
};
use trilby_core::{
    Body, Response, Result,
    pubsub::{BulkPublish, FailedEntry, Publish, PublishEntry},
};

use crate::codec::{self, Call, Expected};

/// Dapr's sentence for an event that is not what its content type says.
const MISMATCH: &str = "error: mismatch between contentType and event";

/// `POST|PUT v1.0/publish/{pubsub}/{topic}`
pub(crate) async fn publish(call: &Call<'_>, body: Body) -> Result<Response> {
    let (pubsub, topic) = (&*call.store, &*call.key);
    let block = &call.door.api.pubsub;
    let metadata = call.query.metadata();
    block.check(pubsub, topic, &metadata)?;
    let data = call.bytes(body).await.map_err(|error| block.publish_error(pubsub, topic, &error.to_string()))?;
    let content_type = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let event = Publish { topic: topic.to_owned(), data, content_type: content_type.to_owned(), metadata };

    block.publish(call.ctx, pubsub, event).await?;

    Ok(codec::no_content())
}

/// `POST|PUT v1.0/publish/bulk/{pubsub}/{topic}`, and the same in `v1.0-alpha1`
pub(crate) async fn bulk_publish(call: &Call<'_>, body: Body) -> Result<Response> {
    let (pubsub, topic) = (&*call.store, &*call.key);
    let block = &call.door.api.pubsub;
    let metadata = call.query.metadata();
    block.check(pubsub, topic, &metadata)?;
    let expected = Expected { opening: b'[', go_type: "[]http.bulkPublishMessageEntry" };
    let body = call.bytes(body).await.map_err(|error| block.unreadable_entries(pubsub, topic, error))?;
    let entries: Vec<Entry<'_>> =
        codec::decode(&body, expected).map_err(|reason| block.unreadable_entries(pubsub, topic, reason))?;
    let entries: Result<Vec<_>, String> = entries.into_iter().map(|entry| entry.read(&body)).collect();
    let entries = entries.map_err(|reason| block.unreadable_entry(pubsub, topic, reason))?;

    let events = BulkPublish { topic: topic.to_owned(), entries, metadata };
    let failed = block.bulk_publish(call.ctx, pubsub, events).await?;

    if failed.is_empty() {
        return Ok(codec::no_content());
    }
    Ok(say_failed(call, &failed))
}

/// One entry of the list.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry<'a> {
    #[serde(rename = "entryId")]
    entry_id: Option<String>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(rename = "contentType")]
    content_type: Option<String>,
    metadata: Option<Metadata>,
}

impl Entry<'_> {
    /// `body` is what it was decoded from, so that the event can share it.
    ///
    /// # Errors
    /// Dapr's sentence, if the event is not what the content type says.
    fn read(self, body: &Bytes) -> Result<PublishEntry, String> {
        let content_type = self.content_type.unwrap_or_default();
        let event = self.event.map_or("null", RawValue::get);
        let essence = content_type.split(';').next().unwrap_or_default().to_ascii_lowercase();
        let data = match essence.as_str() {
            "application/octet-stream" => {
                let decoded = STANDARD.decode(string(event)?.as_bytes());
                decoded.map(Bytes::from).map_err(|error| {
                    format!("error: unable to decode base64 application/octect-stream data: {error}")
                })?
            }
            "application/json" | "application/cloudevents+json" => {
                json::reencode(event.as_bytes(), Style::Standard).map_err(|error| format!("{MISMATCH}: {error}"))?
            }
            text if text.starts_with("text/") || text == "application/xml" => match string(event)? {
                Cow::Borrowed(text) => body.slice_ref(text.as_bytes()),
                Cow::Owned(text) => text.into(),
            },
            _ => return Err(MISMATCH.to_owned()),
        };
        Ok(PublishEntry {
            entry_id: self.entry_id.unwrap_or_default(),
            data,
            content_type,
            metadata: self.metadata.unwrap_or_default(),
        })
    }
}

/// The text of a JSON string.
fn string(json: &str) -> Result<Cow<'_, str>, String> {
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
        Some(_) => serde_json::from_str(json).map(Cow::Owned).map_err(|_| MISMATCH.to_owned()),
        None => Err(MISMATCH.to_owned()),
    }
}

/// The answer if some were not published. It is in headers too: Dapr's clients in Go look there.
fn say_failed(call: &Call<'_>, failed: &[FailedEntry]) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Failed<'a> {
        failed_entries: Vec<FailedEvent<'a>>,
        error_code: &'static str,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct FailedEvent<'a> {
        entry_id: &'a str,
        #[serde(skip_serializing_if = "String::is_empty")]
        error: String,
    }

    let entries = failed.iter().map(|it| FailedEvent { entry_id: &it.entry_id, error: it.error.to_string() });
    let entries: Vec<_> = entries.collect();
    let first = entries.first().map_or("", |entry| &entry.error);
    let error = call.door.api.pubsub.publish_error(&call.store, &call.key, first);
    call.door.api.errors.record(error.code());
    let body = codec::encode(&Failed { failed_entries: entries, error_code: error.code().row().tag });
    let text = format!("api error: code = Internal desc = {error}");
    let headers = [("metadata.responsedata", HeaderValue::from_bytes(&body)), ("metadata.error", text.parse())];

    let mut response = codec::json(body);
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    for (name, value) in headers {
        // What does not fit into a header is in the body.
        if let Ok(value) = value {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Result<PublishEntry, String> {
        let body = Bytes::from_static(text.as_bytes());
        let entry: Entry<'_> = serde_json::from_slice(&body).expect("an entry");
        entry.read(&body)
    }

    #[test]
    fn an_event_is_read_as_its_content_type_says() {
        for (text, data) in [
            (r#"{"event": {"b": 1, "a": "<"}, "contentType": "application/json; x"}"#, r#"{"a":"\u003c","b":1}"#),
            (r#"{"contentType": "application/json"}"#, "null"),
            (r#"{"event": {"id": "1"}, "contentType": "application/cloudevents+json"}"#, r#"{"id":"1"}"#),
            (r#"{"event": "a\"b", "contentType": "text/plain"}"#, "a\"b"),
            (r#"{"event": "<a/>", "contentType": "Application/XML"}"#, "<a/>"),
            (r#"{"event": "AAEC", "contentType": "application/octet-stream"}"#, "\0\u{1}\u{2}"),
        ] {
            assert_eq!(read(text).expect("it fits").data, data, "{text}");
        }
    }

    #[test]
    fn an_event_that_is_something_else_is_refused() {
        for text in [
            r#"{"event": {"a": 1}, "contentType": "text/plain"}"#,
            r#"{"event": {"a": 1}}"#,
            r#"{"event": 5, "contentType": "application/octet-stream"}"#,
            r#"{"event": "x", "contentType": "image/png"}"#,
        ] {
            assert_eq!(read(text).expect_err("it does not fit"), MISMATCH, "{text}");
        }
        let error = read(r#"{"event": "?", "contentType": "application/octet-stream"}"#).expect_err("no base64");
        assert!(error.starts_with("error: unable to decode base64 application/octect-stream data: "), "{error}");
    }
}
