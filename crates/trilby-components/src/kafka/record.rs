//! Between Dapr's metadata and a record of Kafka.

use bytes::Bytes;
use krafka::{Record, consumer::ConsumerRecord};
use regex::Regex;
use trilby_component::{ComponentError, Metadata, Result};

use super::Config;
use crate::escape;

/// Names of metadata that Kafka itself understands: the key, by two names, and the partition.
const KEY: [&str; 2] = ["partitionKey", "__key"];
const PARTITION: &str = "partitionNumber";
/// Names of metadata that say how the value is encoded.
const SCHEMA: &str = "valueSchemaType";

/// How metadata become headers and headers metadata.
#[derive(Clone)]
pub(crate) struct Headers {
    excluded: Option<Regex>,
    escaped: bool,
}

impl Headers {
    /// # Errors
    /// `InvalidMetadata` if the pattern does not parse.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let pattern = &config.exclude_header_meta_regex;
        let excluded = match pattern.as_str() {
            "" => None,
            pattern => Some(Regex::new(pattern).map_err(|error| {
                ComponentError::metadata(format!("metadata excludeHeaderMetaRegex does not parse: {error}"))
            })?),
        };
        Ok(Self { excluded, escaped: config.escape_headers })
    }

    /// The record that is sent. As with Dapr, the value `null` is none at all.
    ///
    /// # Errors
    /// `InvalidRequest` if the partition is not a number, or a schema is asked for.
    pub(super) fn record<'a>(
        &self,
        topic: &str,
        data: &Bytes,
        metadata: impl Iterator<Item = (&'a String, &'a String)>,
    ) -> Result<Record> {
        let mut record = Record::new(topic, data.clone());
        if data.is_empty() || &data[..] == b"null" {
            record = record.without_value();
        }
        for (name, value) in metadata {
            if KEY.contains(&name.as_str()) {
                record = record.key(value.clone());
            } else if name == PARTITION {
                record = record.partition(partition(value)?);
            } else if name.eq_ignore_ascii_case(SCHEMA) && !value.eq_ignore_ascii_case("none") {
                return Err(ComponentError::request("schema registry details not set"));
            }
            if !self.excludes(name) {
                record = record.header(name.clone(), value.clone());
            }
        }
        Ok(record)
    }

    /// What an app is told of a record.
    pub(crate) fn metadata(&self, record: &ConsumerRecord) -> Metadata {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            if self.escaped { escape::query(&text) } else { text.into_owned() }
        };
        let mut metadata = Metadata::new();
        if let Some(key) = &record.key {
            metadata.insert("__key".to_owned(), text(key));
        }
        metadata.insert("__offset".to_owned(), record.offset.to_string());
        metadata.insert("__topic".to_owned(), record.topic.to_string());
        metadata.insert("__timestamp".to_owned(), record.timestamp.to_string());
        metadata.insert("__partition".to_owned(), record.partition.to_string());
        for (name, value) in record.headers.iter().filter(|(name, _)| !self.excludes(name)) {
            metadata.insert(name.clone(), value.as_ref().map_or_else(String::new, |value| text(value)));
        }
        metadata
    }

    fn excludes(&self, name: &str) -> bool {
        self.excluded.as_ref().is_some_and(|pattern| pattern.is_match(name))
    }
}

/// What an app is given for a record. As with Dapr, no value at all is `null`.
pub(crate) fn value(record: &ConsumerRecord) -> Bytes {
    record.value.clone().unwrap_or(Bytes::from_static(b"null"))
}

fn partition(text: &str) -> Result<i32> {
    match text.parse::<i32>() {
        Ok(number) if number >= 0 => Ok(number),
        Ok(number) => Err(ComponentError::request(format!("partitionNumber must be non-negative, got {number}"))),
        Err(_) => {
            Err(ComponentError::request(format!("invalid partitionNumber metadata value {text:?}, expected a number")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        let own = [("brokers", "h:1"), ("authType", "none")];
        let config = Config::parse(&own.iter().chain(pairs).copied().collect()).expect("valid");
        Headers::new(&config).expect("valid")
    }

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn metadata_become_headers_and_a_key_and_a_partition() {
        let given = metadata(&[("partitionKey", "k"), ("partitionNumber", "2"), ("trace", "t"), ("secret", "s")]);
        let headers = headers(&[("excludeHeaderMetaRegex", "^sec")]);
        let record = headers.record("orders", &Bytes::from_static(b"v"), given.iter()).expect("valid");
        assert_eq!((record.key.as_deref(), record.partition), (Some(&b"k"[..]), Some(2)));
        let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["partitionKey", "partitionNumber", "trace"]);
    }

    #[test]
    fn null_is_no_value_going_out_and_comes_in_as_null() {
        for data in ["null", ""] {
            let record = headers(&[]).record("t", &Bytes::from_static(data.as_bytes()), Metadata::new().iter());
            assert_eq!(record.expect("valid").value, None);
        }
        assert_eq!(value(&ConsumerRecord::new("t", 0, 0, None, None)), "null");
        assert_eq!(value(&ConsumerRecord::new("t", 0, 0, None, Some("x".into()))), "x");
    }

    #[test]
    fn partitions_are_numbers_and_schemas_are_not_there() {
        for (name, text) in [("partitionNumber", "-1"), ("partitionNumber", "x"), ("valueSchemaType", "Avro")] {
            let given = metadata(&[(name, text)]);
            assert!(headers(&[]).record("t", &Bytes::new(), given.iter()).is_err(), "{name} {text}");
        }
    }

    #[test]
    fn an_app_is_told_where_a_record_is_from() {
        let mut record = ConsumerRecord::new("orders", 3, 17, Some("a b".into()), None);
        record.timestamp = 1;
        record.headers = vec![("h".to_owned(), Some("x/y".into())), ("empty".to_owned(), None)];
        let own =
            [("__offset", "17"), ("__topic", "orders"), ("__timestamp", "1"), ("__partition", "3"), ("empty", "")];
        let plain = [&own[..], &[("__key", "a b"), ("h", "x/y")]].concat();
        assert_eq!(headers(&[]).metadata(&record), metadata(&plain));
        let escaped = [&own[..], &[("__key", "a+b"), ("h", "x%2Fy")]].concat();
        assert_eq!(headers(&[("escapeHeaders", "true")]).metadata(&record), metadata(&escaped));
    }
}
