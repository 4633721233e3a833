//! `pubsub.jetstream`: topics as subjects of NATS, kept in streams of JetStream that somebody has made.
//!
//! Topic and id of a CloudEvent go along as `Nats-Msg-Id`, by which the server drops what is published twice. Dapr sends
//! the id alone, and so loses a dead letter whose topic is in the stream where the event was: a stream knows an id only
//! once, whatever its subject. Each subscription is a push consumer, so that one that is durable can be shared with Dapr. A message that is not handled is
//! sent again: after `ackWait` if that is set, else at once the first time and later and later from then on, where Dapr
//! would have the server send it again without a pause.
//!
//! While a message waits here for its turn, the server is told so, and does not take it for lost. A consumer that is
//! gone from the server is made anew from the first message that was not settled. `ackPolicy: all` is NATS's own
//! promise, not ours: what is handled settles what came before it, handled or not.
//!
//! A stock Dapr trusts the system's certificates, and so does this.

mod line;
mod reader;
mod server;
mod settings;

use std::{borrow::Cow, sync::Arc};

use async_nats::{
    Client, HeaderMap,
    connection::State,
    header::NATS_MESSAGE_ID,
    jetstream::{Context, context::PublishAckFuture},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use trilby_component::{
    CancellationToken, ComponentError, ErrorKind, OpenRequest, Result,
    pubsub::{
        BulkPublishError, BulkPublishRequest, Feature, PubSub, PublishRequest, Sink, SubscribeRequest, Subscription,
    },
};

use self::{line::Source, reader::Reader, settings::Settings};

/// Connects.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` if no server can be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn PubSub>> {
    let settings = Settings::parse(&request.properties)?;
    let client = server::connect(&settings).await?;
    let context = server::jetstream(&settings, client.clone());
    Ok(Arc::new(JetStream { client, context, settings: Arc::new(settings) }))
}

struct JetStream {
    client: Client,
    context: Context,
    settings: Arc<Settings>,
}

#[async_trait]
impl PubSub for JetStream {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<()> {
        confirm(self.send(&request.topic, &request.data).await?).await
    }

    async fn bulk_publish(&self, request: &BulkPublishRequest) -> Result<(), BulkPublishError> {
        // All are sent, in order, before the first confirmation is waited for.
        let mut sent = Vec::with_capacity(request.entries.len());
        for entry in &request.entries {
            sent.push(self.send(&request.topic, &entry.data).await);
        }
        let confirmed = join_all(sent.into_iter().map(async |sent| confirm(sent?).await)).await;
        let failed: Vec<_> =
            confirmed.into_iter().enumerate().filter_map(|(index, result)| Some((index, result.err()?))).collect();
        if failed.is_empty() { Ok(()) } else { Err(BulkPublishError(failed)) }
    }

    async fn subscribe(
        &self,
        request: &SubscribeRequest,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Subscription> {
        let source = Source {
            client: self.client.clone(),
            context: self.context.clone(),
            settings: Arc::clone(&self.settings),
            topic: request.topic.clone(),
        };
        let line = source.attach().await?;
        Ok(Box::pin(Reader { source, sink }.run(line, stop)))
    }

    async fn ping(&self) -> Result<()> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => {
                Err(ComponentError::new(ErrorKind::Unavailable, "there is no connection to nats at the moment"))
            }
        }
    }

    async fn close(&self) {
        // Fails if the connection is closed already.
        let _ = self.client.drain().await;
    }
}

impl JetStream {
    async fn send(&self, topic: &str, data: &Bytes) -> Result<PublishAckFuture> {
        let mut headers = HeaderMap::new();
        if let Some(id) = event_id(data) {
            headers.insert(NATS_MESSAGE_ID, format!("{topic}:{id}"));
        }
        let sent = self.context.publish_with_headers(topic.to_owned(), headers, data.clone()).await;
        sent.map_err(|error| server::explain_publish(&error))
    }
}

async fn confirm(sent: PublishAckFuture) -> Result<()> {
    sent.await.map(drop).map_err(|error| server::explain_publish(&error))
}

/// The `id` of a JSON object, CloudEvent or not, if it is a text that fits into a header.
fn event_id(data: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let event: Event<'_> = serde_json::from_slice(data).ok()?;
    Some(event.id).filter(|id| !id.is_empty() && !id.contains(['\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_event_is_found_and_nothing_else() {
        assert_eq!(event_id(br#"{"data":{"id":"no"},"id":"a-1","type":"t"}"#).as_deref(), Some("a-1"));
        assert_eq!(event_id(br#"{"id":"\u017e"}"#).as_deref(), Some("\u{17e}"));
        for data in [r#"{"id":7}"#, r#"{"id":""}"#, r#"{"id":"a\nb"}"#, "{}", "[]", "text", ""] {
            assert_eq!(event_id(data.as_bytes()), None, "{data}");
        }
    }
}
