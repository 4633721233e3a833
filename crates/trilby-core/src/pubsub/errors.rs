//! The errors of publishing, with Dapr's texts and details.

use std::{collections::BTreeMap, fmt};

use trilby_component::{ComponentError, Metadata};

use crate::{Code, Error, error::Details};

/// Where something was to be published, as its errors name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) app_id: &'a str,
    pub(super) pubsub: &'a str,
    /// Without prefix.
    pub(super) topic: &'a str,
}

impl Target<'_> {
    pub(super) fn name_empty(self, metadata: &Metadata) -> Error {
        self.error(Code::PubSubNameEmpty, "pubsub name is empty".to_owned(), metadata.clone())
    }

    pub(super) fn not_found(self, metadata: &Metadata) -> Error {
        let details = Details { metadata: metadata.clone(), ..Details::default() };
        Error::new(Code::PubSubNotFound, format!("pubsub {} is not found", self.pubsub)).with_details(details)
    }

    pub(super) fn topic_empty(self, metadata: &Metadata) -> Error {
        self.error(Code::PubSubTopicEmpty, format!("topic is empty in pubsub {}", self.pubsub), metadata.clone())
    }

    pub(super) fn unreadable_metadata(self, reason: impl fmt::Display, metadata: &Metadata) -> Error {
        let message = format!("failed deserializing metadata. Error: {reason}");
        self.error(Code::PubSubMetadata, message, metadata.clone())
    }

    pub(super) fn not_a_cloud_event(self, reason: impl fmt::Display) -> Error {
        self.error(Code::PubSubCloudEvent, "cannot create cloudevent".to_owned(), self.of_app(Some(&reason)))
    }

    pub(super) fn forbidden(self) -> Error {
        let message = format!("topic {} is not allowed for app id {}", self.topic, self.app_id);
        self.error(Code::PubSubForbidden, message.clone(), self.of_topic(&message))
    }

    pub(super) fn publish(self, cause: &ComponentError) -> Error {
        let error = self.publish_text(&cause.to_string());
        error.with_kind_of(cause.kind())
    }

    pub(super) fn publish_text(self, reason: &str) -> Error {
        let message = format!("error when publishing to topic {} in pubsub {}: {reason}", self.topic, self.pubsub);
        self.error(Code::PubSubPublish, message, self.of_topic(reason))
    }

    pub(super) fn entry_id(self) -> Error {
        const REASON: &str = "entryId is duplicated or not present for entry";
        let (topic, pubsub) = (self.topic, self.pubsub);
        let message = format!("error marshaling events to bytes for topic {topic} pubsub {pubsub}. error: {REASON}");
        self.error(Code::PubSubEntryId, message, self.of_app(Some(&REASON)))
    }

    pub(super) fn entry_event(self, reason: impl fmt::Display) -> Error {
        let (topic, pubsub) = (self.topic, self.pubsub);
        let message =
            format!("error when marshalling cloud event envelope for topic {topic} pubsub {pubsub}: {reason}");
        self.error(Code::PubSubEntryEvent, message, self.of_app(Some(&reason)))
    }

    pub(super) fn entries(self, reason: impl fmt::Display) -> Error {
        let (topic, pubsub) = (self.topic, self.pubsub);
        let message = format!("error when unmarshaling the request for topic {topic} pubsub {pubsub}: {reason}");
        self.error(Code::PubSubEntries, message, self.of_app(None))
    }

    fn error(self, code: Code, message: String, metadata: BTreeMap<String, String>) -> Error {
        let resource = Some(("pubsub", self.pubsub.to_owned()));
        Error::new(code, message).with_details(Details { metadata, resource, ..Details::default() })
    }

    fn of_app(self, reason: Option<&dyn fmt::Display>) -> BTreeMap<String, String> {
        let reason = reason.map(|reason| ("error".to_owned(), reason.to_string()));
        [("appID".to_owned(), self.app_id.to_owned())].into_iter().chain(reason).collect()
    }

    fn of_topic(self, reason: &str) -> BTreeMap<String, String> {
        [("topic".to_owned(), self.topic.to_owned()), ("error".to_owned(), reason.to_owned())].into()
    }
}

/// A message of the outbox could not be published.
pub(super) fn outbox(app_id: &str, cause: &ComponentError) -> Error {
    let metadata = [("appID".to_owned(), app_id.to_owned()), ("error".to_owned(), cause.to_string())].into();
    Error::new(Code::PubSubOutbox, format!("error while publishing outbox message: {cause}"))
        .with_kind_of(cause.kind())
        .with_details(Details { metadata, ..Details::default() })
}
