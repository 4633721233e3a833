//! CloudEvents as messages, and the words of their handlers as outcomes.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::Value as Json;
use trilby_core::pubsub::{Event, Outcome};
use trilby_proto::runtime::v1::{
    TopicEventCeRequest, TopicEventRequest, topic_event_response::TopicEventResponseStatus as Status,
};

/// One event on its way to a subscriber.
pub(crate) fn to_request(event: &Event, pubsub: &str, topic: &str, path: &str) -> TopicEventRequest {
    TopicEventRequest {
        id: event.id().to_owned(),
        source: event.source().to_owned(),
        r#type: event.type_name().to_owned(),
        spec_version: event.spec_version().to_owned(),
        data_content_type: event.data_content_type().to_owned(),
        data: event.data(),
        topic: topic.to_owned(),
        pubsub_name: pubsub.to_owned(),
        path: path.to_owned(),
        extensions: Some(extensions(event)),
    }
}

/// One event of several.
pub(crate) fn to_entry(event: &Event) -> TopicEventCeRequest {
    TopicEventCeRequest {
        id: event.id().to_owned(),
        source: event.source().to_owned(),
        r#type: event.type_name().to_owned(),
        spec_version: event.spec_version().to_owned(),
        data_content_type: event.data_content_type().to_owned(),
        data: event.data(),
        extensions: Some(extensions(event)),
    }
}

/// `None` for a word that nobody knows.
pub(crate) fn outcome(status: i32) -> Option<Outcome> {
    Some(match Status::try_from(status).ok()? {
        Status::Success => Outcome::Ack,
        Status::Retry => Outcome::Retry,
        Status::Drop => Outcome::Drop,
    })
}

fn extensions(event: &Event) -> Struct {
    Struct { fields: event.extensions().map(|(name, value)| (name.to_owned(), to_proto(value))).collect() }
}

fn to_proto(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.into_iter().map(to_proto).collect() }),
        Json::Object(members) => {
            let fields = members.into_iter().map(|(name, value)| (name, to_proto(value)));
            Kind::StructValue(Struct { fields: fields.collect() })
        }
    };
    Value { kind: Some(kind) }
}
