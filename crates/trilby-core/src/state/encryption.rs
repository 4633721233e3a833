//! Encryption at rest, in Dapr's format: base64 of nonce and AES-GCM ciphertext, then `||` and the key's name.
//!
//! The name lets a store be read while its key is being replaced: new values are written with the primary key, old
//! ones are read with whichever key they name.

use aes_gcm::{
    Aes128Gcm, Aes256Gcm, AesGcm,
    aead::{Aead, KeyInit, Nonce, consts::U12},
    aes::Aes192,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use trilby_component::{ComponentError, ErrorKind, json, state::Value};

use super::key_prefix::SEPARATOR;

/// Bytes of an AES-GCM nonce.
const NONCE_LENGTH: usize = 12;

enum Cipher {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<Aes256Gcm>),
}

/// An AES key with the name that its ciphertexts carry.
pub struct Key {
    name: String,
    cipher: Cipher,
}

impl Key {
    /// A key from its hexadecimal text: 16, 24 or 32 bytes. `name` is that of the secret it came from.
    ///
    /// # Errors
    /// `InvalidMetadata` if the text is not hexadecimal or of another length. The text is never repeated.
    pub fn from_hex(name: impl Into<String>, text: &str) -> Result<Self, ComponentError> {
        let name = name.into();
        let bytes = hex::decode(text)
            .map_err(|error| ComponentError::metadata(format!("encryption key {name} is not hexadecimal: {error}")))?;
        let cipher = match bytes.len() {
            16 => Aes128Gcm::new_from_slice(&bytes).ok().map(Box::new).map(Cipher::Aes128),
            24 => AesGcm::new_from_slice(&bytes).ok().map(Box::new).map(Cipher::Aes192),
            32 => Aes256Gcm::new_from_slice(&bytes).ok().map(Box::new).map(Cipher::Aes256),
            _ => None,
        };
        let cipher = cipher.ok_or_else(|| {
            let length = bytes.len();
            ComponentError::metadata(format!("encryption key {name} has {length} bytes; AES takes 16, 24 or 32"))
        })?;
        Ok(Self { name, cipher })
    }

    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, ComponentError> {
        let mut sealed = vec![0; NONCE_LENGTH];
        getrandom::fill(&mut sealed).map_err(|error| {
            ComponentError::new(ErrorKind::Internal, format!("no randomness for encryption: {error}"))
        })?;
        let nonce = Nonce::<Aes256Gcm>::try_from(&sealed[..]).map_err(|_| broken())?;
        let ciphertext = match &self.cipher {
            Cipher::Aes128(cipher) => cipher.encrypt(&nonce, plain),
            Cipher::Aes192(cipher) => cipher.encrypt(&nonce, plain),
            Cipher::Aes256(cipher) => cipher.encrypt(&nonce, plain),
        };
        sealed.extend(ciphertext.map_err(|_| broken())?);
        Ok(sealed)
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, ComponentError> {
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LENGTH).ok_or_else(broken)?;
        let nonce = Nonce::<Aes256Gcm>::try_from(nonce).map_err(|_| broken())?;
        let plain = match &self.cipher {
            Cipher::Aes128(cipher) => cipher.decrypt(&nonce, ciphertext),
            Cipher::Aes192(cipher) => cipher.decrypt(&nonce, ciphertext),
            Cipher::Aes256(cipher) => cipher.decrypt(&nonce, ciphertext),
        };
        plain.map_err(|_| broken())
    }
}

fn broken() -> ComponentError {
    ComponentError::new(ErrorKind::Internal, "could not decrypt data: it was changed, or written with another key")
}

/// The keys of an encrypted store.
pub struct Encryption {
    primary: Key,
    secondary: Option<Key>,
}

impl Encryption {
    /// Values are written with `primary` and read with either.
    #[must_use]
    pub fn new(primary: Key, secondary: Option<Key>) -> Self {
        Self { primary, secondary }
    }

    pub(super) fn encrypt(&self, value: &Value) -> Result<Value, ComponentError> {
        let sealed = self.primary.seal(&plain_text(value)?)?;
        let mut text = STANDARD.encode(sealed);
        text.push_str(SEPARATOR);
        text.push_str(&self.primary.name);
        Ok(Value::Bytes(text.into()))
    }

    pub(super) fn decrypt(&self, stored: &[u8]) -> Result<Bytes, ComponentError> {
        if stored.is_empty() {
            return Ok(Bytes::new());
        }
        let unnamed = || {
            ComponentError::new(ErrorKind::Internal, "could not decrypt data: encryption key name not found on record")
        };
        let separator = SEPARATOR.as_bytes();
        let at = stored.windows(separator.len()).rposition(|window| window == separator).ok_or_else(unnamed)?;
        let (text, name) = (&stored[..at], &stored[at + separator.len()..]);
        if name.is_empty() {
            return Err(unnamed());
        }
        let keys = [Some(&self.primary), self.secondary.as_ref()];
        let key = keys.into_iter().flatten().find(|key| key.name.as_bytes() == name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            let message = format!("could not decrypt data: this component has no encryption key named {name}");
            ComponentError::new(ErrorKind::Internal, message)
        })?;
        let sealed = STANDARD.decode(text).map_err(|_| broken())?;
        key.open(&sealed).map(Bytes::from)
    }
}

/// What is encrypted. Dapr formats a JSON value as Go prints it: a string without its quotes, a scalar as it is. It
/// prints objects and lists in a form that nothing can read back, so those stay JSON here; see docs/differences.md.
fn plain_text(value: &Value) -> Result<Bytes, ComponentError> {
    let Value::Json(text) = value else { return value.encode(json::Style::Standard) };
    match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(serde_json::Value::String(string)) => Ok(string.into()),
        _ => json::reencode(text, json::Style::Standard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, length: usize) -> Key {
        Key::from_hex(name, &"ab".repeat(length)).expect("a legal key")
    }

    fn encrypted(encryption: &Encryption, value: &Value) -> Bytes {
        match encryption.encrypt(value).expect("encrypts") {
            Value::Bytes(bytes) => bytes,
            Value::Json(_) => unreachable!("ciphertext is bytes"),
        }
    }

    #[test]
    fn every_key_length_reads_back_what_it_wrote() {
        for length in [16, 24, 32] {
            let encryption = Encryption::new(key("k", length), None);
            let stored = encrypted(&encryption, &Value::Bytes(Bytes::from_static(b"\0\x01")));
            assert!(stored.ends_with(b"||k"));
            assert_eq!(encryption.decrypt(&stored).expect("decrypts"), &b"\0\x01"[..]);
        }
        assert!(Key::from_hex("k", "abcd").is_err());
        assert!(Key::from_hex("k", "zz").is_err());
    }

    #[test]
    fn values_of_the_secondary_key_can_still_be_read() {
        let old = Encryption::new(key("old", 32), None);
        let stored = encrypted(&old, &Value::Json(Bytes::from_static(b"\"v\"")));
        let new = Encryption::new(key("new", 16), Some(key("old", 32)));
        assert_eq!(new.decrypt(&stored).expect("decrypts"), &b"v"[..]);
    }

    #[test]
    fn changed_or_foreign_values_are_refused() {
        let encryption = Encryption::new(key("k", 32), None);
        let stored = encrypted(&encryption, &Value::Bytes(Bytes::from_static(b"secret")));
        let mut changed = stored.to_vec();
        changed[0] ^= 1;
        for value in [&changed[..], b"plain", b"x||", b"x||k", b"||k", b"AAAA||other"] {
            assert!(encryption.decrypt(value).is_err(), "{}", String::from_utf8_lossy(value));
        }
        assert_eq!(encryption.decrypt(b"").expect("nothing to decrypt"), Bytes::new());
    }

    #[test]
    fn a_value_that_dapr_encrypted_can_be_read() {
        // Row `myapp||k` of golden/storage/sqlite.jsonl, written by daprd with the key of the golden secrets file.
        let key = Key::from_hex("enc", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
        let encryption = Encryption::new(key.expect("a legal key"), None);
        let stored = STANDARD.decode("VkZLRjBBcG5Ha0MwdlZqVUx3MHMxNWhldVR4eTZQWGNBcTNMVUJRPXx8ZW5j").expect("base64");
        assert_eq!(encryption.decrypt(&stored).expect("decrypts"), &b"v"[..]);
    }
}
