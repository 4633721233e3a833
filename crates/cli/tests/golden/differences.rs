//! The rows of docs/differences.md: where our answer differs on purpose, and what it is.

use std::collections::{BTreeMap, BTreeSet};

use super::repository;

/// Rows by the line of the recording.
pub(crate) struct Differences {
    rows: BTreeMap<String, Vec<String>>,
    used: BTreeSet<String>,
    failures: Vec<String>,
}

impl Differences {
    /// The rows of the document: the first column names lines, the second holds what ours must contain, in backticks.
    pub(crate) fn load() -> Self {
        let text = std::fs::read_to_string(repository().join("docs/differences.md")).expect("docs/differences.md");
        let mut rows = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let columns: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [places, ours, _reason] = columns.as_slice() else { panic!("three columns in {line}") };
            for place in quoted(places) {
                let known = rows.insert(place, quoted(ours));
                assert!(known.is_none(), "a line has two rows in docs/differences.md: {line}");
            }
        }
        Self { rows, used: BTreeSet::new(), failures: Vec::new() }
    }

    /// Compares an answer with the recorded one.
    pub(crate) fn compare(&mut self, place: &str, request: &str, ours: &str, theirs: &str) {
        if ours == theirs {
            return;
        }
        if let Some(expected) = self.rows.get(place) {
            self.used.insert(place.to_owned());
            if expected.iter().all(|part| ours.contains(part.as_str())) {
                return;
            }
        }
        self.failures.push(format!("{place}: {request}\n  daprd: {theirs}\n  ours:  {ours}"));
    }

    /// Fails with everything that differed, and with rows of `files` that no longer do.
    pub(crate) fn finish(self, files: &[&str]) {
        let of_files = |place: &&String| files.iter().any(|file| place.split(':').next() == Some(file));
        let stale = self.rows.keys().filter(of_files).filter(|place| !self.used.contains(*place));
        let mut failures = self.failures;
        failures.extend(stale.map(|place| format!("{place}: equal to daprd now; take it out of docs/differences.md")));
        assert!(failures.is_empty(), "{} answers differ from daprd's:\n{}", failures.len(), failures.join("\n"));
    }
}

fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
