//! What a component is to this runtime: how it is called, what it uses, and what it would be refused.

use std::fmt;

use trilby_wasm::{
    Grants, Program,
    inspect::{Interface, Side, Surface},
};

/// How calls reach a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// `trilby:dapr/service`: typed, whole bodies.
    Service,
    /// `wasi:http/handler` of WASI 0.3: HTTP, streamed, async.
    HttpAsync,
    /// `wasi:http/incoming-handler` of WASI 0.2: HTTP, streamed.
    Http,
}

impl Entry {
    /// The exports that make a component an app; the one that wins comes first.
    const ALL: [Self; 3] = [Self::Service, Self::HttpAsync, Self::Http];

    /// The exported interface, without its version.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Service => "trilby:dapr/service",
            Self::HttpAsync => "wasi:http/handler",
            Self::Http => "wasi:http/incoming-handler",
        }
    }

    fn generation(self) -> &'static str {
        match self {
            Self::Service | Self::Http => "0.2",
            Self::HttpAsync => "0.3",
        }
    }

    fn is_in(self, exports: &Side) -> bool {
        exports.interface(self.interface()).is_some_and(|found| has_version(found, self.generation()))
    }
}

/// An import that a component may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The import as the component names it, with its version.
    pub import: String,
    /// Why not, and what would help.
    pub reason: Reason,
}

/// Why an import is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// This build has no such interface.
    Unknown,
    /// It has the interface in other versions.
    Version {
        /// The versions it has.
        known: &'static str,
    },
    /// It needs a grant.
    Grant {
        /// What is to be granted.
        grant: &'static str,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Unknown => write!(f, "{}, which this build does not have", self.import),
            Reason::Version { known } => write!(f, "{}, which this build has only as {known}", self.import),
            Reason::Grant { grant } => write!(f, "{}, which needs a grant: {grant}", self.import),
        }
    }
}

/// A component, as `trilby inspect` shows it and as loading judges it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Everything it imports and exports.
    pub surface: Surface,
    /// How it is called; `None` if it exports nothing that makes it an app.
    pub entry: Option<Entry>,
    /// Other ways in that it exports, which are not used.
    pub unused_entries: Vec<Entry>,
    /// The building blocks it imports: `state`, `secrets`, …
    pub blocks: Vec<String>,
    /// Imports that it would be refused with these grants. A component with any is not loaded.
    pub refusals: Vec<Refusal>,
}

impl Report {
    /// Judges a program that has been given `grants`.
    #[must_use]
    pub fn of(program: &Program, grants: &Grants) -> Self {
        Self::of_surface(program.surface(), grants)
    }

    fn of_surface(surface: Surface, grants: &Grants) -> Self {
        let mut entries = Entry::ALL.into_iter().filter(|entry| entry.is_in(&surface.exports));
        let entry = entries.next();
        let unused_entries = entries.collect();
        let imports = &surface.imports;
        let blocks = imports.interfaces.iter().filter_map(|import| import.name.strip_prefix("trilby:dapr/"));
        let blocks = blocks.filter(|name| *name != "types").map(str::to_owned).collect();
        let refused = imports.interfaces.iter().filter_map(|import| refuse(import, grants));
        let loose = imports.functions.iter().map(|function| &function.name).chain(&imports.others);
        let loose = loose.map(|name| Refusal { import: name.clone(), reason: Reason::Unknown });
        let refusals = refused.chain(loose).collect();
        Self { surface, entry, unused_entries, blocks, refusals }
    }
}

fn refuse(import: &Interface, grants: &Grants) -> Option<Refusal> {
    let reason = match import.name.split_once('/').unwrap_or((&import.name, "")) {
        ("trilby:dapr", "types" | "state" | "secrets" | "invoke" | "app") => {
            (!has_version(import, "0.2")).then_some(Reason::Version { known: "0.2.x" })
        }
        ("wasi:logging", "logging") => {
            (import.version.as_deref() != Some("0.1.0-draft")).then_some(Reason::Version { known: "0.1.0-draft" })
        }
        // Interpreters import the file system whether their script uses it or not. Without a granted folder it is empty.
        (
            "wasi:io" | "wasi:clocks" | "wasi:random" | "wasi:cli" | "wasi:http" | "wasi:filesystem" | "wasi:sockets",
            _,
        ) if !is_wasi(import) => Some(Reason::Version { known: "0.2.x and 0.3.x" }),
        ("wasi:sockets", _) if grants.hosts.is_empty() => {
            Some(Reason::Grant { grant: "give the app hosts to connect to (allowedHosts)" })
        }
        (
            "wasi:io" | "wasi:clocks" | "wasi:random" | "wasi:cli" | "wasi:http" | "wasi:filesystem" | "wasi:sockets",
            _,
        ) => None,
        _ => Some(Reason::Unknown),
    };
    reason.map(|reason| Refusal { import: import.to_string(), reason })
}

fn is_wasi(import: &Interface) -> bool {
    has_version(import, "0.2") || has_version(import, "0.3")
}

/// Whether an interface is of a generation such as `0.2`. Within one, later versions only add.
pub(crate) fn has_version(interface: &Interface, generation: &str) -> bool {
    let patch = interface.version.as_deref().and_then(|version| version.strip_prefix(generation));
    patch.is_some_and(|patch| patch.starts_with('.') && !patch.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(names: &[&str]) -> Side {
        let interface = |full: &&str| {
            let (name, version) = full.split_once('@').map_or((*full, None), |(name, version)| (name, Some(version)));
            Interface { name: name.to_owned(), version: version.map(str::to_owned), ..Interface::default() }
        };
        Side { interfaces: names.iter().map(interface).collect(), ..Side::default() }
    }

    fn report(imports: &[&str], exports: &[&str]) -> Report {
        Report::of_surface(Surface { imports: side(imports), exports: side(exports) }, &Grants::default())
    }

    #[test]
    fn the_typed_entry_wins() {
        let both = report(&[], &["wasi:http/incoming-handler@0.2.3", "trilby:dapr/service@0.2.0"]);
        assert_eq!(both.entry, Some(Entry::Service));
        assert_eq!(both.unused_entries, [Entry::Http]);
        assert_eq!(report(&[], &["wasi:http/incoming-handler@0.2.12"]).entry, Some(Entry::Http));
        assert_eq!(report(&[], &["wasi:http/handler@0.3.2"]).entry, Some(Entry::HttpAsync));
        assert_eq!(report(&[], &["wasi:cli/run@0.2.0"]).entry, None);
        assert_eq!(report(&[], &["trilby:dapr/service@0.9.0"]).entry, None);
    }

    #[test]
    fn what_may_not_be_imported_is_named_with_the_fix() {
        for (import, expect) in [
            ("trilby:dapr/state@0.2.7", None),
            ("wasi:io/streams@0.2.12", None),
            ("wasi:logging/logging@0.1.0-draft", None),
            ("trilby:dapr/state@0.4.0", Some("trilby:dapr/state@0.4.0, which this build has only as 0.2.x")),
            ("trilby:dapr/horoscope@0.2.0", Some("trilby:dapr/horoscope@0.2.0, which this build does not have")),
            (
                "wasi:http/types@0.2.0-rc-2023-12-05",
                Some("wasi:http/types@0.2.0-rc-2023-12-05, which this build has only as 0.2.x and 0.3.x"),
            ),
            ("wasi:nn/tensor@0.2.0", Some("wasi:nn/tensor@0.2.0, which this build does not have")),
            ("wasi:filesystem/types@0.2.3", None),
            (
                "wasi:sockets/tcp@0.2.3",
                Some("wasi:sockets/tcp@0.2.3, which needs a grant: give the app hosts to connect to (allowedHosts)"),
            ),
        ] {
            let refusals = report(&[import], &[]).refusals;
            assert_eq!(refusals.first().map(ToString::to_string).as_deref(), expect, "{import}");
        }
    }

    #[test]
    fn blocks_are_listed_by_name() {
        let blocks = report(&["trilby:dapr/types@0.2.0", "trilby:dapr/state@0.2.0", "wasi:io/poll@0.2.0"], &[]).blocks;
        assert_eq!(blocks, ["state"]);
    }
}
