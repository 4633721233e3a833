//! Text made fit for a query, as Go's `url.QueryEscape` does: Dapr passes some names and values on like that.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but what a query may hold as it is. Spaces are left to be made into `+`.
const SPECIAL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

pub(crate) fn query(text: &str) -> String {
    utf8_percent_encode(text, SPECIAL).to_string().replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_in_a_query_is_escaped_as_in_go() {
        assert_eq!(query("a-b_c.d~e"), "a-b_c.d~e");
        assert_eq!(query("x y&z=ž/+"), "x+y%26z%3D%C5%BE%2F%2B");
    }
}
