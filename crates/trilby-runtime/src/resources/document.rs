//! A file of YAML as its documents, each read on its own, so that a broken one does not take the others with it.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::Origin;
use crate::error::StartError;

/// One document of a file.
pub(crate) struct Document<'a> {
    file: Arc<str>,
    number: usize,
    /// Line of the file on which `text` begins, from 1.
    first_line: usize,
    text: &'a str,
}

/// The documents of a text, those without content left out.
///
/// They are told apart by their separator lines before they are parsed: a YAML parser gives up at the first error.
pub(crate) fn documents<'a>(file: &str, text: &'a str) -> Vec<Document<'a>> {
    let file: Arc<str> = file.into();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let mut push = |first_line: usize, text: &'a str| {
        if text.lines().any(has_content) {
            found.push(Document { file: Arc::clone(&file), number: found.len() + 1, first_line, text });
        }
    };
    let (mut start, mut first_line) = (0, 1);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
            push(first_line, &text[start..offset]);
            (start, first_line) = (offset, index + 1);
        }
        offset += line.len();
    }
    push(first_line, &text[start..]);
    found
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Comments, directives and bare markers are no content.
fn has_content(line: &str) -> bool {
    let line = line.strip_prefix("---").unwrap_or(line).trim();
    !(line.is_empty() || line.starts_with(['#', '%']) || line == "...")
}

impl Document<'_> {
    /// Where the document begins.
    pub(crate) fn origin(&self) -> Origin {
        // The line after the separator is the one that a reader looks for.
        let line = self.first_line + self.text.lines().position(has_content).unwrap_or(0);
        Origin { file: Arc::clone(&self.file), document: self.number, line }
    }

    /// An error about the document as a whole.
    pub(crate) fn error(&self, message: String) -> StartError {
        StartError::Document { origin: self.origin(), message }
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, StartError> {
        serde_norway::from_str(self.text).map_err(|error| {
            let mut message = error.to_string();
            let mut origin = self.origin();
            if let Some(location) = error.location() {
                // The parser counts from the document; the origin counts from the file.
                let suffix = format!(" at line {} column {}", location.line(), location.column());
                message.truncate(message.strip_suffix(&suffix).unwrap_or(&message).len());
                origin.line = self.first_line + location.line().saturating_sub(1);
            }
            StartError::Document { origin, message }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, usize)> {
        documents("f", text).iter().map(|document| (document.number, document.origin().line)).collect()
    }

    #[test]
    fn documents_are_numbered_by_content_and_placed_by_line() {
        assert_eq!(lines("a: 1\n---\nb: 2\n"), [(1, 1), (2, 3)]);
        assert_eq!(lines("---\na: 1\n---\n# nothing\n---\nb: 2"), [(1, 2), (2, 6)]);
        assert_eq!(lines("--- # first\r\na: 1\r\n---\r\nb: 2\r\n"), [(1, 2), (2, 4)]);
        assert_eq!(lines("--- {a: 1}\n--- {b: 2}\n"), [(1, 1), (2, 2)]);
        assert_eq!(lines("%YAML 1.2\n---\na: 1\n..."), [(1, 3)]);
        assert_eq!(lines("\u{feff}a: |\n  ---\n  x\n"), [(1, 1)]);
        assert_eq!(lines("# only a comment\n---\n"), []);
    }
}
