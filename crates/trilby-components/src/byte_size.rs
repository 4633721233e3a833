//! Numbers of bytes, as Kubernetes writes them: `1048576`, `64Mi`, `10k`.

use serde::{Deserialize, Deserializer, de::Error as _};

const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// Reads a size; a negative one is as good as none, which is 0.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("invalid value {text:?}, expected a size such as 64Mi")))
}

fn parse(text: &str) -> Option<usize> {
    let text = text.trim();
    let unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let number: i64 = number.trim_end().parse().ok()?;
    let bytes = u64::try_from(number).unwrap_or(0).checked_mul(unit)?;
    usize::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_or_are_bytes() {
        for (text, expect) in [
            ("12", Some(12)),
            ("1Ki", Some(1024)),
            ("3 Mi", Some(3 << 20)),
            ("2k", Some(2000)),
            ("-1", Some(0)),
            ("-1Mi", Some(0)),
            ("Mi", None),
            ("1m", None),
            ("99999999Ti", None),
        ] {
            assert_eq!(parse(text), expect, "{text}");
        }
    }
}
