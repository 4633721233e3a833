//! Values that are JSON and that no store could read again. Go's decoder refuses them, so they are the caller's mistake.

/// What the stores read. Go reads 10,000, on a stack that grows.
const MAX_DEPTH: usize = 127;
/// No shorter number without an exponent is too large for 64 bits.
const LARGEST_PLAIN_BYTES: usize = 308;

/// Checks a value that is valid JSON.
///
/// # Errors
/// Go's text.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'[' | b'{' if depth == MAX_DEPTH => return Err("exceeded max depth".to_owned()),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                at += bytes[at..].iter().take_while(|byte| is_number(byte)).count();
                check_number(&text[start..at])?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

fn check_number(number: &str) -> Result<(), String> {
    if number.len() <= LARGEST_PLAIN_BYTES && !number.contains(['e', 'E']) {
        return Ok(());
    }
    match number.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok(()),
        _ => Err(format!("json: cannot unmarshal number {number} into Go value of type float64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_size_of_numbers_are_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(&nested(127)), Ok(()));
        assert_eq!(check(&nested(128)), Err("exceeded max depth".to_owned()));
        assert_eq!(check(r#"{"[\"[": [1e308, -2.5E-999, 12], "1e999": "1e999 [[["}"#), Ok(()));
        let error = "json: cannot unmarshal number 1e999999 into Go value of type float64";
        assert_eq!(check(r#"[1, {"a": 1e999999}]"#), Err(error.to_owned()));
        assert!(check(&"9".repeat(400)).is_err());
    }
}
