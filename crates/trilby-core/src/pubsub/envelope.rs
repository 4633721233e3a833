//! The CloudEvent that is made of what an app publishes.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use trilby_component::{
    Metadata,
    properties::duration,
    pubsub::{Feature, PubSub, TTL_IN_SECONDS},
};
use uuid::Uuid;

use super::{
    content_type,
    json::{self, ObjectWriter},
};
use crate::ctx::{self, Trace};

/// Request metadata whose keys begin like this override attributes of the event.
const OVERRIDES: &str = "cloudevent.";
/// Room for what surrounds the data.
const FRAME_BYTES: usize = 512;

/// Where an event is published, and who publishes it.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) app_id: &'a str,
    pub(super) pubsub: &'a str,
    /// Without prefix.
    pub(super) topic: &'a str,
    pub(super) trace: &'a Trace,
    /// Whether the broker drops messages whose time has passed; else the envelope says when that is.
    pub(super) broker_expires: bool,
}

impl<'a> Sender<'a> {
    /// `traceparent` and `tracestate` of the caller, or nothing if nobody traces.
    pub(super) fn trace(&self) -> (&'a str, &'a str) {
        let text = |value: &'a Option<http::HeaderValue>| value.as_ref().and_then(|value| value.to_str().ok());
        match &self.trace.parent {
            Some(parent) if *parent != ctx::UNTRACED => {
                (text(&self.trace.parent).unwrap_or_default(), text(&self.trace.state).unwrap_or_default())
            }
            _ => ("", ""),
        }
    }
}

/// Whether messages that a broker is given can expire there.
pub(super) fn expires(broker: &dyn PubSub) -> bool {
    broker.features().contains(&Feature::MessageTtl)
}

/// The envelope of `data`, of which `content_type` says what it is: text if it is empty, and a whole CloudEvent if it
/// says so, which is then completed.
///
/// # Errors
/// If it says that it is a CloudEvent, and is not.
pub(super) fn wrap(
    sender: &Sender<'_>,
    content_type: &str,
    data: &Bytes,
    metadata: &Metadata,
) -> Result<Bytes, serde_json::Error> {
    let expiration = if sender.broker_expires { None } else { expiration(metadata, SystemTime::now()) };
    if content_type::is_cloud_event(content_type) {
        return complete(sender, &String::from_utf8_lossy(data), expiration);
    }
    Ok(create(sender, content_type, data, &Overrides::of(metadata), expiration))
}

/// The envelope of `data`, as [`wrap`] makes it of what is no CloudEvent, with an id of its own.
pub(super) fn with_id(sender: &Sender<'_>, content_type: &str, data: &Bytes, id: &str) -> Bytes {
    create(sender, content_type, data, &Overrides { id: Some(id), ..Overrides::default() }, None)
}

/// An envelope with other attributes.
///
/// # Errors
/// If it is no JSON object.
pub(super) fn amend<'a>(
    envelope: &[u8],
    attributes: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Bytes, serde_json::Error> {
    let envelope = String::from_utf8_lossy(envelope);
    let mut event = json_members(json::members(&envelope)?);
    event.extend(attributes.map(|(name, value)| (Cow::Borrowed(name), quoted(value))));
    Ok(write(&event, envelope.len()))
}

/// What the publisher sets by `cloudevent.*`. An empty value is one.
#[derive(Default)]
struct Overrides<'a> {
    id: Option<&'a str>,
    source: Option<&'a str>,
    subject: Option<&'a str>,
    trace_id: Option<&'a str>,
    trace_parent: Option<&'a str>,
    trace_state: Option<&'a str>,
    type_name: Option<&'a str>,
}

impl<'a> Overrides<'a> {
    fn of(metadata: &'a Metadata) -> Self {
        let mut overrides = Self::default();
        for (name, value) in metadata {
            let Some((prefix, attribute)) = name.split_at_checked(OVERRIDES.len()) else { continue };
            if !prefix.eq_ignore_ascii_case(OVERRIDES) {
                continue;
            }
            let slot = match attribute.to_ascii_lowercase().as_str() {
                "id" => &mut overrides.id,
                "source" => &mut overrides.source,
                "subject" => &mut overrides.subject,
                "traceid" => &mut overrides.trace_id,
                "traceparent" => &mut overrides.trace_parent,
                "tracestate" => &mut overrides.trace_state,
                "type" => &mut overrides.type_name,
                _ => continue,
            };
            *slot = Some(value);
        }
        overrides
    }
}

fn create(
    sender: &Sender<'_>,
    content_type: &str,
    data: &Bytes,
    overrides: &Overrides<'_>,
    expiration: Option<SystemTime>,
) -> Bytes {
    fn or_default<'a>(overridden: Option<&'a str>, own: &'a str, default: &'a str) -> &'a str {
        match overridden.unwrap_or(own) {
            "" => default,
            value => value,
        }
    }
    let (parent, state) = sender.trace();
    // Both attributes are the trace's parent, as long as Dapr keeps the older one.
    let parent = or_default(overrides.trace_parent, "", overrides.trace_id.unwrap_or(parent));

    let mut object = ObjectWriter::with_capacity(FRAME_BYTES + data.len());
    let content_type = if content_type.is_empty() { "text/plain" } else { content_type };
    if content_type::is_binary(content_type) || content_type::is_protobuf(content_type) {
        object.base64("data_base64", data);
    } else if content_type::is_json(content_type) {
        object.json_or_text("data", &String::from_utf8_lossy(data));
    } else {
        object.text("data", &String::from_utf8_lossy(data));
    }
    object.text("datacontenttype", content_type);
    if let Some(at) = expiration {
        object.plain("expiration", humantime::format_rfc3339_seconds(at));
    }
    match overrides.id {
        Some(id) if !id.is_empty() => object.text("id", id),
        _ => object.plain("id", Uuid::new_v4()),
    }
    object.text("pubsubname", sender.pubsub);
    object.text("source", or_default(overrides.source, sender.app_id, "Dapr"));
    object.plain("specversion", "1.0");
    if let Some(subject) = overrides.subject.filter(|subject| !subject.is_empty()) {
        object.text("subject", subject);
    }
    object.plain("time", humantime::format_rfc3339_seconds(SystemTime::now()));
    object.text("topic", sender.topic);
    object.text("traceid", parent);
    object.text("traceparent", parent);
    object.text("tracestate", overrides.trace_state.unwrap_or(state));
    object.text("type", or_default(overrides.type_name, "com.dapr.event.sent", "com.dapr.event.sent"));
    object.finish()
}

/// Completes a CloudEvent of the publisher's: where it is published is always ours to say, the rest only if it is
/// missing.
fn complete(sender: &Sender<'_>, document: &str, expiration: Option<SystemTime>) -> Result<Bytes, serde_json::Error> {
    let quoted = |text: &str| Cow::Owned(serde_json::Value::from(text).to_string());
    let instant = |at: SystemTime| quoted(&humantime::format_rfc3339_seconds(at).to_string());
    let mut event = json_members(json::first_members(document)?);
    let (parent, state) = sender.trace();

    event.entry("time".into()).or_insert_with(|| instant(SystemTime::now()));
    if !event.contains_key("traceid") {
        event.insert("traceid".into(), quoted(parent));
        event.insert("traceparent".into(), quoted(parent));
    }
    event.entry("tracestate".into()).or_insert_with(|| quoted(state));
    event.insert("topic".into(), quoted(sender.topic));
    event.insert("pubsubname".into(), quoted(sender.pubsub));
    for (name, default) in [("source", "Dapr"), ("type", "com.dapr.event.sent"), ("specversion", "1.0")] {
        if event.get(name).is_none_or(|value| value == "null") {
            event.insert(name.into(), quoted(default));
        }
    }
    if let Some(at) = expiration {
        event.insert("expiration".into(), instant(at));
    }

    Ok(write(&event, document.len()))
}

/// Members by name, each as JSON.
type Members<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

fn json_members<'a>(members: Vec<(Cow<'a, str>, &'a str)>) -> Members<'a> {
    members.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect()
}

fn quoted(text: &str) -> Cow<'static, str> {
    Cow::Owned(serde_json::Value::from(text).to_string())
}

fn write(members: &Members<'_>, bytes: usize) -> Bytes {
    let mut object = ObjectWriter::with_capacity(FRAME_BYTES + bytes);
    for (name, value) in members {
        object.json_or_text(name, value);
    }
    object.finish()
}

/// When an event with this metadata expires. Dapr ignores what it cannot read.
fn expiration(metadata: &Metadata, now: SystemTime) -> Option<SystemTime> {
    let value = |key: &str| metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
    let text = value("ttl").or_else(|| value(TTL_IN_SECONDS))?;
    if text.parse::<i64>().is_ok_and(|seconds| seconds <= 0) {
        return None;
    }
    // A negative duration is over at once, unlike a negative number.
    let life = match text.strip_prefix('-') {
        Some(rest) => duration::parse(rest).map(|_| Duration::ZERO),
        None => duration::parse(text),
    };
    // The end of the calendar of RFC 3339 is far enough.
    const LONGEST: Duration = Duration::from_secs(3600 * 24 * 365 * 250);
    Some(now + life?.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn envelope_of(trace: &Trace, content_type: &str, data: &'static [u8], pairs: &[(&str, &str)]) -> String {
        let sender = Sender { app_id: "myapp", pubsub: "ps", topic: "a", trace, broker_expires: false };
        let wrapped = wrap(&sender, content_type, &Bytes::from_static(data), &metadata(pairs)).expect("an envelope");
        String::from_utf8(wrapped.to_vec()).expect("UTF-8")
    }

    fn envelope(content_type: &str, data: &'static [u8], pairs: &[(&str, &str)]) -> Value {
        serde_json::from_str(&envelope_of(&Trace::default(), content_type, data, pairs)).expect("JSON")
    }

    #[test]
    fn members_are_in_the_order_of_gos_encoder() {
        let text = envelope_of(
            &Trace::default(),
            "application/json",
            br#"{"b": 1, "a": "x<&>"}"#,
            &[("cloudevent.id", "ID1"), ("cloudevent.subject", "s"), ("ttlInSeconds", "10")],
        );
        let mut seen = text.clone();
        for name in ["expiration", "time"] {
            let from = seen.find(&format!("\"{name}\":\"")).expect(name) + name.len() + 4;
            seen.replace_range(from..from + 20, "TIME");
        }
        assert_eq!(
            seen,
            concat!(
                r#"{"data":{"a":"x\u003c\u0026\u003e","b":1},"datacontenttype":"application/json","expiration":"TIME","#,
                r#""id":"ID1","pubsubname":"ps","source":"myapp","specversion":"1.0","subject":"s","time":"TIME","#,
                r#""topic":"a","traceid":"","traceparent":"","tracestate":"","type":"com.dapr.event.sent"}"#
            )
        );
    }

    #[test]
    fn data_is_written_as_its_content_type_says() {
        for (content_type, data, expect) in [
            ("text/plain", &b"plain"[..], json!({ "data": "plain" })),
            ("", b"plain", json!({ "data": "plain" })),
            ("application/xml", b"<a/>", json!({ "data": "<a/>" })),
            ("application/json", b"not json", json!({ "data": "not json" })),
            ("application/json", b"", json!({ "data": "" })),
            ("application/json; charset=utf-8", b"[1] x", json!({ "data": [1] })),
            ("application/octet-stream", b"\x00\xff\x01", json!({ "data_base64": "AP8B" })),
            ("application/cloudevents+protobuf", b"\x00", json!({ "data_base64": "AA==" })),
        ] {
            let envelope = envelope(content_type, data, &[]);
            let media_type = if content_type.is_empty() { "text/plain" } else { content_type };
            assert_eq!(envelope["datacontenttype"], media_type);
            for member in ["data", "data_base64"] {
                assert_eq!(envelope.get(member), expect.get(member), "{content_type}");
            }
        }
    }

    #[test]
    fn the_publisher_overrides_attributes_but_not_where_and_what() {
        let pairs = [
            ("CloudEvent.Type", "T"),
            ("cloudevent.source", ""),
            ("cloudevent.tracestate", "k=v"),
            ("cloudevent.traceid", "I"),
            ("cloudevent.topic", "other"),
            ("cloudevent.data", "other"),
        ];
        let envelope = envelope("text/plain", b"d", &pairs);
        let read = |name: &str| envelope[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(["type", "source", "tracestate"].map(read), ["T", "Dapr", "k=v"]);
        assert_eq!(["traceid", "traceparent", "topic", "data"].map(read), ["I", "I", "a", "d"]);
    }

    #[test]
    fn the_trace_of_the_caller_is_in_the_envelope_unless_nobody_traces() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace =
            |parent| Trace { parent: Some(parent), state: Some(HeaderValue::from_static("k=v")), ..Trace::default() };
        let traced = envelope_of(&trace(HeaderValue::from_static(parent)), "", b"", &[]);
        let expect = format!(r#""traceid":"{parent}","traceparent":"{parent}","tracestate":"k=v""#);
        assert!(traced.contains(&expect), "{traced}");
        let untraced = envelope_of(&trace(ctx::UNTRACED), "", b"", &[]);
        assert!(untraced.contains(r#""traceid":"","traceparent":"","tracestate":"""#), "{untraced}");
    }

    #[test]
    fn a_cloud_event_is_completed_and_keeps_what_it_says() {
        const TYPE: &str = "application/cloudevents+json";
        let event = envelope(TYPE, br#"{"id":"1","source":null,"topic":"x","data":{"k":1.50},"ext":"e"} tail"#, &[]);
        let mut event = event.as_object().expect("an object").clone();
        event.remove("time").expect("a time");
        let expect = json!({
            "data": { "k": 1.5 }, "ext": "e", "id": "1", "pubsubname": "ps", "source": "Dapr", "specversion": "1.0",
            "topic": "a", "traceid": "", "traceparent": "", "tracestate": "", "type": "com.dapr.event.sent",
        });
        assert_eq!(Value::from(event), expect);
        let own = envelope(TYPE, br#"{"time":"t","traceid":"i","specversion":"0.3"}"#, &[("cloudevent.id", "no")]);
        assert_eq!([&own["time"], &own["traceid"], &own["specversion"]], ["t", "i", "0.3"]);
        assert!(own.get("traceparent").is_none() && own.get("id").is_none());
    }

    #[test]
    fn what_is_no_cloud_event_is_refused() {
        let trace = Trace::default();
        let sender = Sender { app_id: "myapp", pubsub: "ps", topic: "a", trace: &trace, broker_expires: false };
        for data in ["", "x", "[1]", "\"text\"", "{"] {
            let wrapped = wrap(&sender, "application/cloudevents+json", &data.into(), &Metadata::new());
            assert!(wrapped.is_err(), "{data}");
        }
    }

    #[test]
    fn an_expiration_is_read_as_dapr_reads_it() {
        let now = SystemTime::UNIX_EPOCH;
        for (pairs, seconds) in [
            (&[("ttlInSeconds", "10")][..], Some(10)),
            (&[("TTLINSECONDS", "10")], Some(10)),
            (&[("ttlInSeconds", "10"), ("ttl", "1m")], Some(60)),
            (&[("ttlInSeconds", "0")], None),
            (&[("ttlInSeconds", "-1")], None),
            (&[("ttlInSeconds", "-1s")], Some(0)),
            (&[("ttlInSeconds", "soon")], None),
            (&[("ttlInSeconds", "")], None),
            (&[], None),
        ] {
            let expect = seconds.map(|seconds| now + Duration::from_secs(seconds));
            assert_eq!(expiration(&metadata(pairs), now), expect, "{pairs:?}");
        }
        let trace = Trace::default();
        let sender = Sender { app_id: "myapp", pubsub: "ps", topic: "a", trace: &trace, broker_expires: true };
        let wrapped = wrap(&sender, "", &Bytes::new(), &metadata(&[("ttlInSeconds", "10")])).expect("an envelope");
        assert!(!String::from_utf8_lossy(&wrapped).contains("expiration"));
    }
}
