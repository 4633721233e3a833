//! Between Dapr's metadata and AMQP's properties of a message.

use lapin::{BasicProperties, types::AMQPValue};
use trilby_component::{ComponentError, Metadata, Result};

use super::name;

/// What Dapr says of a message whose metadata do not say more.
const CONTENT_TYPE: &str = "text/plain";

/// Properties from request metadata, whose names are compared without case: `contentType`, `messageID`,
/// `correlationID`, `type` and `priority`.
///
/// # Errors
/// `InvalidRequest` if one is longer than 255 bytes, or `priority` is not a number.
pub(crate) fn properties_of(metadata: &Metadata) -> Result<BasicProperties> {
    let content_type = find(metadata, "contentType").unwrap_or(CONTENT_TYPE);
    let mut properties = BasicProperties::default().with_content_type(name("contentType", content_type)?);
    if let Some(id) = find(metadata, "messageID") {
        properties = properties.with_message_id(name("messageID", id)?);
    }
    if let Some(id) = find(metadata, "correlationID") {
        properties = properties.with_correlation_id(name("correlationID", id)?);
    }
    if let Some(kind) = find(metadata, "type") {
        properties = properties.with_type(name("type", kind)?);
    }
    if let Some(text) = metadata.get("priority").filter(|text| !text.is_empty()) {
        let priority: i64 = text.parse().map_err(|_| {
            ComponentError::request(format!("priority value must be a valid integer: actual is '{text}'"))
        })?;
        // As in Dapr, what is out of range becomes the nearest that is not.
        properties = properties.with_priority(u8::try_from(priority.clamp(0, 255)).unwrap_or(u8::MAX));
    }
    Ok(properties)
}

/// A header's value as text; `None` for one that has no text.
pub(crate) fn header_text(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into_owned(),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Float(value) => value.to_string(),
        AMQPValue::Double(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        _ => return None,
    })
}

fn find<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    let exact = metadata.get(name);
    let found = exact.or_else(|| metadata.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v));
    found.map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn metadata_become_properties_whatever_their_case() {
        let pairs =
            [("MessageID", "m"), ("correlationid", "c"), ("TYPE", "t"), ("contentType", "a/b"), ("priority", "7")];
        let expected = BasicProperties::default()
            .with_content_type("a/b".into())
            .with_message_id("m".into())
            .with_correlation_id("c".into())
            .with_type("t".into())
            .with_priority(7);
        assert_eq!(properties_of(&metadata(&pairs)).expect("valid"), expected);
        let plain = BasicProperties::default().with_content_type("text/plain".into());
        assert_eq!(properties_of(&Metadata::new()).expect("valid"), plain);
    }

    #[test]
    fn a_priority_out_of_range_is_the_nearest_in_range() {
        for (text, expected) in [("-1", 0), ("300", 255), ("9", 9)] {
            let properties = properties_of(&metadata(&[("priority", text)])).expect("valid");
            assert_eq!(*properties.priority(), Some(expected));
        }
        assert!(properties_of(&metadata(&[("priority", "high")])).is_err());
    }

    #[test]
    fn what_is_too_long_for_the_wire_is_refused() {
        assert!(properties_of(&metadata(&[("messageID", &"m".repeat(256))])).is_err());
    }
}
