//! JSON documents taken apart and put together without a tree: what an envelope needs, at the speed of messages.
//!
//! What is written is what Go's encoder writes: sorted members, no whitespace, `<`, `>` and `&` escaped. Numbers stay as
//! they were written.

use std::{borrow::Cow, cmp::Ordering, fmt, ops::Range};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use trilby_component::json::{Style, write_string};

/// Deeper documents are refused: each level is a level of the stack.
const MAX_DEPTH: usize = 128;

/// The members of an object in their order: each name, and the text of its value within `text`.
///
/// # Errors
/// If `text` is not one JSON object; `null` is an empty one, as to Go's decoder.
pub(super) fn members(text: &str) -> serde_json::Result<Vec<(Cow<'_, str>, &str)>> {
    Ok(serde_json::from_str::<Option<Members<'_>>>(text)?.unwrap_or_default().0)
}

/// As [`members`], of the first value in `text`; what follows it is not looked at.
pub(super) fn first_members(text: &str) -> serde_json::Result<Vec<(Cow<'_, str>, &str)>> {
    let mut input = serde_json::Deserializer::from_str(text);
    Ok(Option::<Members<'_>>::deserialize(&mut input)?.unwrap_or_default().0)
}

#[derive(Default)]
struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // An event of ours has a dozen attributes.
                let mut members = Vec::with_capacity(16);
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value::<&RawValue>()?.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Read)
    }
}

/// A name, borrowed unless it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(Read)
    }
}

/// The text of a JSON string, borrowed unless it has escapes; `None` if `json` is something else.
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Writes the first JSON value of `text` again, members sorted.
///
/// # Errors
/// If there is none, or it is nested too deeply. `out` is then as it was.
pub(super) fn write_sorted(out: &mut Vec<u8>, text: &str) -> Result<(), Unwritable> {
    let mut input = serde_json::Deserializer::from_str(text);
    let value = <&RawValue>::deserialize(&mut input).map_err(|_| Unwritable)?.get();
    let start = out.len();
    let written = Cursor { text: value, at: 0 }.value(out, 0);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// A text is not JSON, or too deeply nested.
#[derive(Debug)]
pub(super) struct Unwritable;

/// Walks a text that is known to be JSON.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Unwritable> {
        if depth > MAX_DEPTH {
            return Err(Unwritable);
        }
        match self.peek() {
            Some(b'{') => self.object(out, depth),
            Some(b'[') => self.array(out, depth),
            Some(b'"') => {
                let literal = self.string_literal();
                write_literal(out, literal)
            }
            Some(_) => {
                let rest = &self.text.as_bytes()[self.at..];
                let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
                let length = rest.iter().position(ends).unwrap_or(rest.len());
                out.extend_from_slice(&rest[..length]);
                self.at += length;
                Ok(())
            }
            None => Err(Unwritable),
        }
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Unwritable> {
        self.at += 1;
        out.push(b'[');
        while self.peek() != Some(b']') {
            if self.peek() == Some(b',') {
                self.at += 1;
                out.push(b',');
            }
            self.value(out, depth + 1)?;
        }
        self.at += 1;
        out.push(b']');
        Ok(())
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Unwritable> {
        self.at += 1;
        out.push(b'{');
        let start = out.len();
        let mut members: Vec<(Cow<'a, str>, Range<usize>)> = Vec::new();
        while self.peek() != Some(b'}') {
            if self.peek() == Some(b',') {
                self.at += 1;
                out.push(b',');
                self.peek();
            }
            let (literal, from) = (self.string_literal(), out.len());
            let name = string(literal).ok_or(Unwritable)?;
            write_literal(out, literal)?;
            self.peek(); // the colon
            self.at += 1;
            out.push(b':');
            self.value(out, depth + 1)?;
            members.push((name, from - start..out.len() - start));
        }
        self.at += 1;
        if !members.is_sorted_by(|(a, _), (b, _)| a.cmp(b) == Ordering::Less) {
            sort(out, start, members);
        }
        out.push(b'}');
        Ok(())
    }

    /// The next byte that is not whitespace, not taken.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len());
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes the string that begins here, quotes included.
    fn string_literal(&mut self) -> &'a str {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(&byte) = bytes.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => self.at += 1,
                _ => {}
            }
        }
        &self.text[start..self.at]
    }
}

/// Puts the members that were written from `start` on in order; of two with one name the last one stays.
fn sort(out: &mut Vec<u8>, start: usize, mut members: Vec<(Cow<'_, str>, Range<usize>)>) {
    let written = out.split_off(start);
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut members = members.into_iter().peekable();
    while let Some((name, range)) = members.next() {
        if members.peek().is_some_and(|(next, _)| *next == name) {
            continue;
        }
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(&written[range]);
    }
}

/// Writes a string literal again, with Go's escapes.
fn write_literal(out: &mut Vec<u8>, literal: &str) -> Result<(), Unwritable> {
    let special = |byte: &u8| matches!(byte, b'\\' | b'<' | b'>' | b'&' | 0xE2);
    if literal.as_bytes().iter().any(special) {
        write_string(out, &string(literal).ok_or(Unwritable)?, Style::Standard);
    } else {
        out.extend_from_slice(literal.as_bytes());
    }
    Ok(())
}

/// Writes one object, member by member. The caller keeps the order.
pub(super) struct ObjectWriter(Vec<u8>);

impl ObjectWriter {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// A member that is a string.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        write_string(self.name(name), value, Style::Standard);
    }

    /// A member that is a string and needs no escapes.
    pub(super) fn plain(&mut self, name: &str, value: impl fmt::Display) {
        use std::io::Write as _;
        let out = self.name(name);
        let _ = write!(out, "\"{value}\"");
    }

    /// A member that is bytes.
    pub(super) fn base64(&mut self, name: &str, value: &[u8]) {
        let out = self.name(name);
        out.push(b'"');
        let start = out.len();
        out.resize(start + value.len().div_ceil(3) * 4, 0);
        STANDARD.encode_slice(value, &mut out[start..]).expect("the room is what base64 takes");
        out.push(b'"');
    }

    /// A member that is JSON; a string if it is not.
    pub(super) fn json_or_text(&mut self, name: &str, value: &str) {
        let out = self.name(name);
        if write_sorted(out, value).is_err() {
            write_string(out, value, Style::Standard);
        }
    }

    /// The document.
    pub(super) fn finish(mut self) -> Bytes {
        if self.0.is_empty() {
            self.0.push(b'{');
        }
        self.0.push(b'}');
        self.0.into()
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        write_string(&mut self.0, name, Style::Standard);
        self.0.push(b':');
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(text: &str) -> Option<String> {
        let mut out = b"before".to_vec();
        let written = write_sorted(&mut out, text).is_ok();
        let out = String::from_utf8(out).expect("UTF-8");
        let after = out.strip_prefix("before").expect("what was there stays");
        assert!(written || after.is_empty(), "{text}: {after}");
        written.then(|| after.to_owned())
    }

    #[test]
    fn values_are_written_as_gos_encoder_does_and_numbers_as_they_were() {
        for (text, expect) in [
            (r#" {"b" : 1, "a": [ 1.50 , "x<&>" , null ] } "#, r#"{"a":[1.50,"x\u003c\u0026\u003e",null],"b":1}"#),
            ("12345678901234567890.10e5", "12345678901234567890.10e5"),
            (r#"{"z":{"b":true,"a":{}},"y":[]}"#, r#"{"y":[],"z":{"a":{},"b":true}}"#),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#""a\/b\u0041 \u2028 \" \\""#, r#""a/bA \u2028 \" \\""#),
            (r#"{"\u0062":1,"a":2}"#, r#"{"a":2,"b":1}"#),
            ("\"ž €\"", "\"ž €\""),
            ("1 trailing", "1"),
            ("{}", "{}"),
        ] {
            assert_eq!(sorted(text).as_deref(), Some(expect), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_not_written() {
        let deep = "[".repeat(MAX_DEPTH + 2) + &"]".repeat(MAX_DEPTH + 2);
        for text in ["", "nul", "{", "[1,]", r#""\ud800""#, &deep] {
            assert_eq!(sorted(text), None, "{text}");
        }
        let allowed = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        assert_eq!(sorted(&allowed).as_deref(), Some(&*allowed));
    }

    #[test]
    fn members_are_found_where_they_are() {
        let text = r#"{"a": {"x": 1}, "\u0062":"y"}"#;
        let found = members(text).expect("an object");
        assert_eq!(found, [("a".into(), r#"{"x": 1}"#), ("b".into(), r#""y""#)]);
        assert!(members("null").expect("nothing").is_empty());
        for text in ["[]", "1", "", "{} {}", "{\"a\":1"] {
            assert!(members(text).is_err(), "{text}");
        }
        assert!(first_members("{} {}").is_ok());
    }

    #[test]
    fn an_object_is_written_member_by_member() {
        let mut object = ObjectWriter::with_capacity(0);
        object.text("a", "<");
        object.base64("b", &[0, 1, 2, 3]);
        object.json_or_text("c", "{\"y\":1, \"x\":2}");
        object.json_or_text("d", "not json");
        object.plain("e", 5);
        let expect = r#"{"a":"\u003c","b":"AAECAw==","c":{"x":2,"y":1},"d":"not json","e":"5"}"#;
        assert_eq!(object.finish(), expect);
        assert_eq!(ObjectWriter::with_capacity(0).finish(), "{}");
    }
}
