//! Kubernetes' way to write a size: `4Mi`, `500k`, `1073741824`.

/// Reads a size in bytes. Suffixes `Ki Mi Gi Ti` are powers of 1,024, `k M G T` powers of 1,000; a fraction is allowed
/// before one. `None` if the text is not a size, is negative, or does not fit.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let unit: u64 = match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u64.pow(2),
        "G" => 1000_u64.pow(3),
        "T" => 1000_u64.pow(4),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    let bytes = number.parse::<f64>().ok()? * unit as f64;
    // Beyond 2^53 a float no longer holds every whole number; nobody writes a fraction of that size.
    (bytes.is_finite() && bytes < 9e15).then_some(bytes.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        for (text, expect) in [
            ("4Mi", Some(4 << 20)),
            ("4Ki", Some(4096)),
            ("1.5Gi", Some(3 << 29)),
            ("500k", Some(500_000)),
            ("10", Some(10)),
            (" 2M ", Some(2_000_000)),
            ("", None),
            ("-1", None),
            ("4MB", None),
            ("Mi", None),
            ("1.2.3", None),
            ("99999999999Ti", None),
        ] {
            assert_eq!(parse(text), expect, "{text}");
        }
    }
}
