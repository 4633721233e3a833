//! The tree that rules look at: every Rust file, every manifest, every document.

use std::{collections::BTreeMap, fs, path::Path};

use super::source::Source;
use crate::process::{Result, at};

/// Folders that hold results or what others wrote.
const SKIPPED: &[&str] = &["target", "node_modules", "generated"];

/// Everything that rules read. Paths are relative to the root, with `/`.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) sources: Vec<Source>,
    pub(crate) manifests: Vec<Manifest>,
    /// Markdown, by path.
    pub(crate) documents: BTreeMap<String, String>,
}

/// The parts of a `Cargo.toml` that rules are about.
pub(crate) struct Manifest {
    pub(crate) path: String,
    pub(crate) package: String,
    /// What the crate is built with. Dev-dependencies are left out: a test may look at its crate from above.
    pub(crate) dependencies: Vec<Dependency>,
}

pub(crate) struct Dependency {
    /// The package, not what the manifest renames it to.
    pub(crate) name: String,
    pub(crate) line: usize,
}

impl Tree {
    /// Reads the tree under `root`.
    ///
    /// # Errors
    /// A file cannot be read, or is not text.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> Result {
        let mut entries = fs::read_dir(folder).map_err(at(folder))?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                self.read_folder(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() && (name == "Cargo.toml" || name.ends_with(".rs") || name.ends_with(".md")) {
                self.add(path, fs::read_to_string(entry.path()).map_err(at(&entry.path()))?);
            }
        }
        Ok(())
    }

    /// Adds one file; what it is follows from its name.
    pub(crate) fn add(&mut self, path: String, text: String) {
        if path.ends_with(".rs") {
            self.sources.push(Source::new(path, text));
        } else if path.ends_with(".md") {
            self.documents.insert(path, text);
        } else {
            self.manifests.push(Manifest::parse(path, &text));
        }
    }

    /// Name of the package that the file at `path` belongs to; empty if none.
    pub(crate) fn package_of(&self, path: &str) -> &str {
        let folder = |manifest: &Manifest| manifest.path.trim_end_matches("Cargo.toml").len();
        let around =
            self.manifests.iter().filter(|manifest| path.starts_with(manifest.path.trim_end_matches("Cargo.toml")));
        around.max_by_key(|manifest| folder(manifest)).map_or("", |manifest| &manifest.package)
    }
}

impl Manifest {
    /// Reads what is needed of TOML as manifests are written: tables in headers, one key a line.
    fn parse(path: String, text: &str) -> Self {
        let mut manifest = Self { path, package: String::new(), dependencies: Vec::new() };
        let mut table = String::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                table = header.to_owned();
                if let Some((_, name)) = table.split_once("dependencies.").filter(|(kind, _)| builds(kind)) {
                    manifest.dependencies.push(Dependency { name: name.to_owned(), line: index + 1 });
                }
            } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                manifest.read_key(&table, key.trim(), value.trim(), index + 1);
            }
        }
        manifest
    }

    fn read_key(&mut self, table: &str, key: &str, value: &str, line: usize) {
        if table == "package" && key == "name" {
            self.package = value.trim_matches('"').to_owned();
        } else if table.strip_suffix("dependencies").is_some_and(builds) {
            let renamed = value.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
            let name = renamed.unwrap_or_else(|| key.split('.').next().unwrap_or(key));
            self.dependencies.push(Dependency { name: name.to_owned(), line });
        }
    }
}

/// Whether a table of dependencies is one that the crate is built with, from what stands before the word: nothing,
/// `build-`, or `target.'cfg(…)'.`; not `dev-`, nor the root's `workspace.`, which only gives versions.
fn builds(kind: &str) -> bool {
    !kind.ends_with("dev-") && !kind.starts_with("workspace.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_in_every_spelling() {
        let text = "\
[package]
name = \"a\"
[dependencies]
bytes.workspace = true
# hyper = \"1\"
web = { package = \"axum\", version = \"1\" }
[dependencies.tonic]
version = \"1\"
[dev-dependencies]
tempfile = \"3\"
[target.'cfg(unix)'.dependencies]
libc = \"1\"
[build-dependencies]
prost = \"1\"
[workspace.dependencies]
sqlx = \"1\"
";
        let manifest = Manifest::parse("Cargo.toml".to_owned(), text);
        let names: Vec<_> = manifest.dependencies.iter().map(|dependency| dependency.name.as_str()).collect();
        assert_eq!(manifest.package, "a");
        assert_eq!(names, ["bytes", "axum", "tonic", "libc", "prost"]);
    }

    #[test]
    fn a_file_belongs_to_the_nearest_manifest() {
        let mut tree = Tree::default();
        tree.add("Cargo.toml".to_owned(), "[workspace]".to_owned());
        tree.add("crates/a/Cargo.toml".to_owned(), "[package]\nname = \"a\"".to_owned());
        tree.add("crates/a/gen/Cargo.toml".to_owned(), "[package]\nname = \"gen\"".to_owned());
        assert_eq!(tree.package_of("crates/a/src/lib.rs"), "a");
        assert_eq!(tree.package_of("crates/a/gen/src/main.rs"), "gen");
        assert_eq!(tree.package_of("crates/b/src/lib.rs"), "");
    }
}
