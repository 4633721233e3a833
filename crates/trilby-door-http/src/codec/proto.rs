//! JSON of protobuf messages, as Go's `protojson` reads it.

use serde::de::DeserializeOwned;
use serde_json::error::Category;
use trilby_core::Result;

/// Decodes a message. An empty body is a message without anything; names that are not known are skipped.
///
/// # Errors
/// In the decoder's words as far as they are known: what kind of fault it is and where.
pub(crate) fn decode_proto<T: DeserializeOwned + Default>(text: &[u8]) -> Result<T> {
    let trimmed = text.trim_ascii_start();
    if trimmed.is_empty() {
        return Ok(T::default());
    }
    if trimmed[0] != b'{' {
        let line = text[..text.len() - trimmed.len()].split(|byte| *byte == b'\n').count();
        let token = token(trimmed);
        let fault = match trimmed[0] {
            _ if serde_json::from_slice::<serde_json::Value>(trimmed).is_ok() => "unexpected token",
            b'[' => "unexpected token",
            _ => "invalid value",
        };
        return Err(super::undecodable(format_args!("proto: syntax error (line {line}:1): {fault} {token}")));
    }
    serde_json::from_slice(trimmed).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let reason = error.to_string();
        let reason = reason.split_once(" at line ").map_or(reason.as_str(), |(reason, _)| reason);
        let kind = if error.classify() == Category::Data { "" } else { "syntax error " };
        super::undecodable(format_args!("proto: {kind}(line {line}:{column}): {reason}"))
    })
}

/// The first token of a text, as far as an error shows it.
fn token(text: &[u8]) -> String {
    let length = match text[0] {
        b'[' | b']' | b'}' | b',' | b':' => 1,
        _ => text.iter().position(|byte| b" \t\r\n,]}".contains(byte)).unwrap_or(text.len()),
    };
    String::from_utf8_lossy(&text[..length.min(64)]).into_owned()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Message {
        number: Option<u8>,
    }

    #[test]
    fn a_message_may_be_empty_and_hold_what_is_not_known() {
        for (text, expect) in [("", None), (" \n", None), ("{}", None), (r#"{"number":7,"x":[1]}"#, Some(7))] {
            assert_eq!(decode_proto::<Message>(text.as_bytes()).expect(text), Message { number: expect });
        }
    }

    #[test]
    fn what_is_no_message_is_said_as_protojson_says_it() {
        for (text, expect) in [
            ("x", "proto: syntax error (line 1:1): invalid value x"),
            ("[]", "proto: syntax error (line 1:1): unexpected token ["),
            ("null", "proto: syntax error (line 1:1): unexpected token null"),
            ("5", "proto: syntax error (line 1:1): unexpected token 5"),
            (r#"{"number":"x"}"#, "proto: (line 1:13): invalid type: string \"x\", expected u8"),
            ("{", "proto: syntax error (line 1:1): EOF while parsing an object"),
        ] {
            let error = decode_proto::<Message>(text.as_bytes()).expect_err(text);
            assert_eq!(error.message(), format!("failed deserializing HTTP body: {expect}"));
        }
    }
}
