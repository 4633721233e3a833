//! Entries of a stream: their ids, and how they are read from Redis's replies.

use std::fmt;

use bytes::Bytes;
use redis::{RedisWrite, ToRedisArgs, Value as Reply};
use trilby_component::{
    Metadata,
    json::{self, Style},
};

/// Id of an entry, by which a stream is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    millis: u64,
    sequence: u64,
}

impl Id {
    /// Below every id that Redis gives.
    pub(super) const MIN: Self = Self { millis: 0, sequence: 0 };

    /// The lowest id above this one.
    pub(super) fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self { sequence, ..self },
            None => Self { millis: self.millis.saturating_add(1), sequence: 0 },
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (millis, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { millis: millis.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

impl ToRedisArgs for Id {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}

/// A message as a stream holds it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: Id,
    pub(super) data: Bytes,
    pub(super) metadata: Metadata,
}

impl Entry {
    /// Reads `[id, [field, value, …]]`; `None` if the entry itself is gone.
    fn decode(reply: Reply) -> Option<Self> {
        let Reply::Array(parts) = reply else { return None };
        let [id, Reply::Array(fields)] = <[Reply; 2]>::try_from(parts).ok()? else { return None };
        let mut entry = Self { id: decode_id(&id)?, data: Bytes::new(), metadata: Metadata::new() };
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match (bytes(&name), value) {
                (b"data", Reply::BulkString(data)) => entry.data = data.into(),
                (b"metadata", Reply::BulkString(text)) => entry.metadata = decode_metadata(entry.id, &text),
                _ => {}
            }
        }
        Some(entry)
    }
}

/// The entries in a reply to XREADGROUP about one stream.
pub(super) fn decode_read(reply: Reply) -> Vec<Entry> {
    let entries = match reply {
        // With RESP3 a map from streams to entries, with RESP2 a list of pairs.
        Reply::Map(mut streams) => streams.pop().map(|(_, entries)| entries),
        Reply::Array(mut streams) => match streams.pop() {
            Some(Reply::Array(mut pair)) => pair.pop(),
            _ => None,
        },
        _ => None,
    };
    entries.map(decode_entries).unwrap_or_default()
}

/// The entries in a list of them, without those that are gone.
pub(super) fn decode_entries(reply: Reply) -> Vec<Entry> {
    match reply {
        Reply::Array(entries) => entries.into_iter().filter_map(Entry::decode).collect(),
        _ => Vec::new(),
    }
}

/// An entry that somebody in the group has in hand, or had.
pub(super) struct Pending {
    pub(super) id: Id,
    /// Time since it was last delivered or claimed, in milliseconds.
    pub(super) idle_millis: u64,
}

/// Reads a reply to XPENDING with a range.
pub(super) fn decode_pending(reply: Reply) -> Vec<Pending> {
    let decode = |row| match row {
        Reply::Array(row) => match &row[..] {
            [id, _consumer, Reply::Int(idle), ..] => {
                Some(Pending { id: decode_id(id)?, idle_millis: u64::try_from(*idle).unwrap_or(0) })
            }
            _ => None,
        },
        _ => None,
    };
    match reply {
        Reply::Array(rows) => rows.into_iter().filter_map(decode).collect(),
        _ => Vec::new(),
    }
}

/// As Go's encoder writes a map.
pub(super) fn encode_metadata(metadata: &Metadata) -> Bytes {
    if metadata.is_empty() {
        return Bytes::from_static(b"{}");
    }
    let text = serde_json::to_vec(metadata).expect("texts by texts are JSON");
    json::reencode(&text, Style::Standard).expect("it was just written")
}

fn decode_metadata(id: Id, text: &[u8]) -> Metadata {
    serde_json::from_slice(text).unwrap_or_else(|error| {
        // Dapr delivers such an entry too.
        tracing::warn!(%id, %error, "the metadata of an entry are not a JSON object of strings");
        Metadata::new()
    })
}

fn decode_id(reply: &Reply) -> Option<Id> {
    Id::parse(bytes(reply))
}

fn bytes(reply: &Reply) -> &[u8] {
    match reply {
        Reply::BulkString(bytes) => bytes,
        Reply::SimpleString(text) => text.as_bytes(),
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::BulkString(text.into())
    }

    fn entry(id: &str, fields: &[&str]) -> Reply {
        Reply::Array(vec![text(id), Reply::Array(fields.iter().map(|field| text(field)).collect())])
    }

    #[test]
    fn entries_are_read_in_both_protocols() {
        let entries = || Reply::Array(vec![entry("5-1", &["data", "x", "metadata", r#"{"a":"b"}"#]), Reply::Nil]);
        let expected = vec![Entry {
            id: Id { millis: 5, sequence: 1 },
            data: "x".into(),
            metadata: Metadata::from([("a".to_owned(), "b".to_owned())]),
        }];
        let old = Reply::Array(vec![Reply::Array(vec![text("topic"), entries()])]);
        assert_eq!(decode_read(old), expected);
        assert_eq!(decode_read(Reply::Map(vec![(text("topic"), entries())])), expected);
        assert_eq!(decode_entries(entries()), expected);
        assert_eq!(decode_read(Reply::Nil), []);
    }

    #[test]
    fn an_entry_of_somebody_else_is_delivered_as_far_as_it_can_be_read() {
        let read = decode_entries(Reply::Array(vec![entry("1-0", &["other", "x"]), entry("2-0", &["metadata", "["])]));
        assert_eq!(read.len(), 2);
        assert!(read.iter().all(|entry| entry.data.is_empty() && entry.metadata.is_empty()));
    }

    #[test]
    fn the_id_after_the_last_of_a_millisecond_is_in_the_next() {
        assert_eq!(Id { millis: 7, sequence: 0 }.next().to_string(), "7-1");
        assert_eq!(Id { millis: 7, sequence: u64::MAX }.next().to_string(), "8-0");
    }

    #[test]
    fn metadata_are_written_as_go_does() {
        let metadata = Metadata::from([("x".to_owned(), "<y>".to_owned()), ("a".to_owned(), "\"".to_owned())]);
        assert_eq!(encode_metadata(&metadata), r#"{"a":"\"","x":"\u003cy\u003e"}"#);
        assert_eq!(encode_metadata(&Metadata::new()), "{}");
    }
}
