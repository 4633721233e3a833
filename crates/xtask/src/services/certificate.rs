//! The certificate that servers show to tests: its name is `localhost`. The same as of the HTTP door's tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::process::{Result, at};

/// The server's certificate. The authority that signed it follows, so that a test can read from a server whom to trust.
pub(super) const CHAIN: &str = concat!(
    include_str!("../../../trilby-door-http/tests/door/tls/localhost.pem"),
    include_str!("../../../trilby-door-http/tests/door/tls/ca.pem"),
);
/// The authority alone.
pub(super) const AUTHORITY: &str = include_str!("../../../trilby-door-http/tests/door/tls/ca.pem");
/// Of the server's certificate.
pub(super) const KEY: &str = include_str!("../../../trilby-door-http/tests/door/tls/localhost.key");

/// Where [`write_to`] has put the three.
pub(super) struct Files {
    pub(super) chain: PathBuf,
    pub(super) authority: PathBuf,
    pub(super) key: PathBuf,
}

/// Writes the three into `folder`.
///
/// # Errors
/// A file cannot be written.
pub(super) fn write_to(folder: &Path) -> Result<Files> {
    let write = |name: &str, content: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, content).map_err(at(&path))?;
        Ok(path)
    };
    Ok(Files {
        chain: write("server.pem", CHAIN)?,
        authority: write("ca.pem", AUTHORITY)?,
        key: write("server.key", KEY)?,
    })
}
