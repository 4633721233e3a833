//! `ttlInSeconds` of a write, read and refused with the very words of Dapr's stores.

use trilby_component::{ComponentError, Metadata, Result, state::TTL_IN_SECONDS};

use super::go_integer;

/// The life that a write asks for in seconds; `None` if the item shall not expire, which -1 and 0 say as well.
///
/// # Errors
/// `InvalidRequest` if it is not a whole number from -1 to 2,147,483,647.
#[cfg(any(feature = "postgresql", feature = "sqlite"))]
pub(super) fn parse(metadata: &Metadata) -> Result<Option<u32>> {
    let refuse = |reason: &str| {
        ComponentError::request(format!("error parsing TTL: incorrect value for metadata '{TTL_IN_SECONDS}': {reason}"))
    };
    let seconds = parse_integer(metadata, "ParseInt").map_err(|error| refuse(&error.to_string()))?;
    match i32::try_from(seconds) {
        Ok(seconds @ -1..) => Ok(u32::try_from(seconds).ok().filter(|&seconds| seconds > 0)),
        _ => Err(refuse("must be -1 or greater")),
    }
}

/// The bare number, 0 if there is none. `function` is the one of Go's that the store names in its errors.
///
/// # Errors
/// `InvalidRequest` if it is not a number of 64 bits.
pub(super) fn parse_integer(metadata: &Metadata, function: &str) -> Result<i64> {
    match metadata.get(TTL_IN_SECONDS) {
        Some(text) if !text.is_empty() => go_integer::parse(text, function).map_err(ComponentError::request),
        _ => Ok(0),
    }
}

#[cfg(all(test, any(feature = "postgresql", feature = "sqlite")))]
mod tests {
    use trilby_component::ErrorKind;

    use super::*;

    fn of(text: &str) -> Result<Option<u32>> {
        parse(&Metadata::from([(TTL_IN_SECONDS.to_owned(), text.to_owned())]))
    }

    #[test]
    fn zero_minus_one_and_nothing_mean_never() {
        assert_eq!(parse(&Metadata::new()).expect("valid"), None);
        for text in ["", "0", "-1"] {
            assert_eq!(of(text).expect("valid"), None, "{text:?}");
        }
        assert_eq!(of("100").expect("valid"), Some(100));
        assert_eq!(of("2147483647").expect("valid"), Some(2_147_483_647));
    }

    #[test]
    fn other_values_are_refused_in_the_words_of_dapr() {
        for (text, reason) in [
            ("abc", r#"strconv.ParseInt: parsing "abc": invalid syntax"#),
            ("1.5", r#"strconv.ParseInt: parsing "1.5": invalid syntax"#),
            ("99999999999999999999", r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#),
            ("-2", "must be -1 or greater"),
            ("2147483648", "must be -1 or greater"),
        ] {
            let error = of(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert_eq!(
                error.to_string(),
                format!("error parsing TTL: incorrect value for metadata 'ttlInSeconds': {reason}")
            );
        }
    }
}
