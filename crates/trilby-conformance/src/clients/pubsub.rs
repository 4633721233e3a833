//! Publishing through each door. What is published is heard by another app, over its embedded door.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{Method, Request};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use trilby_core::{
    Api, Ctx,
    pubsub::{BulkPublish, Publish, PublishEntry},
};
use trilby_proto::runtime::v1::{BulkPublishRequest, BulkPublishRequestEntry, PublishEventRequest};

use super::{Embedded, Grpc, Http, Wasm, embedded, grpc};
use crate::client::{Answer, Message, PubSubClient};

#[async_trait]
impl PubSubClient for Embedded {
    async fn publish(&self, pubsub: &str, topic: &str, message: &Message) -> Answer<()> {
        let Message { data, content_type, metadata } = message.clone();
        let metadata = metadata.into_iter().collect();
        let event = Publish { topic: topic.to_owned(), data: data.into(), content_type, metadata };
        self.0.pubsub.publish(&Ctx::default(), pubsub, event).await.map_err(embedded::failure)
    }

    async fn publish_bulk(&self, pubsub: &str, topic: &str, messages: &[Message]) -> Answer<Vec<String>> {
        let entry = |(index, message): (usize, &Message)| PublishEntry {
            entry_id: index.to_string(),
            data: message.data.clone().into(),
            content_type: message.content_type.clone(),
            metadata: message.metadata.iter().cloned().collect(),
        };
        let entries = messages.iter().enumerate().map(entry).collect();
        let events = BulkPublish { topic: topic.to_owned(), entries, ..BulkPublish::default() };
        let failed = self.0.pubsub.bulk_publish(&Ctx::default(), pubsub, events).await.map_err(embedded::failure)?;
        Ok(failed.into_iter().map(|entry| entry.entry_id).collect())
    }

    fn listener(&self) -> Option<&Api> {
        Some(&self.0)
    }
}

#[async_trait]
impl PubSubClient for Http {
    async fn publish(&self, pubsub: &str, topic: &str, message: &Message) -> Answer<()> {
        let escape = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let pairs = message.metadata.iter();
        let pairs: Vec<_> = pairs.map(|(name, value)| format!("metadata.{}={}", escape(name), escape(value))).collect();
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri(&format!("/v1.0/publish/{pubsub}/{topic}?{}", pairs.join("&"))))
            .header("content-type", &message.content_type);
        self.send(request, message.data.clone().into()).await.map(drop)
    }

    async fn publish_bulk(&self, pubsub: &str, topic: &str, messages: &[Message]) -> Answer<Vec<String>> {
        let entry = |(index, message): (usize, &Message)| {
            let metadata: Map<_, Value> =
                message.metadata.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            json!({
                "entryId": index.to_string(),
                "event": String::from_utf8_lossy(&message.data),
                "contentType": message.content_type,
                "metadata": metadata,
            })
        };
        let body = Value::from_iter(messages.iter().enumerate().map(entry)).to_string();
        self.call(Method::POST, &format!("/v1.0/publish/bulk/{pubsub}/{topic}"), None, body).await?;
        Ok(Vec::new())
    }

    fn listener(&self) -> Option<&Api> {
        self.listener.as_ref()
    }
}

#[async_trait]
impl PubSubClient for Grpc {
    async fn publish(&self, pubsub: &str, topic: &str, message: &Message) -> Answer<()> {
        let request = PublishEventRequest {
            pubsub_name: pubsub.into(),
            topic: topic.into(),
            data: message.data.clone().into(),
            data_content_type: message.content_type.clone(),
            metadata: message.metadata.iter().cloned().collect(),
        };
        self.0.clone().publish_event(request).await.map(drop).map_err(grpc::failure)
    }

    async fn publish_bulk(&self, pubsub: &str, topic: &str, messages: &[Message]) -> Answer<Vec<String>> {
        let entry = |(index, message): (usize, &Message)| BulkPublishRequestEntry {
            entry_id: index.to_string(),
            event: message.data.clone().into(),
            content_type: message.content_type.clone(),
            metadata: message.metadata.iter().cloned().collect(),
        };
        let request = BulkPublishRequest {
            pubsub_name: pubsub.into(),
            topic: topic.into(),
            entries: messages.iter().enumerate().map(entry).collect(),
            ..BulkPublishRequest::default()
        };
        let reply = self.0.clone().bulk_publish_event(request).await.map_err(grpc::failure)?.into_inner();
        Ok(reply.failed_entries.into_iter().map(|entry| entry.entry_id).collect())
    }

    fn listener(&self) -> Option<&Api> {
        self.1.as_ref()
    }
}

#[async_trait]
impl PubSubClient for Wasm {
    async fn publish(&self, pubsub: &str, topic: &str, message: &Message) -> Answer<()> {
        let mut operation = entry(message);
        operation["op"] = json!("publish");
        operation["pubsub"] = json!(pubsub);
        operation["topic"] = json!(topic);
        self.call(operation).await.map(drop)
    }

    async fn publish_bulk(&self, pubsub: &str, topic: &str, messages: &[Message]) -> Answer<Vec<String>> {
        let named = messages.iter().enumerate().map(|(index, message)| {
            let mut entry = entry(message);
            entry["entry-id"] = json!(index.to_string());
            entry
        });
        let entries = Value::from_iter(named);
        let rows =
            self.call(json!({ "op": "publish-bulk", "pubsub": pubsub, "topic": topic, "entries": entries })).await?;
        let failed = rows.as_array().into_iter().flatten().filter(|row| !row[1]["error"].is_null());
        Ok(failed.filter_map(|row| row[0].as_str().map(str::to_owned)).collect())
    }

    fn listener(&self) -> Option<&Api> {
        Some(&self.api)
    }
}

fn entry(message: &Message) -> Value {
    json!({
        "data": STANDARD.encode(&message.data),
        "options": { "content-type": message.content_type, "metadata": message.metadata },
    })
}
