//! The cryptography provider: operations with keys that never leave it.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;

/// How a public key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFormat {
    /// PEM, PKIX.
    Pem,
    /// A JSON Web Key.
    Json,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Its name in the provider, version included where there is one.
    pub name: String,
    /// In the format that was asked for.
    pub text: String,
}

/// What to encrypt, decrypt, wrap or unwrap, and how.
#[derive(Debug, Clone, Default)]
pub struct CipherRequest {
    /// Plaintext, ciphertext, plain key or wrapped key.
    pub input: Bytes,
    /// JOSE's name, as Dapr lists it: `RSA-OAEP-256`, `A256GCM`, ….
    pub algorithm: String,
    /// The key's name in the provider.
    pub key: String,
    /// Where the algorithm takes one.
    pub nonce: Bytes,
    /// Authenticated and not encrypted, where the algorithm takes it.
    pub associated_data: Bytes,
    /// The authentication tag that came with the ciphertext, where the algorithm has one.
    pub tag: Bytes,
}

/// What came of it. The tag is empty unless something was encrypted and the algorithm has one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CipherResult {
    /// Ciphertext, plaintext, wrapped key or plain key.
    pub output: Bytes,
    /// Authentication tag.
    pub tag: Bytes,
}

/// A cryptography provider. Open it through the [`Catalog`](crate::Catalog); it is ready when `open` returns.
#[async_trait]
pub trait CryptoProvider: Send + Sync {
    /// The public part of a key; `None` for a symmetric key, which is never shown.
    ///
    /// # Errors
    /// `NotFound` if there is no such key.
    async fn public_key(&self, name: &str, format: KeyFormat) -> Result<Option<PublicKey>>;

    /// Encrypts a short message.
    async fn encrypt(&self, request: &CipherRequest) -> Result<CipherResult>;

    /// Decrypts a short message.
    async fn decrypt(&self, request: &CipherRequest) -> Result<CipherResult>;

    /// Encrypts a key.
    async fn wrap_key(&self, request: &CipherRequest) -> Result<CipherResult>;

    /// Decrypts a key.
    async fn unwrap_key(&self, request: &CipherRequest) -> Result<CipherResult>;

    /// Signs a digest.
    async fn sign(&self, digest: &[u8], algorithm: &str, key: &str) -> Result<Bytes>;

    /// Whether `signature` is the key's for this digest.
    async fn verify(&self, digest: &[u8], signature: &[u8], algorithm: &str, key: &str) -> Result<bool>;

    /// Whether the backend answers.
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    /// Releases connections. Called once, after the last request.
    async fn close(&self) {}
}
