//! Between protobuf and the blocks' own types.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName};
use trilby_component::{
    Metadata,
    state::{Concurrency, Consistency, DeleteRequest, SetRequest, Value, WriteOptions},
};
use trilby_core::{Ctx, ctx::Trace};
use trilby_proto::common::v1::{
    Etag, StateItem, StateOptions,
    state_options::{StateConcurrency, StateConsistency},
};

/// How long a caller waits; gRPC's, not the app's.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The context of a call with this metadata.
pub(crate) fn ctx(metadata: &HeaderMap) -> Ctx {
    let timeout = metadata.get(GRPC_TIMEOUT).and_then(|value| parse_timeout(value.to_str().ok()?));
    Ctx { trace: Trace::from_headers(metadata), deadline: timeout.and_then(|after| Instant::now().checked_add(after)) }
}

/// Protobuf maps have no order, ours do.
pub(crate) fn from_map(map: HashMap<String, String>) -> Metadata {
    map.into_iter().collect()
}

pub(crate) fn to_map(metadata: Metadata) -> HashMap<String, String> {
    metadata.into_iter().collect()
}

pub(crate) fn consistency(wire: i32) -> Consistency {
    match StateConsistency::try_from(wire) {
        Ok(StateConsistency::ConsistencyEventual) => Consistency::Eventual,
        Ok(StateConsistency::ConsistencyStrong) => Consistency::Strong,
        Ok(StateConsistency::ConsistencyUnspecified) | Err(_) => Consistency::Unspecified,
    }
}

/// A write of bytes, whatever its metadata say. Dapr's transactions know no other.
pub(crate) fn set_bytes(item: StateItem) -> SetRequest {
    SetRequest {
        key: item.key,
        value: Value::Bytes(item.value),
        etag: etag(item.etag),
        options: write_options(item.options),
        metadata: from_map(item.metadata),
    }
}

/// A write of JSON if its metadata say so, else of bytes.
pub(crate) fn set(item: StateItem) -> SetRequest {
    let mut request = set_bytes(item);
    if request.metadata.get("contentType").is_some_and(|content_type| content_type == "application/json")
        && let Value::Bytes(text) = request.value
    {
        request.value = Value::Json(text);
    }
    request
}

pub(crate) fn delete(item: StateItem) -> DeleteRequest {
    DeleteRequest {
        key: item.key,
        etag: etag(item.etag),
        options: write_options(item.options),
        metadata: from_map(item.metadata),
    }
}

pub(crate) fn etag(wire: Option<Etag>) -> Option<String> {
    wire.map(|etag| etag.value)
}

pub(crate) fn write_options(wire: Option<StateOptions>) -> WriteOptions {
    let Some(wire) = wire else { return WriteOptions::default() };
    let concurrency = match StateConcurrency::try_from(wire.concurrency) {
        Ok(StateConcurrency::ConcurrencyFirstWrite) => Concurrency::FirstWrite,
        Ok(StateConcurrency::ConcurrencyLastWrite) => Concurrency::LastWrite,
        Ok(StateConcurrency::ConcurrencyUnspecified) | Err(_) => Concurrency::Unspecified,
    };
    WriteOptions { concurrency, consistency: consistency(wire.consistency) }
}

/// Up to eight digits and a unit, as gRPC's protocol over HTTP/2 has it. `None` for anything else.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The shortest `grpc-timeout` that is not over before `deadline`.
pub(crate) fn format_timeout(deadline: Instant) -> String {
    const LARGEST: u128 = 99_999_999;
    let left = deadline.saturating_duration_since(Instant::now());
    match left.as_micros() {
        micros if micros <= LARGEST => format!("{micros}u"),
        _ => format!("{}m", left.as_millis().min(LARGEST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit() {
        for (text, expect) in [
            ("5S", Some(Duration::from_secs(5))),
            ("100m", Some(Duration::from_millis(100))),
            ("2H", Some(Duration::from_secs(7200))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("S", None),
            ("5", None),
            ("+5S", None),
            ("123456789S", None),
            ("5é", None),
        ] {
            assert_eq!(parse_timeout(text), expect, "{text}");
        }
        let far = format_timeout(Instant::now() + Duration::from_secs(1_000_000));
        assert!(far.ends_with('m') && parse_timeout(&far).is_some_and(|left| left.as_secs() > 99_990), "{far}");
    }

    #[test]
    fn only_the_exact_content_type_makes_a_value_json() {
        for (content_type, json) in
            [("application/json", true), ("application/json; charset=utf-8", false), ("", false)]
        {
            let metadata = HashMap::from([("contentType".to_owned(), content_type.to_owned())]);
            let item = StateItem { metadata, ..StateItem::default() };
            assert_eq!(matches!(set(item.clone()).value, Value::Json(_)), json, "{content_type}");
            assert!(matches!(set_bytes(item).value, Value::Bytes(_)));
        }
    }
}
