//! The components that a program has without any resource file, under the names that `dapr init` gives.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use trilby_runtime::Resources;

use crate::Error;

/// A state store `statestore` in `state.db`, a broker `pubsub` and a lock store `lockstore` in memory, a secret store
/// `secretstore` over `secrets.json` and a configuration store `configstore` over `configuration.json`, all files in one
/// directory.
///
/// The state store is the one for actors too. Secrets and configuration are one JSON object each of names and values;
/// secrets are read once at start, configuration whenever the file changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    /// Where the files are; made if it is not there.
    pub dir: PathBuf,
}

impl Embedded {
    /// Makes the files that are missing, and reads the components that use them.
    ///
    /// # Errors
    /// If the directory or a file in it cannot be made.
    pub fn read(&self) -> Result<Resources, Error> {
        let mut resources = Resources::strict();
        resources.read_text("embedded components", &self.prepare()?)?;
        Ok(resources)
    }

    fn prepare(&self) -> Result<String, Error> {
        let failed = |path: &Path, source| Error::Embedded { path: path.to_owned(), source };
        fs::create_dir_all(&self.dir).map_err(|source| failed(&self.dir, source))?;
        // Absolute, so that it still leads there when the program changes its directory.
        let dir = fs::canonicalize(&self.dir).map_err(|source| failed(&self.dir, source))?;
        let (secrets, configuration) = (dir.join("secrets.json"), dir.join("configuration.json"));
        for path in [&secrets, &configuration] {
            create(path).map_err(|source| failed(path, source))?;
        }
        Ok(resources(&dir.join("state.db"), &secrets, &configuration))
    }
}

/// Writes an empty object, for its owner's eyes, unless there is a file.
fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => file.write_all(b"{}\n"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn resources(state: &Path, secrets: &Path, configuration: &Path) -> String {
    let (state, secrets, configuration) = (quoted(state), quoted(secrets), quoted(configuration));
    format!(
        "apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: configstore}}
spec:
  type: configuration.local.file
  version: v1
  metadata:
  - {{name: path, value: {configuration}}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: lockstore}}
spec: {{type: lock.in-memory, version: v1}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: pubsub}}
spec: {{type: pubsub.in-memory, version: v1}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: secretstore}}
spec:
  type: secretstores.local.file
  version: v1
  metadata:
  - {{name: secretsFile, value: {secrets}}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: statestore}}
spec:
  type: state.sqlite
  version: v1
  metadata:
  - {{name: connectionString, value: {state}}}
  - {{name: actorStateStore, value: \"true\"}}
"
    )
}

/// A path as a YAML string in which nothing has a meaning.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_are_there_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let embedded = Embedded { dir: directory.path().join("it's/deep") };
        embedded.prepare().expect("made");
        let secrets = embedded.dir.join("secrets.json");
        assert_eq!(fs::read_to_string(&secrets).expect("there"), "{}\n");
        fs::write(&secrets, "{\"a\": \"b\"}").expect("writable");
        let resources = embedded.prepare().expect("there already");
        assert_eq!(fs::read_to_string(&secrets).expect("there"), "{\"a\": \"b\"}");
        assert!(resources.contains("it''s/deep/state.db'"), "{resources}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("writable");
        let error = Embedded { dir: file.join("below") }.prepare().expect_err("a file is in the way").to_string();
        assert!(
            error.starts_with(&format!("cannot prepare {}/below for the embedded components: ", file.display())),
            "{error}"
        );
    }
}
