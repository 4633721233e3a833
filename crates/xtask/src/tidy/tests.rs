//! Every rule twice: over this tree, which must keep it, and over a small one that breaks it.

use std::path::Path;

use super::*;

/// Runs one rule over this tree.
fn keeps(name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/xtask is two folders deep");
    let tree = Tree::read(root).expect("the tree can be read");
    let findings: Vec<_> = rule(name)(&tree).iter().map(Finding::to_string).collect();
    assert!(findings.is_empty(), "[{name}]\n{}", findings.join("\n"));
}

/// Runs one rule over `files` and gives the places that it names.
fn findings(name: &str, files: &[(&str, &str)]) -> Vec<String> {
    let mut tree = Tree::default();
    for (path, text) in files {
        tree.add((*path).to_owned(), (*text).to_owned());
    }
    let place = |finding: &Finding| match finding.line {
        Some(line) => format!("{}:{line}", finding.path),
        None => finding.path.clone(),
    };
    rule(name)(&tree).iter().map(place).collect()
}

fn rule(name: &str) -> fn(&Tree) -> Vec<Finding> {
    RULES.iter().find(|(known, _)| *known == name).expect("a rule of that name").1
}

const CORE: (&str, &str) = ("crates/trilby-core/Cargo.toml", "[package]\nname = \"trilby-core\"\n");

#[test]
fn levels() {
    keeps("levels");
    let core = "[package]\nname = \"trilby-core\"\n[dependencies]\ntrilby-component = {}\ntrilby-runtime = {}\n";
    let door = "[package]\nname = \"trilby-door-http\"\n[dependencies]\ntrilby-door-grpc.workspace = true\n";
    let strange = "[package]\nname = \"strange\"\n";
    let files = [
        ("crates/trilby-core/Cargo.toml", core),
        ("crates/door/Cargo.toml", door),
        ("crates/strange/Cargo.toml", strange),
    ];
    assert_eq!(
        findings("levels", &files),
        ["crates/trilby-core/Cargo.toml:5", "crates/door/Cargo.toml:4", "crates/strange/Cargo.toml"]
    );
}

#[test]
fn forbidden_dependencies() {
    keeps("forbidden-dependencies");
    let core =
        "[package]\nname = \"trilby-core\"\n[dependencies]\nhttp = 1\ntonic-prost = 1\n[dev-dependencies]\nhyper = 1\n";
    let components = "[package]\nname = \"trilby-components\"\n[dependencies]\ntrilby-core.workspace = true\n";
    let files = [("crates/a/Cargo.toml", core), ("crates/b/Cargo.toml", components)];
    assert_eq!(findings("forbidden-dependencies", &files), ["crates/a/Cargo.toml:5", "crates/b/Cargo.toml:4"]);
}

#[test]
fn doors() {
    keeps("doors");
    let files = [
        ("crates/trilby-door-http/Cargo.toml", "[package]\nname = \"trilby-door-http\"\n"),
        (
            "crates/trilby-door-http/src/state.rs",
            "use tokio::task::JoinHandle;\nuse trilby_core::Handle;\nuse trilby_components::x;\n",
        ),
        CORE,
        ("crates/trilby-core/src/state.rs", "use crate::Handle;\n"),
    ];
    assert_eq!(
        findings("doors", &files),
        ["crates/trilby-door-http/src/state.rs:2", "crates/trilby-door-http/src/state.rs:3"]
    );
}

#[test]
fn module_docs() {
    keeps("module-docs");
    let files = [("a.rs", "//! Says it.\n"), ("b.rs", "use a;\n"), ("c.rs", "// A licence.\n//! Late.\n")];
    assert_eq!(findings("module-docs", &files), ["b.rs:1", "c.rs:1"]);
}

#[test]
fn file_length() {
    keeps("file-length");
    let long = "fn a() {}\n".repeat(601);
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{long}}}\n", "fn a() {}\n".repeat(600));
    let files = [("a.rs", long.as_str()), ("b.rs", &tested), ("tests/c.rs", &long)];
    assert_eq!(findings("file-length", &files), ["a.rs"]);
}

#[test]
fn no_mod_rs() {
    keeps("no-mod-rs");
    assert_eq!(findings("no-mod-rs", &[("src/state/mod.rs", ""), ("tests/common/mod.rs", "")]), ["src/state/mod.rs"]);
}

#[test]
fn no_ignored_tests() {
    keeps("no-ignored-tests");
    let text = "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n";
    assert_eq!(findings("no-ignored-tests", &[("tests/a.rs", text)]), ["tests/a.rs:2"]);
}

#[test]
fn no_todo() {
    keeps("no-todo");
    assert_eq!(findings("no-todo", &[("a.rs", "// todo!\nfn a() { todo!() }\n")]), ["a.rs:2"]);
}

#[test]
fn no_printing() {
    keeps("no-printing");
    let text = "fn a() { println!() }\n#[cfg(test)]\nmod tests { fn b() { println!() } }\n";
    let files = [
        CORE,
        ("crates/trilby-core/src/a.rs", text),
        ("crates/trilby-core/examples/b.rs", text),
        ("crates/cli/src/main.rs", text),
    ];
    assert_eq!(findings("no-printing", &files), ["crates/trilby-core/src/a.rs:1"]);
}

#[test]
fn no_exit() {
    keeps("no-exit");
    let files = [CORE, ("crates/trilby-core/src/a.rs", "fn a() { std::process::exit(1) }\n")];
    assert_eq!(findings("no-exit", &files), ["crates/trilby-core/src/a.rs:1"]);
}

#[test]
fn no_unwrap() {
    keeps("no-unwrap");
    let text = "/// a.unwrap()\nfn a() { a.unwrap() }\n#[cfg(test)]\nmod tests { fn b() { a.unwrap() } }\n";
    assert_eq!(findings("no-unwrap", &[("src/a.rs", text), ("tests/b.rs", text)]), ["src/a.rs:2"]);
}

#[test]
fn no_message_matching() {
    keeps("no-message-matching");
    let text = "fn a() { error.to_string().contains(\"no rows\") }\n";
    assert_eq!(findings("no-message-matching", &[("src/a.rs", text)]), ["src/a.rs:1"]);
}

#[test]
fn architecture() {
    keeps("architecture");
    assert_eq!(findings("architecture", &[]), ["ARCHITECTURE.md"]);
    assert_eq!(findings("architecture", &[("ARCHITECTURE.md", &"line\n".repeat(251))]), ["ARCHITECTURE.md"]);
    assert!(findings("architecture", &[("ARCHITECTURE.md", "short\n")]).is_empty());
}
