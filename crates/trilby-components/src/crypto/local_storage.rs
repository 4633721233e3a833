//! `crypto.dapr.localstorage`: each file of a folder is a key, and its name the key's.
//!
//! A file ends in `.json` (a JSON Web Key) or `.pem` (PKCS#1, PKCS#8, SEC 1 or PKIX), or holds any of these, or the bytes
//! of a symmetric key, or base64 of them. It is read for each operation, so that a key can be replaced at any time.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use serde::Deserialize;
use trilby_component::{ComponentError, ErrorKind, OpenRequest, Result, crypto::CryptoProvider};

use super::{
    key::{Form, Key},
    local::{KeySource, Local},
};

/// What `spec.metadata` may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The folder. Required. Dapr's `path`.
    pub path: String,
}

/// Checks that the folder is there.
///
/// # Errors
/// `InvalidMetadata` if `path` is not set or is no folder.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn CryptoProvider>> {
    let config: Config = request.properties.parse()?;
    if config.path.is_empty() {
        return Err(ComponentError::metadata("metadata property 'path' is required; set it to a folder of keys"));
    }
    let path = &config.path;
    match tokio::fs::metadata(path).await {
        Ok(found) if found.is_dir() => Ok(Arc::new(Local(Folder(config.path.into())))),
        Ok(_) => Err(ComponentError::metadata(format!("path '{path}' is not a directory; set it to a folder of keys"))),
        Err(error) => {
            let reason = reason(&error);
            Err(ComponentError::metadata(format!("could not stat path '{path}': {reason}; create the folder of keys"))
                .with_source(error))
        }
    }
}

struct Folder(PathBuf);

#[async_trait]
impl KeySource for Folder {
    async fn key(&self, name: &str) -> Result<Arc<Key>> {
        if name.contains("..") {
            return Err(ComponentError::request("invalid key path: cannot contain '..'"));
        }
        // A name that begins at the root begins at this one.
        let path = self.0.join(name.trim_start_matches('/'));
        let name = name.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&path, &name)).await;
        read.unwrap_or_else(|error| {
            Err(ComponentError::new(ErrorKind::Internal, format!("the key was not read: {error}")))
        })
    }
}

fn read(path: &Path, name: &str) -> Result<Arc<Key>> {
    let text = std::fs::read(path).map_err(|error| {
        let (kind, verb) = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => (ErrorKind::NotFound, "open"),
            io::ErrorKind::IsADirectory => (ErrorKind::NotFound, "read"),
            io::ErrorKind::PermissionDenied => (ErrorKind::Denied, "open"),
            _ => (ErrorKind::Internal, "open"),
        };
        let path = path.display().to_string();
        let message =
            format!("failed to load key '{name}': {verb} {}: {}", path.trim_end_matches("/."), reason(&error));
        ComponentError::new(kind, message).with_source(error)
    })?;
    let extension = path.extension().unwrap_or_default();
    let form = match extension {
        extension if extension.eq_ignore_ascii_case("json") => Form::Json,
        extension if extension.eq_ignore_ascii_case("pem") => Form::Pem,
        _ => Form::Unknown,
    };
    let key = Key::parse(&text, form);
    key.map(Arc::new).map_err(|reason| ComponentError::request(format!("failed to parse key from secret: {reason}")))
}

/// What the system said, as Go says it: in lower case and without a number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text);
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_lowercase() + rest
}

#[cfg(test)]
mod tests {
    use trilby_component::crypto::{CipherRequest, KeyFormat};

    use super::*;

    async fn provider(files: &[(&str, &str)]) -> (tempfile::TempDir, Arc<dyn CryptoProvider>) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let properties = [("path", folder.path().to_str().expect("UTF-8"))].into_iter().collect();
        let provider = open(OpenRequest { name: "keys".into(), properties }).await.expect("opens");
        (folder, provider)
    }

    fn request(key: &str) -> CipherRequest {
        let input = vec![7; 32].into();
        CipherRequest { input, algorithm: "A256KW".into(), key: key.into(), ..CipherRequest::default() }
    }

    #[tokio::test]
    async fn a_key_is_a_file_and_may_change() {
        let (folder, keys) = provider(&[("sym", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]).await;
        let wrapped = keys.wrap_key(&request("/sym")).await.expect("wraps");
        let unwrap = CipherRequest { input: wrapped.output, ..request("sym") };
        assert_eq!(keys.unwrap_key(&unwrap).await.expect("unwraps").output, vec![7; 32]);
        assert_eq!(keys.public_key("sym", KeyFormat::Pem).await.expect("is there"), None);
        std::fs::write(folder.path().join("sym"), [1; 32]).expect("written");
        let error = keys.unwrap_key(&unwrap).await.expect_err("another key");
        assert_eq!(error.to_string(), "failed to decrypt data: integrity check failed - unexpected IV");
    }

    #[tokio::test]
    async fn no_name_leads_out_of_the_folder() {
        let (folder, keys) = provider(&[("sym", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]).await;
        let inside = folder.path().file_name().expect("a name").to_str().expect("UTF-8");
        for name in ["..", "../x", &format!("../{inside}/sym"), "a/../sym"] {
            let error = keys.wrap_key(&request(name)).await.expect_err(name).to_string();
            let expect = "failed to retrieve the key encryption key: invalid key path: cannot contain '..'";
            assert_eq!(error, expect);
        }
        let error = keys.wrap_key(&request("/etc/hostname")).await.expect_err("not there");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn what_is_no_key_is_said_as_dapr_says_it() {
        let (folder, keys) = provider(&[("empty", ""), ("broken.pem", "x"), ("broken.json", "{}")]).await;
        let at = folder.path().display();
        for (name, expect) in [
            ("nope", format!("failed to load key 'nope': open {at}/nope: no such file or directory")),
            (".", format!("failed to load key '.': read {at}: is a directory")),
            ("empty/x", format!("failed to load key 'empty/x': open {at}/empty/x: not a directory")),
            ("empty", "failed to parse key from secret: key is empty".into()),
            (
                "broken.pem",
                "failed to parse key from secret: failed to parse PEM encoded key: there is no PEM block".into(),
            ),
            ("broken.json", "failed to parse key from secret: missing field `kty` at line 1 column 2".into()),
        ] {
            let error = keys.wrap_key(&request(name)).await.expect_err(name).to_string();
            assert_eq!(error, format!("failed to retrieve the key encryption key: {expect}"));
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_not_set_missing_or_none_is_named_with_the_fix() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        let file = file.to_str().expect("UTF-8");
        for (path, start) in [
            ("", "metadata property 'path' is required; set it".to_owned()),
            ("no/such", "could not stat path 'no/such': no such file or directory; create".to_owned()),
            (file, format!("path '{file}' is not a directory; set it")),
        ] {
            let properties = [("path", path)].into_iter().collect();
            let opened = open(OpenRequest { name: "keys".into(), properties }).await;
            let error = opened.err().expect("no folder");
            assert_eq!(error.kind(), ErrorKind::InvalidMetadata);
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }
}
