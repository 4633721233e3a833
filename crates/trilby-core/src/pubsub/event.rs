//! A CloudEvent as it is delivered.
//!
//! The envelope stays the bytes that came from the broker; an event remembers where in them its attributes are. Nothing
//! is copied but what JSON escapes make necessary.

use std::{
    borrow::Cow,
    fmt,
    ops::Range,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use bytestring::ByteString;
use serde_json::{Map, Value};
use trilby_component::{Metadata, pubsub::Message};
use uuid::Uuid;

use super::{
    content_type,
    json::{self, ObjectWriter},
};

/// Key of a message's metadata for its media type.
pub(super) const CONTENT_TYPE: &str = "content-type";
/// Keys of a message's metadata that are attributes of an event in binary mode.
const BINARY_PREFIX: &str = "ce_";
/// Attributes that a broker may carry beside the envelope.
const TRACE: [&str; 3] = ["traceid", "traceparent", "tracestate"];
/// The attributes that are not extensions to Dapr.
const CORE: [&str; 7] = ["id", "source", "datacontenttype", "type", "specversion", "data", "data_base64"];

/// A CloudEvent: parsed as far as routing and doors need it, and kept as it came for apps that take it whole.
#[derive(Debug, Clone)]
pub struct Event {
    /// The envelope; empty in binary mode.
    envelope: ByteString,
    /// The data, where it is not a part of the envelope.
    payload: Option<Bytes>,
    fields: Vec<Field>,
}

/// A message is not the CloudEvent that it should be.
#[derive(Debug)]
pub struct MalformedEvent(pub(super) String);

impl fmt::Display for MalformedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message is not a CloudEvent in JSON ({}); subscribe with rawPayload to take it as bytes", self.0)
    }
}

impl std::error::Error for MalformedEvent {}

#[derive(Debug, Clone)]
struct Field {
    name: Text,
    content: Content,
}

/// Text within the envelope, or beside it.
#[derive(Debug, Clone)]
enum Text {
    Within(Range<usize>),
    Beside(Box<str>),
}

#[derive(Debug, Clone)]
enum Content {
    /// A string, and its JSON if it is within the envelope.
    Text(Text, Option<Range<usize>>),
    /// Anything else.
    Json(Range<usize>),
}

impl Event {
    /// The event that `message` is. With `raw` any message is one, as the bytes that it holds.
    ///
    /// `pubsub` and `topic` are what a raw message is told to come from: the component's name, and the topic without
    /// prefix.
    ///
    /// # Errors
    /// If it is neither raw, nor in CloudEvents' binary mode, nor a JSON object.
    pub fn from_message(message: &Message, pubsub: &str, topic: &str, raw: bool) -> Result<Self, MalformedEvent> {
        if raw {
            return Ok(Self::wrap(message, pubsub, topic));
        }
        let content_type = message.content_type.as_ref().or_else(|| message.metadata.get(CONTENT_TYPE));
        match content_type {
            Some(content_type) if content_type::is_binary(content_type) => Ok(Self::binary(message, content_type)),
            _ => Self::structured(message),
        }
    }

    /// The envelope, as an HTTP app gets it; of an event in binary mode the data alone, as with Dapr.
    #[must_use]
    pub fn json(&self) -> Bytes {
        match &self.payload {
            Some(payload) if self.envelope.is_empty() => payload.clone(),
            _ => self.envelope.as_bytes().clone(),
        }
    }

    /// `id`; empty if it has none.
    #[must_use]
    pub fn id(&self) -> &str {
        self.attribute("id").unwrap_or_default()
    }

    /// `source`; empty if it has none.
    #[must_use]
    pub fn source(&self) -> &str {
        self.attribute("source").unwrap_or_default()
    }

    /// `type`; empty if it has none.
    #[must_use]
    pub fn type_name(&self) -> &str {
        self.attribute("type").unwrap_or_default()
    }

    /// `specversion`; empty if it has none.
    #[must_use]
    pub fn spec_version(&self) -> &str {
        self.attribute("specversion").unwrap_or_default()
    }

    /// `datacontenttype`; empty if it has none.
    #[must_use]
    pub fn data_content_type(&self) -> &str {
        self.attribute("datacontenttype").unwrap_or_default()
    }

    /// The data as a gRPC app or a guest gets it: `data_base64` decoded, JSON as text, a string without its quotes
    /// unless the data is JSON. What says that it is base64 and is not stays as it is.
    #[must_use]
    pub fn data(&self) -> Bytes {
        if let Some(payload) = &self.payload {
            return payload.clone();
        }
        if let Some(text) = self.attribute("data_base64") {
            return STANDARD.decode(text).map_or_else(|_| Bytes::copy_from_slice(text.as_bytes()), Bytes::from);
        }
        match self.content("data") {
            Some(Content::Text(_, Some(range))) if content_type::is_json(self.data_content_type()) => {
                self.envelope.as_bytes().slice(range.clone())
            }
            Some(Content::Json(range)) if &self.envelope[range.clone()] == "null" => Bytes::new(),
            Some(Content::Text(Text::Within(range), _) | Content::Json(range)) => {
                self.envelope.as_bytes().slice(range.clone())
            }
            Some(Content::Text(Text::Beside(text), _)) => Bytes::copy_from_slice(text.as_bytes()),
            None => Bytes::new(),
        }
    }

    /// An attribute by name, if it is a string.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match self.content(name)? {
            Content::Text(text, _) => Some(self.read(text)),
            Content::Json(_) => None,
        }
    }

    /// What is neither data nor one of the attributes above, topic and pubsubname included.
    pub fn extensions(&self) -> impl Iterator<Item = (&str, Value)> {
        let extensions = self.fields.iter().filter(|field| !CORE.contains(&self.read(&field.name)));
        extensions.map(|field| (self.read(&field.name), self.value(&field.content)))
    }

    /// The event as a tree, for what has to look into it.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        let member = |field: &Field| (self.read(&field.name).to_owned(), self.value(&field.content));
        let mut map: Map<_, _> = self.fields.iter().map(member).collect();
        if let Some(payload) = &self.payload
            && !map.contains_key("data_base64")
        {
            map.insert("data".to_owned(), String::from_utf8_lossy(payload).into());
        }
        map
    }

    /// Whether its `expiration` has passed at `now`. What is no time never does.
    #[must_use]
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.attribute("expiration").and_then(parse_time).is_some_and(|expiration| expiration < now)
    }

    fn wrap(message: &Message, pubsub: &str, topic: &str) -> Self {
        let mut object = ObjectWriter::with_capacity(256 + message.data.len() / 3 * 4);
        object.base64("data_base64", &message.data);
        object.plain("datacontenttype", "application/octet-stream");
        object.plain("id", Uuid::new_v4());
        object.text("pubsubname", pubsub);
        object.plain("source", "Dapr");
        object.plain("specversion", "1.0");
        object.text("topic", topic);
        let [id, parent, state] = TRACE.map(|name| message.metadata.get(name));
        for (name, value) in TRACE.into_iter().zip([parent.or(id), parent, state]) {
            if let Some(value) = value {
                object.text(name, value);
            }
        }
        object.plain("type", "com.dapr.event.sent");
        let envelope = ByteString::try_from(object.finish()).expect("its parts are texts");
        let fields = fields(&envelope).unwrap_or_default();
        Self { envelope, payload: Some(message.data.clone()), fields }
    }

    fn binary(message: &Message, content_type: &str) -> Self {
        let attribute = |(name, value): (&String, &String)| {
            let prefix = name.get(..BINARY_PREFIX.len())?;
            let named = prefix.eq_ignore_ascii_case(BINARY_PREFIX);
            named.then(|| Field::beside(&name[BINARY_PREFIX.len()..].to_lowercase(), value))
        };
        let mut fields: Vec<_> = message.metadata.iter().filter_map(attribute).collect();
        fields.push(Field::beside("datacontenttype", content_type));
        Self { envelope: ByteString::new(), payload: Some(message.data.clone()), fields }
    }

    fn structured(message: &Message) -> Result<Self, MalformedEvent> {
        let envelope = ByteString::try_from(message.data.clone()).map_err(|error| MalformedEvent(error.to_string()))?;
        let fields = fields(&envelope).map_err(|error| MalformedEvent(error.to_string()))?;
        let mut event = Self { envelope, payload: None, fields };
        event.add_trace(&message.metadata);
        Ok(event)
    }

    /// Takes what the envelope does not say about its trace from what the broker says.
    fn add_trace(&mut self, metadata: &Metadata) {
        let parent = metadata.get("traceparent").filter(|_| self.content("traceparent").is_none());
        if let Some(parent) = parent {
            self.fields.push(Field::beside("traceparent", parent));
            self.fields.push(Field::beside("traceid", parent));
        }
        for name in ["traceid", "tracestate"] {
            if let Some(value) = metadata.get(name)
                && self.content(name).is_none()
            {
                self.fields.push(Field::beside(name, value));
            }
        }
    }

    /// Of several fields with one name the last one counts.
    fn content(&self, name: &str) -> Option<&Content> {
        self.fields.iter().rfind(|field| self.read(&field.name) == name).map(|field| &field.content)
    }

    fn read<'a>(&'a self, text: &'a Text) -> &'a str {
        match text {
            Text::Within(range) => &self.envelope[range.clone()],
            Text::Beside(text) => text,
        }
    }

    fn value(&self, content: &Content) -> Value {
        match content {
            Content::Text(text, _) => self.read(text).into(),
            // Only numbers that no float holds fail here: the syntax was checked.
            Content::Json(range) => serde_json::from_str(&self.envelope[range.clone()]).unwrap_or_default(),
        }
    }
}

impl Field {
    fn beside(name: &str, value: &str) -> Self {
        Self { name: Text::Beside(name.into()), content: Content::Text(Text::Beside(value.into()), None) }
    }
}

/// Where the members of the object `text` are.
fn fields(text: &str) -> serde_json::Result<Vec<Field>> {
    let range = |part: &str| {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        start..start + part.len()
    };
    let to_text = |part: Cow<'_, str>| match part {
        Cow::Borrowed(part) => Text::Within(range(part)),
        Cow::Owned(part) => Text::Beside(part.into()),
    };
    let field = |(name, value)| {
        let content = match json::string(value) {
            Some(part) => Content::Text(to_text(part), Some(range(value))),
            None => Content::Json(range(value)),
        };
        Field { name: to_text(name), content }
    };
    Ok(json::members(text)?.into_iter().map(field).collect())
}

/// Reads RFC 3339, with any offset.
fn parse_time(text: &str) -> Option<SystemTime> {
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Some(time);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let ahead = Duration::from_secs(hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60);
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    match offset.as_bytes()[0] {
        b'+' => time.checked_sub(ahead),
        b'-' => time.checked_add(ahead),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(data: &'static str, metadata: &[(&str, &str)]) -> Message {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Message { data: data.into(), metadata, ..Message::default() }
    }

    fn event(data: &'static str) -> Event {
        Event::from_message(&message(data, &[]), "ps", "t", false).expect("an event")
    }

    #[test]
    fn attributes_are_read_where_they_are_and_the_envelope_is_not_touched() {
        let text = r#"{ "id":"1","source":"s\n","type":"t","specversion":"1.0","topic":"a","n":5,"id":"2"}"#;
        let message = message(text, &[]);
        let event = Event::from_message(&message, "ps", "t", false).expect("an event");
        assert_eq!((event.id(), event.source(), event.type_name(), event.spec_version()), ("2", "s\n", "t", "1.0"));
        assert_eq!((event.data_content_type(), event.attribute("n"), event.attribute("none")), ("", None, None));
        assert_eq!(event.extensions().collect::<Vec<_>>(), [("topic", json!("a")), ("n", json!(5))]);
        assert!(std::ptr::eq(event.json().as_ptr(), message.data.as_ptr()));
    }

    #[test]
    fn data_is_what_its_content_type_says() {
        for (envelope, data) in [
            (r#"{"data":{"a":1},"datacontenttype":"application/json"}"#, r#"{"a":1}"#),
            (r#"{"data":"x","datacontenttype":"application/json"}"#, r#""x""#),
            (r#"{"data":"a\"b","datacontenttype":"text/plain"}"#, "a\"b"),
            (r#"{"data":"<a/>","datacontenttype":"application/xml"}"#, "<a/>"),
            (r#"{"data_base64":"AAEC","datacontenttype":"application/octet-stream"}"#, "\0\u{1}\u{2}"),
            (r#"{"data_base64":"?"}"#, "?"),
            (r#"{"data":[1]}"#, "[1]"),
            (r#"{"data":null}"#, ""),
            ("{}", ""),
        ] {
            assert_eq!(event(envelope).data(), data, "{envelope}");
        }
    }

    #[test]
    fn data_is_shared_with_the_message() {
        let message = message(r#"{"data":{"a":1},"datacontenttype":"application/json"}"#, &[]);
        let data = Event::from_message(&message, "ps", "t", false).expect("an event").data();
        assert!(message.data.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn any_message_is_an_event_if_it_is_raw() {
        let metadata = [("traceid", "old"), ("traceparent", "p")];
        let event = Event::from_message(&message("by\u{1}tes", &metadata), "ps", "a", true).expect("an event");
        assert_eq!((event.data(), event.data_content_type()), ("by\u{1}tes".into(), "application/octet-stream"));
        let mut map: Value = serde_json::from_slice(&event.json()).expect("JSON");
        assert_eq!(map["id"].as_str(), Some(event.id()));
        map["id"] = Value::Null;
        let expect = json!({
            "data_base64": "YnkBdGVz", "datacontenttype": "application/octet-stream", "id": null, "pubsubname": "ps",
            "source": "Dapr", "specversion": "1.0", "topic": "a", "traceid": "p", "traceparent": "p",
            "type": "com.dapr.event.sent",
        });
        assert_eq!(map, expect);
    }

    #[test]
    fn in_binary_mode_metadata_are_attributes() {
        let metadata = [("CE_Id", "1"), ("ce_type", "t"), ("content-type", "application/octet-stream"), ("x", "y")];
        let event = Event::from_message(&message("\u{1}", &metadata), "ps", "t", false).expect("an event");
        assert_eq!((event.id(), event.type_name(), event.attribute("x")), ("1", "t", None));
        assert_eq!((event.json(), event.data()), ("\u{1}".into(), "\u{1}".into()));
        assert_eq!(event.to_map()["data"], "\u{1}");
    }

    #[test]
    fn a_broker_can_carry_the_trace_for_an_envelope_without() {
        let metadata = [("traceparent", "p"), ("traceid", "i"), ("tracestate", "s")];
        let read = |text| Event::from_message(&message(text, &metadata), "ps", "t", false).expect("an event");
        let trace = |event: &Event| TRACE.map(|name| event.attribute(name).map(str::to_owned));
        assert_eq!(trace(&read("{}")), ["p", "p", "s"].map(|value| Some(value.to_owned())));
        let own = read(r#"{"traceid":"1","traceparent":"2","tracestate":""}"#);
        assert_eq!(trace(&own), ["1", "2", ""].map(|value| Some(value.to_owned())));
    }

    #[test]
    fn what_is_no_object_is_no_event() {
        for text in ["", "x", "[]", "5", "\"text\"", "{", "{} x"] {
            let error = Event::from_message(&message(text, &[]), "ps", "t", false).expect_err(text);
            assert!(error.to_string().starts_with("the message is not a CloudEvent in JSON ("), "{error}");
        }
        assert_eq!(event("null").id(), "");
    }

    #[test]
    fn an_event_expires_at_a_time_in_any_zone() {
        let now = humantime::parse_rfc3339("2026-01-01T12:00:00Z").expect("a time");
        for (expiration, expired) in [
            ("2026-01-01T11:59:59Z", true),
            ("2026-01-01T12:00:01Z", false),
            ("2026-01-01T13:59:59+02:00", true),
            ("2026-01-01T14:00:01+02:00", false),
            ("2026-01-01T06:59:59.5-05:00", true),
            ("2026-01-01T07:00:01-05:00", false),
            ("soon", false),
            ("", false),
        ] {
            let text = format!(r#"{{"expiration":"{expiration}"}}"#);
            let message = Message { data: text.into(), ..Message::default() };
            let event = Event::from_message(&message, "ps", "t", false).expect("an event");
            assert_eq!(event.has_expired(now), expired, "{expiration}");
        }
    }
}
