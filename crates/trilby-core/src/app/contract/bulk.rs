//! Several events in one `POST`, and a status for each in the answer.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use trilby_component::ErrorKind;

use super::{
    JSON, MAX_ANSWER_BYTES, add_metadata, add_pubsub, broken, excerpt,
    json::{write_metadata, write_text},
    post,
};
use crate::{
    Ctx,
    app::{AppChannel, ChannelError},
    ctx::{TRACEPARENT, UNTRACED},
    pubsub::{BulkDelivery, BulkEntry, Outcome},
};

/// `type` of the envelope.
const TYPE: &str = "com.dapr.event.sent.bulk";

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    statuses: Option<Vec<EntryStatus>>,
}

#[derive(Deserialize)]
struct EntryStatus {
    #[serde(default, rename = "entryId")]
    entry_id: String,
    #[serde(default)]
    status: String,
}

/// `POST` to the route of the subscription.
pub(in crate::app) async fn deliver_bulk<A: AppChannel + ?Sized>(
    app: &A,
    ctx: &Ctx,
    delivery: &BulkDelivery<'_>,
) -> Result<Vec<Outcome>, ChannelError> {
    let BulkDelivery { pubsub, topic, path, .. } = *delivery;
    let mut request = post(path, JSON, body(delivery))?;
    let headers = request.headers_mut();
    add_metadata(headers, delivery.metadata);
    add_pubsub(headers, pubsub);
    headers.insert(TRACEPARENT, ctx.trace.parent.clone().unwrap_or(UNTRACED));

    let response = app.invoke(ctx, request).await?;

    let (head, body) = response.into_parts();
    match head.status {
        status if status.is_success() => {
            let body = body.collect(MAX_ANSWER_BYTES).await.map_err(broken)?;
            outcomes(&body, delivery.entries)
        }
        StatusCode::NOT_FOUND => {
            tracing::error!(pubsub, topic, path, "app has no such route, events dropped");
            Ok(vec![Outcome::Drop; delivery.entries.len()])
        }
        status => {
            let (code, body) = (status.as_u16(), excerpt(body).await);
            let text = format!(
                "retriable error returned from app while processing bulk pub/sub event, topic: {topic}, body: {body}. \
                 status code returned: {code}"
            );
            Err(ChannelError::new(ErrorKind::Internal, text).with_status(code))
        }
    }
}

/// The envelope, members in Dapr's order.
fn body(delivery: &BulkDelivery<'_>) -> Bytes {
    let mut json = b"{\"entries\":[".to_vec();
    for (index, entry) in delivery.entries.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"entryId\":");
        write_text(&mut json, &entry.entry_id);
        json.extend_from_slice(b",\"event\":");
        write_event(&mut json, entry);
        json.extend_from_slice(b",\"metadata\":");
        write_metadata(&mut json, &entry.metadata);
        json.extend_from_slice(b",\"contentType\":");
        write_text(&mut json, &entry.content_type);
        json.push(b'}');
    }
    let mut metadata = delivery.metadata.clone();
    metadata.insert("pubsubName".to_owned(), delivery.pubsub.to_owned());
    json.extend_from_slice(b"],\"id\":");
    write_text(&mut json, delivery.id);
    json.extend_from_slice(b",\"metadata\":");
    write_metadata(&mut json, &metadata);
    for (name, value) in [("pubsubname", delivery.pubsub), ("topic", delivery.topic), ("type", TYPE)] {
        json.push(b',');
        write_text(&mut json, name);
        json.push(b':');
        write_text(&mut json, value);
    }
    json.push(b'}');
    json.into()
}

fn write_event(json: &mut Vec<u8>, entry: &BulkEntry) {
    match &entry.event {
        Ok(event) => {
            let envelope = event.json();
            if serde_json::from_slice::<&RawValue>(&envelope).is_ok() {
                json.extend_from_slice(&envelope);
            } else {
                // One in binary mode, whose bytes are the data alone.
                let map = serde_json::Value::Object(event.to_map());
                json.extend_from_slice(map.to_string().as_bytes());
            }
        }
        Err(bytes) => {
            json.push(b'"');
            json.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            json.push(b'"');
        }
    }
}

/// What the app says about each entry, in order. What it says nothing about, or nothing that is known, is a retry.
fn outcomes(body: &[u8], entries: &[&BulkEntry]) -> Result<Vec<Outcome>, ChannelError> {
    let answer = serde_json::Deserializer::from_slice(body).into_iter::<Answer>().next();
    let answer = answer.transpose().map_err(|error| error.to_string());
    let answer = answer.and_then(|answer| answer.ok_or_else(|| "EOF".to_owned())).map_err(|error| {
        let text = format!("failed unmarshalling app response for bulk subscribe: {error}");
        ChannelError::new(ErrorKind::Internal, text)
    })?;
    let statuses = answer.statuses.unwrap_or_default();
    let said: HashMap<_, _> = statuses.iter().map(|entry| (entry.entry_id.as_str(), entry.status.as_str())).collect();
    let outcome = |entry: &&BulkEntry| match said.get(entry.entry_id.as_str()) {
        None | Some(&"") => Outcome::Retry,
        Some(status) => Outcome::parse(status).unwrap_or(Outcome::Retry),
    };
    Ok(entries.iter().map(outcome).collect())
}
