//! A Rust file seen three ways: its text; its code, without comments and literals; the code that ships, without tests.
//!
//! All three have the same lines, so that a rule can search one and name a line of the file.

use std::ops::Range;

/// One Rust file.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// With spaces in place of comments and of what is inside string and character literals.
    pub(crate) code: String,
    /// `code` with spaces in place of items under `#[cfg(test)]`; nothing at all in a file of tests.
    pub(crate) shipped: String,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = without_comments_and_literals(&text);
        let shipped = if is_test(&path) || code.trim_start().starts_with("#![cfg(test)]") {
            blank(&code, 0..code.len())
        } else {
            without_tests(&code)
        };
        Self { path, text, code, shipped }
    }

    /// Whether the whole file is tests.
    pub(crate) fn is_test(&self) -> bool {
        is_test(&self.path)
    }

    /// Number of lines outside of tests, comments and blank lines included.
    pub(crate) fn shipped_lines(&self) -> usize {
        if self.is_test() {
            return 0;
        }
        // A line of tests has code, all of which is blanked in what ships.
        let lines = self.code.lines().zip(self.shipped.lines());
        let tests = lines.filter(|(code, shipped)| !code.trim().is_empty() && shipped.trim().is_empty()).count();
        self.text.lines().count() - tests
    }
}

fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

fn without_tests(code: &str) -> String {
    let mut shipped = code.to_owned();
    let mut from = 0;
    while let Some(start) = find_test(&shipped, from) {
        let end = end_of_item(&shipped, start);
        shipped = blank(&shipped, start..end);
        from = end;
    }
    shipped
}

fn find_test(code: &str, from: usize) -> Option<usize> {
    ["#[cfg(test)]", "#[cfg(all(test"]
        .iter()
        .filter_map(|attribute| code[from..].find(attribute))
        .min()
        .map(|start| from + start)
}

/// Where the item ends that begins with an attribute at `start`: at its closing brace, or at a semicolon outside of
/// brackets.
fn end_of_item(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && byte == b'}' {
                    return offset + 1;
                }
            }
            b';' if depth == 0 => return offset + 1,
            _ => {}
        }
    }
    code.len()
}

fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        // A raw string or a prefix starts a word; in the middle of one these letters mean nothing.
        let in_word = code.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let (kept, length) = match first {
            '/' if rest.starts_with("//") => (0..0, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (0..0, block_comment(rest)),
            'r' | 'b' | 'c' if !in_word => match raw_string(rest) {
                Some(length) => (0..0, length),
                None => (0..1, 1),
            },
            '"' => (0..1, quoted(rest, '"')),
            '\'' => match character(rest) {
                Some(length) => (0..1, length),
                None => (0..1, 1),
            },
            other => (0..other.len_utf8(), other.len_utf8()),
        };
        code.push_str(&rest[kept.clone()]);
        code.push_str(&blank(&rest[kept.end..length], 0..length - kept.end));
        rest = &rest[length..];
    }
    code
}

/// Length of the comment that `rest` begins with; they nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of the raw string that `rest` begins with: `r"…"`, `br#"…"#` and so on.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |found| found + end.len());
    Some(rest.len() - body.len() + length)
}

/// Length of the literal between two `quote`s that `rest` begins with.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of the character literal that `rest` begins with; None if it is a lifetime.
fn character(rest: &str) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1);
    let (_, first) = characters.next()?;
    let (at, second) = characters.next()?;
    if first == '\\' {
        return Some(quoted(rest, '\''));
    }
    (second == '\'').then_some(at + 1)
}

/// `text` with a space for each byte in `range` that does not end a line.
fn blank(text: &str, range: Range<usize>) -> String {
    let blanked: String = text[range.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
    [&text[..range.start], &blanked, &text[range.end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("src/lib.rs".to_owned(), text.to_owned()).code
    }

    fn shipped(text: &str) -> String {
        Source::new("src/lib.rs".to_owned(), text.to_owned()).shipped
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        for hidden in [
            "// todo!()",
            "/* a /* todo!() */ todo!() */",
            "\"todo!() \\\" todo!()\"",
            "r#\"todo!() \" todo!()\"#",
            "br\"todo!()\"",
            "/// ```\n/// todo!()\n",
        ] {
            let code = code(&format!("a {hidden}\nb"));
            assert!(!code.contains("todo!"), "{hidden}: {code}");
            assert!(code.starts_with('a') && code.ends_with('b'), "{hidden}: {code}");
        }
    }

    #[test]
    fn quotes_in_characters_and_lifetimes_open_no_string() {
        for plain in [
            "'\"'; todo!()",
            "'\\''; todo!()",
            "b'\"'; todo!()",
            "&'a str; todo!()",
            "r#type; todo!()",
            "for\"\"; todo!()",
        ] {
            assert!(code(plain).contains("todo!"), "{plain}");
        }
    }

    #[test]
    fn lines_stay_where_they_are() {
        let text = "fn a() {}\n/* one\ntwo é */\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        assert_eq!(code(text).lines().count(), text.lines().count());
        assert_eq!(shipped(text).lines().nth(7), Some("fn c() {}"));
    }

    #[test]
    fn tests_do_not_ship() {
        for tests in [
            "mod tests { fn a() { x.unwrap() } }",
            "mod tests;",
            "use a::{unwrap};",
            "#[allow(x)]\nfn f(a: [u8; 2]) { unwrap() }",
        ] {
            let shipped = shipped(&format!("fn before() {{}}\n#[cfg(test)]\n{tests}\nfn after() {{}}"));
            assert!(!shipped.contains("unwrap"), "{tests}: {shipped}");
            assert!(shipped.contains("before") && shipped.contains("after"), "{tests}: {shipped}");
        }
    }

    #[test]
    fn a_file_in_tests_is_all_tests() {
        for path in ["crates/a/tests/http.rs", "crates/a/src/state/tests.rs"] {
            assert_eq!(Source::new(path.to_owned(), "fn a() {}".to_owned()).shipped.trim(), "");
        }
        assert_ne!(Source::new("crates/a/src/test.rs".to_owned(), "fn a() {}".to_owned()).shipped.trim(), "");
    }

    #[test]
    fn the_length_of_a_file_leaves_out_its_tests() {
        let source =
            Source::new("src/lib.rs".to_owned(), "//! a\n\nfn a() {}\n#[cfg(test)]\nmod tests {\n}\n".to_owned());
        assert_eq!(source.shipped_lines(), 3);
    }
}
