//! JSON in Go's way: what its decoder lets pass and says, and how its encoder escapes.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{
    error::Category,
    ser::{Formatter, Serializer},
};

use super::fault;

/// What Go would decode a body into; named in its error texts.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    /// `[` or `{`.
    pub(crate) opening: u8,
    pub(crate) go_type: &'static str,
}

/// Decodes the first JSON value of `text`. As in Go, what follows it is not looked at, and a body of `null` is the
/// type's default.
///
/// # Errors
/// Go's text, where that is known.
pub(crate) fn decode<'a, T: Deserialize<'a> + Default>(text: &'a [u8], expected: Expected) -> Result<T, String> {
    let mut input = serde_json::Deserializer::from_slice(text);
    match Option::deserialize(&mut input) {
        Ok(value) => Ok(value.unwrap_or_default()),
        Err(error) => Err(describe(text.trim_ascii_start(), &error, expected)),
    }
}

fn describe(text: &[u8], error: &serde_json::Error, expected: Expected) -> String {
    match (error.classify(), text.first()) {
        (_, None) => "EOF".to_owned(),
        (Category::Data, Some(&first)) if first != expected.opening => {
            let kind = match first {
                b'{' => "object",
                b'[' => "array",
                b'"' => "string",
                b't' | b'f' => "bool",
                _ => "number",
            };
            format!("json: cannot unmarshal {kind} into Go value of type {}", expected.go_type)
        }
        (Category::Data, _) => format!("json: {error}"),
        _ => fault::find(text).unwrap_or_else(|| error.to_string()),
    }
}

/// Encodes as `encoding/json` does: compact, with `<`, `>`, `&` and the two Unicode line ends escaped. Raw values are
/// compacted and escaped in the same way.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(128);
    let mut output = Serializer::with_formatter(&mut text, Go);
    value.serialize(&mut output).expect("writing to memory cannot fail, and every map here has text for keys");
    text
}

struct Go;

impl Formatter for Go {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        write_escaped(writer, fragment, Where::String)
    }

    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        write_escaped(writer, fragment, Where::Value)
    }
}

/// What surrounds a character of JSON text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// A structure, where whitespace means nothing.
    Value,
    String,
    /// After a backslash.
    Escape,
}

/// Writes JSON text that starts at `place`, run by run between what is dropped or escaped.
fn write_escaped<W: ?Sized + io::Write>(writer: &mut W, text: &str, mut place: Where) -> io::Result<()> {
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let (replacement, width): (&[u8], _) = match byte {
            b' ' | b'\t' | b'\n' | b'\r' if place == Where::Value => (b"", 1),
            b'<' => (b"\\u003c", 1),
            b'>' => (b"\\u003e", 1),
            b'&' => (b"\\u0026", 1),
            0xE2 if bytes[at..].starts_with("\u{2028}".as_bytes()) => (b"\\u2028", 3),
            0xE2 if bytes[at..].starts_with("\u{2029}".as_bytes()) => (b"\\u2029", 3),
            _ => {
                place = match (place, byte) {
                    (Where::Value, b'"') | (Where::Escape, _) => Where::String,
                    (Where::String, b'"') => Where::Value,
                    (Where::String, b'\\') => Where::Escape,
                    (place, _) => place,
                };
                continue;
            }
        };
        writer.write_all(&bytes[written..at])?;
        writer.write_all(replacement)?;
        written = at + width;
    }
    writer.write_all(&bytes[written..])
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    const LIST: Expected = Expected { opening: b'[', go_type: "[]state.SetRequest" };

    fn check(text: &str, expect: Result<Vec<u8>, &str>) {
        assert_eq!(decode::<Vec<u8>>(text.as_bytes(), LIST), expect.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn bodies_fail_with_gos_words() {
        check("", Err("EOF"));
        check(" \n", Err("EOF"));
        check("[1", Err("unexpected EOF"));
        check("{}", Err("json: cannot unmarshal object into Go value of type []state.SetRequest"));
        check("\"a\"", Err("json: cannot unmarshal string into Go value of type []state.SetRequest"));
        check("x", Err("invalid character 'x' looking for beginning of value"));
        check("not json", Err("invalid character 'o' in literal null (expecting 'u')"));
        check("[1,]", Err("invalid character ']' looking for beginning of value"));
    }

    #[test]
    fn what_follows_the_value_is_not_looked_at() {
        check("[1] trailing", Ok(vec![1]));
        check("null", Ok(vec![]));
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let text = String::from_utf8(encode(&"<a>&\u{2028}\u{2029}€\"\n'")).expect("UTF-8");
        assert_eq!(text, r#""\u003ca\u003e\u0026\u2028\u2029€\"\n'""#);
    }

    #[test]
    fn raw_values_are_compacted_outside_strings() {
        let raw: &RawValue = serde_json::from_str("{ \"a b\" : [ 1 , \"< \\\" >\" ] }").expect("JSON");
        assert_eq!(String::from_utf8(encode(&raw)).expect("UTF-8"), r#"{"a b":[1,"\u003c \" \u003e"]}"#);
    }
}
