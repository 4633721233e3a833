//! Documents that people read whole.

use super::{Finding, tree::Tree};

/// As long as it is this short, a newcomer reads all of it.
const MOST_LINES: usize = 250;

pub(super) fn architecture_is_short(tree: &Tree) -> Vec<Finding> {
    let path = "ARCHITECTURE.md";
    let finding = |message| vec![Finding { path: path.to_owned(), line: None, message }];
    match tree.documents.get(path).map(|text| text.lines().count()) {
        None => finding("missing; it opens with the path of one request".to_owned()),
        Some(lines) if lines > MOST_LINES => finding(format!("{lines} lines; at most {MOST_LINES}")),
        Some(_) => Vec::new(),
    }
}
