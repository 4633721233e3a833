//! Which crate may use which: the levels of the house, and what each crate must do without.

use super::{
    Finding,
    tree::{Dependency, Manifest, Tree},
};

/// Every crate and its level. A crate uses lower levels only, so none of its own: the doors do not know each other.
const LEVELS: &[(&str, u8)] = &[
    ("trilby-component", 0),
    ("trilby-proto", 0),
    ("trilby-tls", 0),
    ("trilby-core", 1),
    ("trilby-wasm", 1),
    ("trilby-door-http", 2),
    ("trilby-door-grpc", 2),
    ("trilby-door-wasm", 2),
    ("trilby-components", 2),
    ("trilby-runtime", 3),
    ("trilby", 4),
    ("cli", PROGRAMS),
    ("embed", PROGRAMS),
    ("trilby-conformance", PROGRAMS),
    ("drivers", PROGRAMS),
    ("xtask", PROGRAMS),
];

/// From this level on crates are programs: they may print and exit.
const PROGRAMS: u8 = 5;

const DOORS: &[&str] = &["trilby-door-http", "trilby-door-grpc", "trilby-door-wasm"];
/// Transports, engines and drivers.
const OUTSIDE: &[&str] = &["axum", "hyper", "tonic", "prost", "wasmtime", "reqwest", "sqlx"];

/// A crate, what it must do without, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("trilby-component", OUTSIDE, "what a component author needs knows no transport and no driver"),
    ("trilby-core", OUTSIDE, "the core never sees a transport"),
    ("trilby-components", &["trilby-core"], "components store, the core decides"),
    ("trilby-runtime", DOORS, "the runtime serves programs without any door"),
];

/// Level of the crate called `name`; None if it is not one of ours.
pub(super) fn level(name: &str) -> Option<u8> {
    LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
}

/// Whether the crate called `name` is a library of ours.
pub(super) fn is_library(name: &str) -> bool {
    level(name).is_some_and(|level| level < PROGRAMS)
}

pub(super) fn levels_point_down(tree: &Tree) -> Vec<Finding> {
    tree.manifests.iter().flat_map(upward).collect()
}

fn upward(manifest: &Manifest) -> Vec<Finding> {
    let package = &manifest.package;
    let Some(own) = level(package) else {
        let member = manifest.path.strip_prefix("crates/").is_some_and(|rest| rest.matches('/').count() == 1);
        let message = format!("{package} has no level; add it to LEVELS in crates/xtask/src/tidy/dependencies.rs");
        return if member { vec![finding(manifest, None, message)] } else { Vec::new() };
    };
    let wrong = manifest
        .dependencies
        .iter()
        .filter_map(|used| Some((used, level(&used.name)?)))
        .filter(|(_, level)| *level >= own);
    wrong
        .map(|(used, level)| {
            let message =
                format!("{package} is on level {own} and may not use {}, which is on level {level}", used.name);
            finding(manifest, Some(used), message)
        })
        .collect()
}

pub(super) fn none_is_forbidden(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in &tree.manifests {
        for (_, forbidden, why) in FORBIDDEN.iter().filter(|(name, ..)| *name == manifest.package) {
            for used in &manifest.dependencies {
                // The family counts, not the one crate: `tonic-prost` is `tonic`.
                if forbidden.iter().any(|name| used.name == *name || used.name.starts_with(&format!("{name}-"))) {
                    findings.push(finding(
                        manifest,
                        Some(used),
                        format!("{} may not use {}: {why}", manifest.package, used.name),
                    ));
                }
            }
        }
    }
    findings
}

fn finding(manifest: &Manifest, used: Option<&Dependency>, message: String) -> Finding {
    Finding { path: manifest.path.clone(), line: used.map(|used| used.line), message }
}
