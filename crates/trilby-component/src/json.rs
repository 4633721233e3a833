//! Re-encoding of JSON values the way Dapr's stores do, so that our rows equal theirs byte for byte.
//!
//! Dapr decodes a saved value generically and each store encodes it again: object keys end up sorted, whitespace is
//! gone, and every number has been a 64-bit float.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::Value;

use crate::error::{ComponentError, Result};

/// Which of Go's encoders a store uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `encoding/json`: `<`, `>`, `&`, U+2028 and U+2029 are escaped. Most stores.
    Standard,
    /// jsoniter's fastest configuration: nothing of that is escaped, fractions are cut to six digits. Redis.
    Fast,
}

/// Parses one JSON value and writes it again in `style`.
///
/// # Errors
/// `InvalidRequest` if `text` is not one JSON value, or nested deeper than 128 levels.
pub fn reencode(text: &[u8], style: Style) -> Result<Bytes> {
    let parsed: serde_json::Result<Value> = serde_json::from_slice(text);
    let parsed = parsed.or_else(|error| match with_whole_surrogates(text) {
        Some(mended) => serde_json::from_slice(&mended),
        None => Err(error),
    });
    let value = parsed.map_err(|error| ComponentError::request(format!("value is not valid JSON: {error}")))?;
    let mut out = Vec::with_capacity(text.len());
    write_value(&mut out, &value, style);
    Ok(out.into())
}

/// Go reads an escaped half of a surrogate pair as U+FFFD. `None` if there is none in `text`.
fn with_whole_surrogates(text: &[u8]) -> Option<Vec<u8>> {
    let escaped = |at: usize| {
        let [b'\\', b'u', hex @ ..] = text.get(at..at + 6)? else { return None };
        u16::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
    };
    let (mut mended, mut at, mut is_changed) = (Vec::with_capacity(text.len()), 0, false);
    while at < text.len() {
        let width = match (escaped(at), text[at]) {
            (Some(0xD800..=0xDBFF), _) if matches!(escaped(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                mended.extend_from_slice(br"\ufffd");
                is_changed = true;
                at += 6;
                continue;
            }
            (None, b'\\') => 2,
            _ => 1,
        };
        let end = (at + width).min(text.len());
        mended.extend_from_slice(&text[at..end]);
        at = end;
    }
    is_changed.then_some(mended)
}

fn write_value(out: &mut Vec<u8>, value: &Value, style: Style) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(out, number, style),
        Value::String(text) => write_string(out, text, style),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(out, item, style);
            }
            out.push(b']');
        }
        // serde_json's map is ordered by key, as Go's encoder orders it.
        Value::Object(members) => {
            out.push(b'{');
            for (index, (key, member)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(out, key, style);
                out.push(b':');
                write_value(out, member, style);
            }
            out.push(b'}');
        }
    }
}

fn write_number(out: &mut Vec<u8>, number: &serde_json::Number, style: Style) {
    const EXACT: u64 = 1 << 53;
    if let Some(integer) = number.as_i64().filter(|integer| integer.unsigned_abs() <= EXACT) {
        let _ = write!(out, "{integer}");
        return;
    }
    let float = number.as_f64().unwrap_or(f64::MAX);
    match style {
        Style::Standard => write_float(out, float),
        Style::Fast => write_float_with_six_digits(out, float),
    }
}

/// The shortest decimal that reads back as `float`, with an exponent where Go writes one.
fn write_float(out: &mut Vec<u8>, float: f64) {
    let size = float.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{float:e}");
        match text.split_once('e') {
            Some((digits, power)) if !power.starts_with('-') => {
                let _ = write!(out, "{digits}e+{power}");
            }
            _ => out.extend_from_slice(text.as_bytes()),
        }
    } else {
        let _ = write!(out, "{float}");
    }
}

fn write_float_with_six_digits(out: &mut Vec<u8>, float: f64) {
    const SCALE: f64 = 1e6;
    /// Above this jsoniter falls back to the shortest decimal.
    const LARGEST: f64 = 83_886_079.0;
    if float.abs() > LARGEST {
        return write_float(out, float);
    }
    if float < 0.0 {
        out.push(b'-');
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most LARGEST * SCALE, and not negative"
    )]
    let scaled = float.abs().mul_add(SCALE, 0.5) as u64;
    let (whole, fraction) = (scaled / 1_000_000, scaled % 1_000_000);
    let _ = write!(out, "{whole}");
    if fraction > 0 {
        let digits = format!("{fraction:06}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

/// Writes `text` as a JSON string, quotes and escapes included.
pub fn write_string(out: &mut Vec<u8>, text: &str, style: Style) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.find(|c| needs_escape(c, style)) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let mut chars = tail.chars();
        if let Some(special) = chars.next() {
            write_escape(out, special);
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

fn needs_escape(c: char, style: Style) -> bool {
    match c {
        '"' | '\\' | '\0'..='\u{1f}' => true,
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => style == Style::Standard,
        _ => false,
    }
}

fn write_escape(out: &mut Vec<u8>, c: char) {
    let short: &[u8] = match c {
        '"' => b"\\\"",
        '\\' => b"\\\\",
        '\n' => b"\\n",
        '\r' => b"\\r",
        '\t' => b"\\t",
        '\u{8}' => b"\\b",
        '\u{c}' => b"\\f",
        other => {
            let _ = write!(out, "\\u{:04x}", u32::from(other));
            return;
        }
    };
    out.extend_from_slice(short);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(style: Style, text: &str, expect: &str) {
        let got = reencode(text.as_bytes(), style).expect("the input is JSON");
        assert_eq!(String::from_utf8_lossy(&got), expect, "{text}");
    }

    #[test]
    fn standard_style_equals_encoding_json() {
        for (text, expect) in [
            (r#" {"b": 1, "a": [1, "x<&>", null]} "#, r#"{"a":[1,"x\u003c\u0026\u003e",null],"b":1}"#),
            ("9007199254740993", "9007199254740992"),
            ("1.0", "1"),
            ("1e21", "1e+21"),
            ("1e-7", "1e-7"),
            ("0.000001", "0.000001"),
            ("-1.5", "-1.5"),
            ("true", "true"),
            (r#""ž \u2028 €""#, r#""ž \u2028 €""#),
            (r#""a\u0001\"\\\n""#, r#""a\u0001\"\\\n""#),
        ] {
            check(Style::Standard, text, expect);
        }
    }

    #[test]
    fn fast_style_equals_jsoniter_fastest() {
        for (text, expect) in [
            (r#"{"a": "x<&>"}"#, r#"{"a":"x<&>"}"#),
            ("1.5", "1.5"),
            ("0.1234567891", "0.123457"),
            ("-2.25", "-2.25"),
            ("9007199254740993", "9007199254740992"),
        ] {
            check(Style::Fast, text, expect);
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_u_fffd_and_a_whole_one_stays() {
        for (text, expect) in [
            (r#""\ud800""#, "\"\u{FFFD}\""),
            (
                r#"["\uDC00x", "\ud83d\ude00", "\\ud800", "\u0041\ud800\n"]"#,
                "[\"\u{FFFD}x\",\"\u{1F600}\",\"\\\\ud800\",\"A\u{FFFD}\\n\"]",
            ),
            (r#"{"\ud800\ud800\udc00": 1}"#, "{\"\u{FFFD}\u{10000}\":1}"),
        ] {
            check(Style::Standard, text, expect);
        }
    }

    #[test]
    fn broken_json_is_an_invalid_request() {
        for text in ["", "{", "1 2", "nul"] {
            let error = reencode(text.as_bytes(), Style::Standard).expect_err("the input is not JSON");
            assert_eq!(error.kind(), crate::ErrorKind::InvalidRequest);
        }
    }
}
