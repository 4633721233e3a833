//! How a Rust file looks and what it does without.

use super::{Finding, dependencies::is_library, source::Source, tree::Tree};

/// A longer file does more than one thing.
const MOST_LINES: usize = 600;

pub(super) fn files_say_what_they_are(tree: &Tree) -> Vec<Finding> {
    let silent = |source: &&Source| !source.text.starts_with("//! ");
    let message = "the first line is not `//! ` and what the file is for";
    tree.sources.iter().filter(silent).map(|source| at(source, Some(1), message)).collect()
}

pub(super) fn files_are_short(tree: &Tree) -> Vec<Finding> {
    let lengths = tree.sources.iter().map(|source| (source, source.shipped_lines()));
    lengths
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(source, lines)| {
            at(source, None, &format!("{lines} lines without its tests; split it below {MOST_LINES}"))
        })
        .collect()
}

pub(super) fn no_mod_rs(tree: &Tree) -> Vec<Finding> {
    // In `tests/` it is the only way to share a module that is not a test program itself.
    let wrong = |source: &&Source| source.path.ends_with("/mod.rs") && !source.is_test();
    tree.sources
        .iter()
        .filter(wrong)
        .map(|source| at(source, None, "name it after its folder, beside it, not mod.rs"))
        .collect()
}

pub(super) fn no_ignored_tests(tree: &Tree) -> Vec<Finding> {
    everywhere(
        tree,
        &["#[ignore"],
        "an ignored test is nobody's; print `NOT RUN name: reason` when something is missing",
    )
}

pub(super) fn no_todo(tree: &Tree) -> Vec<Finding> {
    everywhere(tree, &["todo!", "unimplemented!"], "finish it or leave it out")
}

pub(super) fn libraries_do_not_print(tree: &Tree) -> Vec<Finding> {
    let message = "a library does not print; use tracing or return it";
    in_libraries(tree, &["println!", "print!", "eprintln!", "eprint!", "dbg!"], message)
}

pub(super) fn libraries_do_not_exit(tree: &Tree) -> Vec<Finding> {
    in_libraries(tree, &["process::exit", "process::abort"], "a library does not end its process; return an error")
}

pub(super) fn no_unwrap(tree: &Tree) -> Vec<Finding> {
    let message = "return the error, or `expect(\"why it cannot fail\")`";
    tree.sources.iter().flat_map(|source| occurrences(source, &source.shipped, &[".unwrap()"], message)).collect()
}

pub(super) fn nothing_branches_on_messages(tree: &Tree) -> Vec<Finding> {
    let message = "messages are for people; branch on the error's kind";
    tree.sources
        .iter()
        .flat_map(|source| occurrences(source, &source.shipped, &[".to_string().contains("], message))
        .collect()
}

pub(super) fn doors_name_no_component(tree: &Tree) -> Vec<Finding> {
    let doors = tree.sources.iter().filter(|source| tree.package_of(&source.path).starts_with("trilby-door-"));
    let message = "a door decodes and encodes; it reaches components through the core's blocks only";
    doors.flat_map(|source| occurrences(source, &source.shipped, &["trilby_components", "Handle"], message)).collect()
}

fn everywhere(tree: &Tree, patterns: &[&str], message: &str) -> Vec<Finding> {
    tree.sources.iter().flat_map(|source| occurrences(source, &source.code, patterns, message)).collect()
}

fn in_libraries(tree: &Tree, patterns: &[&str], message: &str) -> Vec<Finding> {
    let programs = ["/examples/", "/benches/", "/src/main.rs", "/src/bin/", "/build.rs"];
    let of_libraries = tree.sources.iter().filter(|source| {
        is_library(tree.package_of(&source.path)) && !programs.iter().any(|part| source.path.contains(part))
    });
    of_libraries.flat_map(|source| occurrences(source, &source.shipped, patterns, message)).collect()
}

/// A finding for each line of `code` that holds one of `patterns` as a word of its own.
fn occurrences(source: &Source, code: &str, patterns: &[&str], message: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in code.lines().enumerate() {
        if let Some(pattern) = patterns.iter().find(|pattern| has_word(line, pattern)) {
            findings.push(at(source, Some(index + 1), &format!("`{pattern}`: {message}")));
        }
    }
    findings
}

/// Whether `line` has `word` with no letter, digit or `_` to prolong it on either side.
fn has_word(line: &str, word: &str) -> bool {
    let in_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(start, found)| {
        let before = word.starts_with(in_word) && line[..start].ends_with(in_word);
        let after = word.ends_with(in_word) && line[start + found.len()..].starts_with(in_word);
        !before && !after
    })
}

fn at(source: &Source, line: Option<usize>, message: &str) -> Finding {
    Finding { path: source.path.clone(), line, message: message.to_owned() }
}
