//! Compiled code as a file: wasmtime's image, which can be mapped as it is, and behind it a seal.
//!
//! The seal says what the code was compiled from and for, and carries a keyed checksum over everything. With the secret
//! key of a cache the checksum proves that this runtime wrote the file; with the [`OPEN_KEY`] of files that users pass
//! around it only shows damage, and naming the file is the user's word that it may be trusted.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Module;
use wasmtime::component::Component;

use crate::error::LoadReason;
use crate::program::{Code, Digest, Kind};

/// A key for the checksum.
pub(crate) type Key = [u8; 32];

/// The key of files without a secret.
pub(crate) const OPEN_KEY: Key = [0; 32];

/// Says what it is, and the version of this layout.
const MAGIC: &[u8; 8] = b"trilby\x00\x01";
const TARGET_LEN: usize = 63;
const CHECKSUM_LEN: usize = 32;
const SEAL_LEN: usize = MAGIC.len() + 1 + TARGET_LEN + size_of::<Digest>() + CHECKSUM_LEN;

/// What stands in a seal besides the checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) kind: Kind,
    /// The sort of engine that can run the code, for people: wasmtime itself checks every detail.
    pub(crate) target: String,
    /// SHA-256 of the Wasm it was compiled from.
    pub(crate) source: Digest,
}

impl Seal {
    /// The file's content: the image and this seal.
    pub(crate) fn close(&self, mut image: Vec<u8>, key: &Key) -> Vec<u8> {
        let mut target = [0; TARGET_LEN];
        let len = self.target.len().min(TARGET_LEN);
        target[..len].copy_from_slice(&self.target.as_bytes()[..len]);

        image.extend_from_slice(MAGIC);
        image.push(self.kind.to_byte());
        image.extend_from_slice(&target);
        image.extend_from_slice(&self.source);
        let checksum = keyed(key).chain_update(&image).finalize().into_bytes();
        image.extend_from_slice(&checksum);
        image
    }

    fn parse(bytes: &[u8; SEAL_LEN]) -> Option<(Self, Digest)> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (kind, rest) = rest.split_first()?;
        let (target, rest) = rest.split_at_checked(TARGET_LEN)?;
        let (source, checksum) = rest.split_at_checked(size_of::<Digest>())?;
        let target = String::from_utf8_lossy(target).trim_end_matches('\0').to_owned();
        let seal = Self { kind: Kind::from_byte(*kind)?, target, source: source.try_into().ok()? };
        Some((seal, checksum.try_into().ok()?))
    }
}

/// Whether these first bytes of a file are those of compiled code, sealed or not.
pub(crate) fn is_compiled(start: &[u8]) -> bool {
    start.starts_with(b"\x7fELF")
}

/// Reads the seal of a file and checks it. Also gives the checksum, which is different for any other file.
///
/// # Errors
///
/// `Unsealed` without a seal, `Damaged` if the checksum under `key` is another, `Read`.
pub(crate) fn verify(path: &Path, key: &Key) -> Result<(Seal, Digest), LoadReason> {
    let mut file = File::open(path).map_err(LoadReason::Read)?;
    let mut end = [0; SEAL_LEN];
    let len = file.metadata().map_err(LoadReason::Read)?.len();
    let Some(image_len) = len.checked_sub(SEAL_LEN as u64) else {
        return Err(LoadReason::Unsealed);
    };
    file.seek(SeekFrom::Start(image_len)).and_then(|_| file.read_exact(&mut end)).map_err(LoadReason::Read)?;
    let (seal, checksum) = Seal::parse(&end).ok_or(LoadReason::Unsealed)?;

    let mut expected = keyed(key);
    file.rewind().and_then(|()| hash(&mut file, len - CHECKSUM_LEN as u64, &mut expected)).map_err(LoadReason::Read)?;
    expected.verify_slice(&checksum).map_err(|_| LoadReason::Damaged)?;
    Ok((seal, checksum))
}

/// Maps a file whose seal was verified.
#[allow(unsafe_code, reason = "running compiled code is what this crate is for; the seal was checked just before")]
pub(crate) fn map(engine: &wasmtime::Engine, path: &Path, kind: Kind) -> wasmtime::Result<Code> {
    // SAFETY: the content came out of this runtime's compiler: the checksum shows it unchanged, under a key that only
    // this user can read (the cache) or on the word of the user who named the file. Files are replaced by renaming,
    // never written in place, so the mapping stays what was checked.
    unsafe {
        Ok(match kind {
            Kind::Component => Code::Component(Component::deserialize_file(engine, path)?),
            Kind::Module => Code::Module(Module::deserialize_file(engine, path)?),
        })
    }
}

fn keyed(key: &Key) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn hash(file: &mut File, len: u64, into: &mut Hmac<Sha256>) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut content = file.take(len);
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(()),
            n => into.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> (Seal, tempfile::NamedTempFile, Vec<u8>) {
        let seal = Seal { kind: Kind::Module, target: "an engine".into(), source: [7; 32] };
        let content = seal.close(b"\x7fELF and so on".to_vec(), &OPEN_KEY);
        (seal, tempfile::NamedTempFile::new().expect("a temporary file"), content)
    }

    #[test]
    fn a_seal_comes_back_as_it_was_written() {
        let (seal, file, content) = sealed();
        std::fs::write(file.path(), content).expect("written");
        assert_eq!(verify(file.path(), &OPEN_KEY).expect("sealed").0, seal);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let (_, file, content) = sealed();
        for at in 0..content.len() {
            let mut changed = content.clone();
            changed[at] ^= 1;
            std::fs::write(file.path(), changed).expect("written");
            assert!(verify(file.path(), &OPEN_KEY).is_err(), "byte {at}");
        }
    }

    #[test]
    fn any_cut_is_noticed() {
        let (_, file, content) = sealed();
        for len in 0..content.len() {
            std::fs::write(file.path(), &content[..len]).expect("written");
            assert!(verify(file.path(), &OPEN_KEY).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn another_key_does_not_open_it() {
        let (_, file, content) = sealed();
        std::fs::write(file.path(), content).expect("written");
        assert!(matches!(verify(file.path(), &[1; 32]), Err(LoadReason::Damaged)));
    }
}
