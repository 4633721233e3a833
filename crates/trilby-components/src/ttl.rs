//! `ttl` or `ttlInSeconds` of a message or a call, as Dapr reads it outside of state stores.

use std::time::Duration;

use trilby_component::{ComponentError, Metadata, Result, properties::duration};

/// The life that the metadata ask for; `None` if they do not.
///
/// # Errors
/// `InvalidRequest` if it is neither a Go duration nor a positive number of seconds.
pub(crate) fn parse(metadata: &Metadata) -> Result<Option<Duration>> {
    let find = |name: &str| metadata.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, text)| &**text);
    let text = match find("ttl").or_else(|| find("ttlInSeconds")) {
        None | Some("") => return Ok(None),
        Some(text) => text,
    };
    let seconds = match text.parse::<i64>() {
        Ok(0..) => text,
        Ok(seconds) => return Err(refuse(format!("be higher than zero: actual is '{seconds}'"))),
        // As with Dapr, a negative duration is none at all, unlike a negative number.
        Err(_) => match text.strip_prefix('-') {
            Some(positive) if duration::parse(positive).is_some() => "0",
            _ => text,
        },
    };
    match duration::parse(seconds) {
        Some(life) => Ok(Some(life)),
        None => Err(refuse(format!("be a valid integer: actual is '{text}'"))),
    }
}

fn refuse(reason: String) -> ComponentError {
    ComponentError::request(format!("ttl value must {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Result<Option<Duration>> {
        parse(&Metadata::from([(name.to_owned(), text.to_owned())]))
    }

    #[test]
    fn seconds_and_durations_are_read_under_both_names() {
        for (name, text, millis) in [
            ("ttlInSeconds", "10", 10_000),
            ("ttl", "10", 10_000),
            ("TTL", "1m30s", 90_000),
            ("ttlinseconds", "500ms", 500),
            ("ttl", "0", 0),
            ("ttl", "-5s", 0),
        ] {
            assert_eq!(of(name, text).expect("valid"), Some(Duration::from_millis(millis)), "{name} {text}");
        }
        assert_eq!(of("ttl", "").expect("valid"), None);
        assert_eq!(parse(&Metadata::new()).expect("valid"), None);
    }

    #[test]
    fn nonsense_is_refused_in_the_words_of_dapr() {
        for (text, message) in [
            ("abc", "ttl value must be a valid integer: actual is 'abc'"),
            ("-1", "ttl value must be higher than zero: actual is '-1'"),
            ("1.5", "ttl value must be a valid integer: actual is '1.5'"),
        ] {
            assert_eq!(of("ttlInSeconds", text).expect_err(text).to_string(), message);
        }
    }
}
