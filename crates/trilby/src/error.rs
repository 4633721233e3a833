//! Why a runtime did not start.

use std::{io, path::PathBuf};

use trilby_runtime::StartError;

use crate::{Address, Listener};

/// A runtime did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A resource, a Configuration or a component is at fault, or two apps have one id.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An address cannot be listened on.
    #[error(
        "app {app}: cannot listen on {address} for its {listener}: {source}; choose another address or stop who has it"
    )]
    Listen {
        /// The app.
        app: String,
        /// What was to listen.
        listener: Listener,
        /// The address.
        address: Address,
        /// What the system says.
        source: io::Error,
    },
    /// A setting of an app cannot be used.
    #[error("app {app}: {message}")]
    App {
        /// The app.
        app: String,
        /// The setting, what was found and what is allowed.
        message: String,
    },
    /// A Wasm app cannot be loaded.
    #[cfg(feature = "wasm")]
    #[error("app {app}: {source}")]
    Wasm {
        /// The app.
        app: String,
        /// The program and what is wrong with it.
        source: trilby_door_wasm::LoadError,
    },
    /// The directory of the embedded set cannot be made or written.
    #[error("cannot prepare {} for the embedded components: {source}", path.display())]
    Embedded {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
