//! Method paths: resolved before anything is decided by them, so that `..` cannot walk around a rule.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What Go leaves unescaped in a path; the callee sees the same bytes as from daprd.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Decodes, resolves `.`, `..` and doubled slashes, and escapes again: always absolute, without a trailing slash.
///
/// # Errors
/// A text for people, if the decoded path holds `#`, `?` or a control character, or is not UTF-8.
pub fn normalize(path: &str) -> Result<String, String> {
    let decoded =
        percent_decode_str(path).decode_utf8().map_err(|_| format!("invalid method: {path:?} is not UTF-8"))?;
    if let Some(bad) = decoded.chars().find(|c| matches!(c, '#' | '?') || c.is_control()) {
        return Err(format!("invalid method: {path:?} contains the forbidden character {bad:?}"));
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut normal = String::with_capacity(path.len() + 1);
    for segment in &segments {
        normal.push('/');
        normal.extend(utf8_percent_encode(segment, ESCAPED));
    }
    if normal.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_arrive_as_daprd_sends_them() {
        for (path, expect) in [
            ("/echo", "/echo"),
            ("/../x", "/x"),
            ("//x//y/", "/x/y"),
            ("/a/b%2Fc/%C5%BE", "/a/b/c/%C5%BE"),
            ("", "/"),
            ("/", "/"),
            ("/a/%2E%2E/%2e%2e/b", "/b"),
            ("/sp%20ace/a+b", "/sp%20ace/a+b"),
        ] {
            assert_eq!(normalize(path).as_deref(), Ok(expect), "{path}");
        }
    }

    #[test]
    fn forbidden_characters_are_refused() {
        for path in ["/a%23b", "/a%3Fb", "/a%00b", "/a%0Ab", "/%ff"] {
            assert!(normalize(path).is_err(), "{path}");
        }
    }
}
