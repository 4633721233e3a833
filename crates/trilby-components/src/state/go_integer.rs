//! Integers in text, refused in the words of Go's `strconv`, which Dapr's stores pass on to the caller.

use std::{
    num::{IntErrorKind, ParseIntError},
    str::FromStr,
};

/// Reads a number. `function` is the one of Go's that the store uses, for example `Atoi`.
///
/// # Errors
/// The message for the caller.
pub(super) fn parse<T: FromStr<Err = ParseIntError>>(text: &str, function: &str) -> Result<T, String> {
    text.parse().map_err(|error: ParseIntError| {
        let reason = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.{function}: parsing {text:?}: {reason}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_refused_as_go_does() {
        assert_eq!(parse::<i64>("-7", "Atoi"), Ok(-7));
        assert_eq!(parse::<i64>("nope", "Atoi").unwrap_err(), r#"strconv.Atoi: parsing "nope": invalid syntax"#);
        assert_eq!(
            parse::<u32>("4294967296", "ParseUint").unwrap_err(),
            r#"strconv.ParseUint: parsing "4294967296": value out of range"#
        );
    }
}
