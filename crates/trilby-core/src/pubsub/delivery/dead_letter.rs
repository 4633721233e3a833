//! Where messages go that are given up.

use std::time::{Duration, Instant};

use trilby_component::pubsub::{Message, PublishRequest};

use super::Consumer;
use crate::{Ctx, pubsub::event::CONTENT_TYPE};

/// Longest time for publishing to the dead-letter topic; Dapr's.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Consumer {
    /// Publishes a message as it came to the dead-letter topic. False if there is none, or it did not take it.
    pub(super) async fn bury(&self, message: &Message) -> bool {
        let Some(topic) = &self.subscription.dead_letter_topic else { return false };
        if !self.broker.scopes.allow_publishing(topic) {
            tracing::error!(pubsub = self.subscription.pubsub, topic, "dead-letter topic may not be published to");
            return false;
        }
        let mut metadata = message.metadata.clone();
        if let Some(content_type) = &message.content_type {
            metadata.insert(CONTENT_TYPE.to_owned(), content_type.clone());
        }
        let request = PublishRequest {
            topic: self.broker.complete(topic.clone()),
            data: message.data.clone(),
            content_type: message.content_type.clone().unwrap_or_default(),
            metadata,
        };
        let ctx = Ctx { deadline: Some(Instant::now() + TIMEOUT), ..Ctx::default() };
        let published = self.broker.send(&ctx, &request).await;
        if let Err(error) = &published {
            tracing::error!(
                pubsub = self.subscription.pubsub,
                topic = message.topic,
                dead_letter_topic = topic,
                %error,
                "message not taken by the dead-letter topic"
            );
        }
        published.is_ok()
    }
}
