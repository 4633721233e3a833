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

/// What a guest handles by an export of its own, so that no route is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    /// `trilby:dapr/subscriber`: messages, one by one.
    Subscriber,
    /// `trilby:dapr/bulk-subscriber`: messages, several at a time.
    BulkSubscriber,
    /// `trilby:dapr/input-binding`: events of input bindings.
    InputBinding,
    /// `trilby:dapr/configuration-watcher`: changes of configuration.
    ConfigurationWatcher,
    /// `trilby:dapr/health`: health checks.
    Health,
}

impl Handler {
    const ALL: [Self; 5] =
        [Self::Subscriber, Self::BulkSubscriber, Self::InputBinding, Self::ConfigurationWatcher, Self::Health];

    /// The exported interface, without its version.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Self::Subscriber => "trilby:dapr/subscriber",
            Self::BulkSubscriber => "trilby:dapr/bulk-subscriber",
            Self::InputBinding => "trilby:dapr/input-binding",
            Self::ConfigurationWatcher => "trilby:dapr/configuration-watcher",
            Self::Health => "trilby:dapr/health",
        }
    }

    fn is_in(self, exports: &Side) -> bool {
        exports.interface(self.interface()).is_some_and(|found| has_version(found, "0.2"))
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
    /// How it is called by other apps and the world; `None` if it cannot be.
    pub entry: Option<Entry>,
    /// Other ways in that it exports, which are not used.
    pub unused_entries: Vec<Entry>,
    /// What it handles by exports of its own.
    pub handlers: Vec<Handler>,
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

    /// Whether it exports anything that makes it an app.
    #[must_use]
    pub fn is_app(&self) -> bool {
        self.entry.is_some() || !self.handlers.is_empty()
    }

    /// Whether it handles this by an export of its own.
    #[must_use]
    pub fn has(&self, handler: Handler) -> bool {
        self.handlers.contains(&handler)
    }

    /// Says what is used where a guest exports two things for one purpose.
    pub(crate) fn log_precedence(&self, app_id: &str) {
        let Some(entry) = self.entry else { return };
        let used = entry.interface();
        for unused in self.unused_entries.iter().map(|unused| unused.interface()) {
            tracing::info!(app_id, used, unused, "guest has two ways in");
        }
        for handler in &self.handlers {
            let used = handler.interface();
            tracing::info!(app_id, used, "guest has a handler, its routes are not asked for that");
        }
    }

    fn of_surface(surface: Surface, grants: &Grants) -> Self {
        let mut entries = Entry::ALL.into_iter().filter(|entry| entry.is_in(&surface.exports));
        let entry = entries.next();
        let unused_entries = entries.collect();
        let imports = &surface.imports;
        let handlers = Handler::ALL.into_iter().filter(|handler| handler.is_in(&surface.exports)).collect();
        // Of some interfaces a handler needs only the types.
        let called = imports.interfaces.iter().filter(|import| !import.functions.is_empty());
        let blocks = called.filter_map(|import| import.name.strip_prefix("trilby:dapr/")).map(str::to_owned).collect();
        let refused = imports.interfaces.iter().filter_map(|import| refuse(import, grants));
        let loose = imports.functions.iter().map(|function| &function.name).chain(&imports.others);
        let loose = loose.map(|name| Refusal { import: name.clone(), reason: Reason::Unknown });
        let refusals = refused.chain(loose).collect();
        Self { surface, entry, unused_entries, handlers, blocks, refusals }
    }
}

fn refuse(import: &Interface, grants: &Grants) -> Option<Refusal> {
    let reason = match import.name.split_once('/').unwrap_or((&import.name, "")) {
        (
            "trilby:dapr",
            "types" | "events" | "state" | "pubsub" | "bindings" | "secrets" | "configuration" | "lock" | "crypto"
            | "crypto-streams" | "conversation" | "invoke" | "app",
        ) => (!has_version(import, "0.2")).then_some(Reason::Version { known: "0.2.x" }),
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
    use trilby_wasm::inspect::Function;

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
    fn handlers_alone_make_an_app() {
        let handles = report(&[], &["trilby:dapr/health@0.2.0", "trilby:dapr/subscriber@0.2.1"]);
        assert_eq!((handles.entry, handles.is_app()), (None, true));
        assert_eq!(handles.handlers, [Handler::Subscriber, Handler::Health]);
        let both = report(&[], &["trilby:dapr/input-binding@0.2.0", "wasi:http/incoming-handler@0.2.0"]);
        assert_eq!((both.entry, both.handlers.as_slice()), (Some(Entry::Http), [Handler::InputBinding].as_slice()));
        assert!(!report(&[], &["trilby:dapr/subscriber@0.9.0"]).is_app());
    }

    #[test]
    fn a_block_is_listed_by_name_if_it_is_called() {
        let mut imports = side(&["trilby:dapr/state@0.2.0", "trilby:dapr/configuration@0.2.0", "wasi:io/poll@0.2.0"]);
        // Of the second, a handler needs a type.
        for called in [0, 2] {
            imports.interfaces[called].functions = vec![Function { name: "get".into(), is_async: false }];
        }
        let surface = Surface { imports, exports: Side::default() };
        assert_eq!(Report::of_surface(surface, &Grants::default()).blocks, ["state"]);
    }
}
