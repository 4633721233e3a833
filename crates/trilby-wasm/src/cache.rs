//! Compiled code kept on disk, so that a guest is compiled once and then mapped in a fraction of a millisecond.
//!
//! An entry's name is a hash of the Wasm and of everything in the engine that compiling depends on. Entries are sealed
//! with a random key that lies beside them, readable by its owner only: one that was changed, cut short or written by
//! someone else is passed over and compiled anew. Nothing that goes wrong here is an error, only slower.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::artifact::{self, Key, Seal};
use crate::error::LoadReason;
use crate::program::{Code, Digest};

const KEY_FILE: &str = "key";

pub(crate) struct Cache {
    dir: PathBuf,
    key: Key,
    engine: Digest,
}

impl Cache {
    /// Opens or makes the folder. `None`, and a warning, if that cannot be done.
    pub(crate) fn open(dir: &Path, engine: &wasmtime::Engine) -> Option<Self> {
        let key = make_private_dir(dir).and_then(|()| key(dir));
        match key {
            Ok(key) => Some(Self { dir: dir.to_owned(), key, engine: compatibility(engine) }),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "compiled code is not cached");
                None
            }
        }
    }

    /// The code compiled from `source`, if a sound entry is there.
    pub(crate) fn get(&self, engine: &wasmtime::Engine, source: &Digest) -> Option<Code> {
        let path = self.path(source);
        match self.read(engine, source, &path) {
            Ok(code) => Some(code),
            Err(LoadReason::Read(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(reason) => {
                tracing::warn!(entry = %path.display(), %reason, "cached code is passed over");
                None
            }
        }
    }

    /// Keeps what was compiled. Readers see the whole entry or none.
    pub(crate) fn put(&self, seal: &Seal, image: Vec<u8>) {
        let path = self.path(&seal.source);
        let content = seal.close(image, &self.key);
        if let Err(error) = replace(&self.dir, &path, &content) {
            tracing::warn!(entry = %path.display(), %error, "compiled code is not kept");
        }
    }

    fn read(&self, engine: &wasmtime::Engine, source: &Digest, path: &Path) -> Result<Code, LoadReason> {
        let (seal, _) = artifact::verify(path, &self.key)?;
        // An entry under another's name is as good as forged.
        if seal.source != *source {
            return Err(LoadReason::Damaged);
        }
        artifact::map(engine, path, seal.kind).map_err(LoadReason::Incompatible)
    }

    fn path(&self, source: &Digest) -> PathBuf {
        let name: Digest = Sha256::new().chain_update(source).chain_update(self.engine).finalize().into();
        self.dir.join(hex::encode(name)).with_extension("cwasm")
    }
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// The key of this folder; a new one if there is none that only its owner can read. Then older entries are void.
fn key(dir: &Path) -> io::Result<Key> {
    let path = dir.join(KEY_FILE);
    if let Some(key) = private_key(&path) {
        return Ok(key);
    }
    let mut key = Key::default();
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    replace(dir, &path, &key)?;
    // Another process may have been quicker or slower; what lies there now is what both use.
    private_key(&path).ok_or_else(|| io::Error::other("the key does not stay as it is written"))
}

fn private_key(path: &Path) -> Option<Key> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let mode = fs::symlink_metadata(path).ok()?.mode();
        if mode & 0o170_077 != 0o100_000 {
            return None;
        }
    }
    fs::read(path).ok()?.try_into().ok()
}

/// Writes a file that only its owner can read, in one step.
fn replace(dir: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}

/// Everything in the engine that compiled code depends on, as one hash.
fn compatibility(engine: &wasmtime::Engine) -> Digest {
    struct Sha(Sha256);

    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0
        }
    }

    let mut hasher = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}
