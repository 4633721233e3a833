//! The secret of one document: it signs the header and seals the segments.

use aes_gcm::{
    Aes256Gcm,
    aead::{self, AeadInOut as _, KeyInit as _},
};
use chacha20poly1305::ChaCha20Poly1305;
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// Bytes of the secret.
pub(super) const SECRET_BYTES: usize = 32;
/// Bytes that every nonce of a document begins with; its number and a flag follow.
pub(super) const NONCE_PREFIX_BYTES: usize = 7;
/// Bytes by which sealing makes a segment longer.
pub(super) const TAG_BYTES: usize = 16;

const NONCE_BYTES: usize = NONCE_PREFIX_BYTES + size_of::<u32>() + 1;

/// How the segments of a document are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cipher {
    AesGcm,
    ChaCha20Poly1305,
}

/// The secret of one document, with the random start of its nonces.
pub(super) struct FileKey {
    secret: [u8; SECRET_BYTES],
    nonce_prefix: [u8; NONCE_PREFIX_BYTES],
}

impl FileKey {
    /// A new one.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut key = Self { secret: [0; SECRET_BYTES], nonce_prefix: [0; NONCE_PREFIX_BYTES] };
        getrandom::fill(&mut key.secret)?;
        getrandom::fill(&mut key.nonce_prefix)?;
        Ok(key)
    }

    /// One that was unwrapped.
    pub(super) fn new(secret: [u8; SECRET_BYTES], nonce_prefix: [u8; NONCE_PREFIX_BYTES]) -> Self {
        Self { secret, nonce_prefix }
    }

    pub(super) fn secret(&self) -> &[u8] {
        &self.secret
    }

    pub(super) fn nonce_prefix(&self) -> [u8; NONCE_PREFIX_BYTES] {
        self.nonce_prefix
    }

    /// The signature of what a header says.
    pub(super) fn sign(&self, text: &[u8]) -> [u8; 32] {
        self.mac(text).finalize().into_bytes().into()
    }

    /// Whether `signature` is that of `text`, in constant time.
    pub(super) fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        self.mac(text).verify_slice(signature).is_ok()
    }

    /// What seals and opens the segments.
    pub(super) fn sealer(&self, cipher: Cipher) -> Sealer {
        let key = self.derive(Some(&self.nonce_prefix), b"payload");
        let aead = match cipher {
            Cipher::AesGcm => Aead::AesGcm(Box::new(Aes256Gcm::new(&key.into()))),
            Cipher::ChaCha20Poly1305 => Aead::ChaCha20Poly1305(ChaCha20Poly1305::new(&key.into())),
        };
        Sealer { aead, nonce_prefix: self.nonce_prefix }
    }

    fn mac(&self, text: &[u8]) -> Hmac<Sha256> {
        let key = self.derive(None, b"header");
        Hmac::<Sha256>::new_from_slice(&key).expect("any length will do").chain_update(text)
    }

    fn derive(&self, salt: Option<&[u8]>, purpose: &[u8]) -> [u8; 32] {
        let mut key = [0; 32];
        let derivation = Hkdf::<Sha256>::new(salt, &self.secret);
        derivation.expand(purpose, &mut key).expect("one hash is not too long");
        key
    }
}

/// Seals and opens the segments of one document.
pub(super) struct Sealer {
    aead: Aead,
    nonce_prefix: [u8; NONCE_PREFIX_BYTES],
}

enum Aead {
    AesGcm(Box<Aes256Gcm>),
    ChaCha20Poly1305(ChaCha20Poly1305),
}

impl Sealer {
    /// Encrypts a segment and puts the tag after it.
    pub(super) fn seal(&self, number: u32, last: bool, segment: &mut Vec<u8>) -> Result<(), aead::Error> {
        let nonce = self.nonce(number, last).into();
        match &self.aead {
            Aead::AesGcm(cipher) => cipher.encrypt_in_place(&nonce, b"", segment),
            Aead::ChaCha20Poly1305(cipher) => cipher.encrypt_in_place(&nonce, b"", segment),
        }
    }

    /// Verifies and decrypts a segment, and takes the tag off.
    pub(super) fn open(&self, number: u32, last: bool, segment: &mut Vec<u8>) -> Result<(), aead::Error> {
        let nonce = self.nonce(number, last).into();
        match &self.aead {
            Aead::AesGcm(cipher) => cipher.decrypt_in_place(&nonce, b"", segment),
            Aead::ChaCha20Poly1305(cipher) => cipher.decrypt_in_place(&nonce, b"", segment),
        }
    }

    /// The nonce tells where a segment belongs, and whether it is the last: none can be moved, left out or cut off.
    fn nonce(&self, number: u32, last: bool) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..NONCE_PREFIX_BYTES].copy_from_slice(&self.nonce_prefix);
        nonce[NONCE_PREFIX_BYTES..NONCE_BYTES - 1].copy_from_slice(&number.to_be_bytes());
        nonce[NONCE_BYTES - 1] = u8::from(last);
        nonce
    }
}
