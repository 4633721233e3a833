//! What every method of this door shares: parameters in path and query, bodies in and out.

mod fault;
mod json;
mod proto;
pub(crate) mod storable;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header::CONTENT_TYPE};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use trilby_component::Metadata;
use trilby_core::{Body, Code, Ctx, Error, Response, Result, body::CollectError};

pub(crate) use json::{Expected, decode, encode};
pub(crate) use proto::decode_proto;

use crate::Inner;

/// How much of a body that is too large is read and thrown away, so that its sender gets to see the answer instead of
/// a connection that breaks while it still writes.
const DRAINED_BYTES: usize = 16 << 20;

/// Room for the prefix that the state block puts in front of a key, so that it need not allocate again.
const KEY_PREFIX_BYTES: usize = 48;

/// A request as the methods of this door see it, but for its body.
pub(crate) struct Call<'a> {
    pub(crate) door: &'a Inner,
    pub(crate) ctx: &'a Ctx,
    /// The store that the path names; empty where a path names none.
    pub(crate) store: Cow<'a, str>,
    pub(crate) key: Cow<'a, str>,
    pub(crate) query: Query<'a>,
    pub(crate) headers: &'a HeaderMap,
}

impl Call<'_> {
    /// The key, with room for a prefix.
    pub(crate) fn state_key(&self) -> String {
        let mut key = String::with_capacity(self.key.len() + KEY_PREFIX_BYTES);
        key.push_str(&self.key);
        key
    }

    /// Reads a JSON body to its end. As in Go, what is no UTF-8 becomes U+FFFD.
    pub(crate) async fn json_body(&self, body: Body) -> Result<Bytes> {
        let read = collect(body, self.door.options.max_body_bytes).await;
        let read = read.map_err(|error| malformed(error.to_string()))?;
        Ok(match String::from_utf8_lossy(&read) {
            Cow::Borrowed(_) => read,
            Cow::Owned(text) => text.into(),
        })
    }

    /// Reads a body to its end, for methods that have words of their own for what can go wrong.
    pub(crate) async fn bytes(&self, body: Body) -> Result<Bytes, CollectError> {
        collect(body, self.door.options.max_body_bytes).await
    }

    /// Reads a body that is taken as it is.
    pub(crate) async fn raw_body(&self, body: Body) -> Result<Bytes> {
        let read = collect(body, self.door.options.max_body_bytes).await;
        read.map_err(|error| Error::new(Code::BodyRead, format!("failed to read request body: {error}")))
    }
}

/// The query of a URI, decoded as it is read. Pairs that Go drops are dropped.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Self {
        Self(uri.query().unwrap_or_default())
    }

    /// The first value of a parameter.
    pub(crate) fn get(self, name: &str) -> Option<Cow<'a, str>> {
        self.pairs().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    /// Every value of a parameter, in order.
    pub(crate) fn all(self, name: &'static str) -> impl Iterator<Item = Cow<'a, str>> {
        self.pairs().filter(move |(given, _)| given == name).map(|(_, value)| value)
    }

    /// The parameters `metadata.NAME`; of several with one name the first.
    pub(crate) fn metadata(self) -> Metadata {
        let mut metadata = Metadata::new();
        for (name, value) in self.pairs() {
            if let Some(name) = name.strip_prefix("metadata.") {
                metadata.entry(name.to_owned()).or_insert_with(|| value.into_owned());
            }
        }
        metadata
    }

    fn pairs(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        self.0.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(name)?, unescape(value)?))
        })
    }
}

/// Whether each `%` starts an escape. Go's server refuses other paths before it routes them.
pub(crate) fn is_well_escaped(text: &str) -> bool {
    let is_escape = |rest: &[u8]| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    text.bytes().enumerate().all(|(at, byte)| byte != b'%' || is_escape(&text.as_bytes()[at + 1..]))
}

/// Undoes query escaping, where `+` is a space; daprd does the same to the parameters of a path. `None` if the text
/// is badly escaped or not UTF-8.
pub(crate) fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    if !is_well_escaped(text) {
        return None;
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(Cow::Owned(decoded.into_owned()))
}

/// Passes a body on that may become no longer than `limit` bytes while it streams.
pub(crate) async fn limit(body: Body, limit: usize) -> Result<Body, CollectError> {
    let size = body.size_hint();
    match body {
        _ if size.lower() > limit as u64 => {
            drain(body).await;
            Err(CollectError::TooLarge(limit))
        }
        Body::Stream(stream) if size.upper().is_none_or(|upper| upper > limit as u64) => {
            Ok(Body::stream(Limited::new(stream, limit)))
        }
        body => Ok(body),
    }
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, CollectError> {
    if body.size_hint().lower() > limit as u64 {
        drain(body).await;
        return Err(CollectError::TooLarge(limit));
    }
    match body {
        Body::Empty => Ok(Bytes::new()),
        Body::Full(bytes) => Ok(bytes),
        Body::Stream(mut stream) => {
            let mut parts = Vec::new();
            let mut length = 0;
            while let Some(frame) = stream.frame().await {
                let Ok(part) = frame.map_err(CollectError::Broken)?.into_data() else { continue };
                length += part.len();
                if length > limit {
                    drain(Body::Stream(stream)).await;
                    return Err(CollectError::TooLarge(limit));
                }
                parts.push(part);
            }
            // Most bodies come in one piece, which is then used as it is.
            Ok(if parts.len() == 1 { parts.remove(0) } else { parts.concat().into() })
        }
    }
}

async fn drain(mut body: Body) {
    let mut left = DRAINED_BYTES;
    while left > 0
        && let Some(Ok(frame)) = body.frame().await
    {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
}

/// A body that is not what the call needs.
pub(crate) fn malformed(message: impl Into<String>) -> Error {
    Error::new(Code::MalformedRequest, message)
}

/// Most of Dapr's methods put this in front of what is wrong with a body; saving state does not.
pub(crate) fn undecodable(reason: impl std::fmt::Display) -> Error {
    malformed(format!("failed deserializing HTTP body: {reason}"))
}

/// 204.
pub(crate) fn no_content() -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// 200 with JSON text.
pub(crate) fn json(text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 200 with a value as Go's encoder writes it to a stream: followed by a line feed.
pub(crate) fn json_line(value: &impl Serialize) -> Response {
    let mut text = encode(value);
    text.push(b'\n');
    json(text)
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn query(text: &str) -> Query<'_> {
        Query(text)
    }

    #[test]
    fn query_parameters_are_read_as_go_reads_them() {
        assert_eq!(query("a=1&a=2").get("a").as_deref(), Some("1"));
        assert_eq!(query("x=y%20z+w").get("x").as_deref(), Some("y z w"));
        assert_eq!(query("flag").get("flag").as_deref(), Some(""));
        assert_eq!(query("a=%zz&b=;&c=3").get("a"), None);
        assert_eq!(query("a=%zz&b=;&c=3").get("b"), None);
        assert_eq!(query("a=%zz&b=;&c=3").get("c").as_deref(), Some("3"));
        assert_eq!(query("").get("a"), None);
    }

    #[test]
    fn the_first_metadata_parameter_of_a_name_counts() {
        let metadata =
            query("metadata.ttlInSeconds=5&metadata.ttlInSeconds=6&consistency=strong&metadata.a%20b=c").metadata();
        assert_eq!(metadata, [("a b".into(), "c".into()), ("ttlInSeconds".into(), "5".into())].into());
    }

    #[test]
    fn a_percent_sign_without_two_digits_is_no_escape() {
        for bad in ["%", "a%", "a%2", "%zz", "%2", "a%2%20"] {
            assert!(!is_well_escaped(bad), "{bad}");
        }
        assert!(is_well_escaped("/a%20b%2Fc"));
    }

    #[tokio::test]
    async fn a_streamed_body_is_cut_at_the_limit_and_a_known_length_is_refused_at_once() {
        let known = limit(Body::from(vec![0; 5]), 4).await;
        assert!(matches!(known, Err(CollectError::TooLarge(4))));
        let unknown = limit(three_chunks(), 2).await.expect("its length is not known yet");
        assert!(unknown.collect(10).await.is_err());
        assert!(matches!(collect(three_chunks(), 2).await, Err(CollectError::TooLarge(2))));
        assert_eq!(collect(three_chunks(), 3).await.expect("fits"), "xxx");
    }

    fn three_chunks() -> Body {
        let chunks = (0..3).map(|_| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(b"x"))));
        Body::stream(StreamBody::new(futures_util::stream::iter(chunks)))
    }
}
