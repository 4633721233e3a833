//! What can be wrong before an app runs. The reader is whoever wrote the resource files.

use std::{io, path::PathBuf};

use trilby_component::ComponentError;

use crate::resources::Origin;

/// A runtime could not start. Says which file, which resource, which field, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file or a directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A document is not YAML, or not the resource that it says it is.
    #[error("{origin}: {message}")]
    Document {
        /// Where it is.
        origin: Origin,
        /// What was found and what is expected.
        message: String,
    },
    /// One app would see two resources of the same kind and name.
    #[error(
        "duplicate {kind} {name} for app {app}: {} and {}; rename one, or scope them to different apps",
        origins[0], origins[1]
    )]
    Duplicate {
        /// The resources' kind.
        kind: &'static str,
        /// The name that both have.
        name: String,
        /// The app that would see both.
        app: String,
        /// Where they are.
        origins: Box<[Origin; 2]>,
    },
    /// A component or an HTTP endpoint cannot be set up.
    #[error("{origin}: {resource}: {source}")]
    Resource {
        /// Where it is.
        origin: Origin,
        /// Its kind, name and type: `component statestore (state.redis/v1)`.
        resource: String,
        /// What was found and what is allowed.
        source: ComponentError,
    },
    /// A Configuration asks for what it must not, or for what this version does not have.
    #[error("{name}: {message}")]
    Configuration {
        /// The file or text that it came from.
        name: String,
        /// The field, what was found and what is allowed.
        message: String,
    },
    /// Two apps of one runtime have the same id.
    #[error("two apps have the id {0}; every app of a runtime needs an id of its own")]
    DuplicateApp(String),
}
