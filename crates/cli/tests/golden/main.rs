//! Replays recorded answers of a stock daprd against ours and compares every status, code and body.
//!
//! What may differ is written down in `docs/differences.md`, one row a line of a recording; a row that no longer differs
//! fails too. Lines about APIs that this build does not have are left out, and printed.

#[path = "../support/mod.rs"]
mod support;

mod app;
mod bindings;
mod differences;
mod grpc;
mod http;
mod mask;
mod metadata;
mod redis;
mod stories;

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One line of a recording.
struct Line {
    /// `http/state-mem.jsonl:12`, as docs/differences.md names it.
    name: String,
    request: Value,
    response: Value,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn recording(file: &str) -> Vec<Line> {
    let text = std::fs::read_to_string(repository().join("tests/golden").join(file)).expect("a recording");
    let parse = |(index, line): (usize, &str)| {
        let mut line: Value = serde_json::from_str(line).expect("one JSON object a line");
        Line {
            name: format!("{file}:{}", index + 1),
            request: line["request"].take(),
            response: line["response"].take(),
        }
    };
    text.lines().enumerate().map(parse).collect()
}
