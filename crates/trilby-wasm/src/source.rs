//! Where a program comes from: a file, an address or a registry.

mod http;
mod oci;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::Uri;
use ::http::header::HeaderMap;
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use self::http::Client;
pub(crate) use self::http::connector;
pub use self::oci::Reference;
use crate::error::{LoadError, LoadReason};

/// Where a program comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A local file.
    File(PathBuf),
    /// An `http://` or `https://` address.
    Address(Uri),
    /// An artifact in an OCI registry.
    Oci(Reference),
}

/// Bounds of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// Largest program. Default 256 MiB.
    pub bytes: usize,
    /// Redirects followed. Default 5.
    pub redirects: usize,
    /// Longest time for all of it. Default 60 s.
    pub timeout: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { bytes: 256 << 20, redirects: 5, timeout: Duration::from_secs(60) }
    }
}

impl Source {
    /// Reads a path, `file://`, `http://`, `https://` or `oci://`.
    ///
    /// # Errors
    ///
    /// `Scheme` for any other scheme, `Address` for what does not parse.
    pub fn parse(text: &str) -> Result<Self, LoadError> {
        let parsed = match text.split_once("://") {
            None => Ok(Self::File(text.into())),
            Some(("file", path)) => {
                percent_decode_str(path).decode_utf8().map(|path| Self::File(path.as_ref().into())).map_err(bad)
            }
            Some(("http" | "https", _)) => text.parse().map(Self::Address).map_err(bad),
            Some(("oci", reference)) => reference.parse().map(Self::Oci),
            Some((scheme, _)) => Err(LoadReason::Scheme(scheme.into())),
        };
        parsed.map_err(|reason| reason.of(text))
    }

    /// Reads or downloads it whole.
    pub async fn fetch(&self, limits: &FetchLimits) -> Result<Bytes, LoadReason> {
        match self {
            Self::File(path) => read(path, limits).await,
            Self::Address(_) | Self::Oci(_) => tokio::time::timeout(limits.timeout, self.download(limits))
                .await
                .unwrap_or(Err(LoadReason::Timeout(limits.timeout))),
        }
    }

    /// What a program from there calls itself: the last part of its name, without `.wasm`.
    pub fn program_name(&self) -> String {
        let name = match self {
            Self::File(path) => path.file_name().unwrap_or_default().to_string_lossy(),
            Self::Address(uri) => uri.path().rsplit('/').next().unwrap_or_default().into(),
            Self::Oci(reference) => reference.name().into(),
        };
        name.strip_suffix(".wasm").unwrap_or(&name).to_owned()
    }

    async fn download(&self, limits: &FetchLimits) -> Result<Bytes, LoadReason> {
        let client = Client::new(limits.redirects)?;
        match self {
            Self::Address(uri) => http::body(client.get(uri, &HeaderMap::new()).await?, limits.bytes).await,
            Self::Oci(reference) => reference.fetch(&client, limits.bytes).await,
            Self::File(path) => read(path, limits).await,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Address(uri) => uri.fmt(f),
            Self::Oci(reference) => reference.fmt(f),
        }
    }
}

async fn read(path: &Path, limits: &FetchLimits) -> Result<Bytes, LoadReason> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => LoadReason::NotFound,
        _ => LoadReason::Read(error),
    };
    let len = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if len > limits.bytes as u64 {
        return Err(LoadReason::TooLarge(limits.bytes));
    }
    Ok(tokio::fs::read(path).await.map_err(failed)?.into())
}

fn bad(error: impl std::error::Error) -> LoadReason {
    LoadReason::Address(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_by_its_file() {
        let name = |text| Source::parse(text).expect("a source").program_name();
        assert_eq!(name("file://dir/main.wasm"), "main");
        assert_eq!(name("https://host/a/b.wasm?v=1"), "b");
        assert_eq!(name("oci://host/a/tool:1"), "tool");
        assert_eq!(name("main"), "main");
    }

    fn check(text: &str, expect: &str) {
        let found = Source::parse(text).map_or_else(|error| error.to_string(), |source| format!("{source:?}"));
        assert_eq!(found, expect);
    }

    #[test]
    fn sources_are_told_apart() {
        check("app.wasm", r#"File("app.wasm")"#);
        check("file:///tmp/a%20b.wasm", r#"File("/tmp/a b.wasm")"#);
        check("https://host/a.wasm?v=1", "Address(https://host/a.wasm?v=1)");
        check(
            "ftp://host/a",
            r#"ftp://host/a: unknown scheme "ftp"; use a path, file://, http://, https:// or oci://"#,
        );
        check("oci://host", r#"oci://host: is not a valid address: "host" is not HOST/REPOSITORY[:TAG]"#);
        check("http://", "http://: is not a valid address: empty string");
    }
}
