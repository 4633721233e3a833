//! The cryptography block: documents of any length, and single operations with a provider's keys.

mod document;
mod file_key;
mod header;
mod segments;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use trilby_component::{
    ComponentError,
    crypto::{CipherRequest, CipherResult, CryptoProvider, KeyFormat, PublicKey},
};

use crate::{Body, Code, Ctx, Error, Result, handle::Handle, metrics::Op, resiliency::Block, wiring::Wiring};

/// A provider that is open.
pub struct CryptoComponent {
    /// The resource's name.
    pub name: String,
    /// The provider.
    pub provider: Arc<dyn CryptoProvider>,
}

/// How a document is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncryptOptions {
    /// The key that wraps the document's own.
    pub key_name: String,
    /// How: `A256KW` (or `AES`), `A128CBC-NOPAD`, `A192CBC-NOPAD`, `A256CBC-NOPAD`, `RSA-OAEP-256` (or `RSA`), in any
    /// case.
    pub key_wrap_algorithm: String,
    /// `aes-gcm` or `chacha20-poly1305`, in any case. Empty, the default, is `aes-gcm`.
    pub cipher: String,
    /// Whether the document does not name a key. Default false.
    pub omit_decryption_key_name: bool,
    /// The key that the document names instead of `key_name`. Default none.
    pub decryption_key_name: String,
}

/// How a document is decrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecryptOptions {
    /// The key, over the one that the document names. Default none.
    pub key_name: String,
}

/// The operations on short messages and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// Encrypts a message.
    Encrypt,
    /// Decrypts a message.
    Decrypt,
    /// Encrypts a key.
    WrapKey,
    /// Decrypts a key.
    UnwrapKey,
}

/// The cryptography block of one app.
#[derive(Default)]
pub struct CryptoApi {
    providers: HashMap<String, Handle<dyn CryptoProvider>>,
}

impl CryptoApi {
    /// A block over the providers that the app may use.
    pub fn new(wiring: &Wiring<'_>, providers: impl IntoIterator<Item = CryptoComponent>) -> Self {
        let open = |component: CryptoComponent| {
            let handle = wiring.handle(Block::Crypto, &component.name, component.provider);
            (component.name, handle)
        };
        Self { providers: providers.into_iter().map(open).collect() }
    }

    /// Whether there is such a provider; for a door that has to say so before it looks at anything else.
    ///
    /// # Errors
    /// [`Code::CryptoProvidersNotConfigured`], [`Code::CryptoProviderNotFound`], [`Code::BadRequest`] without a name.
    pub fn require(&self, provider: &str) -> Result<()> {
        self.provider(provider).map(drop)
    }

    /// Encrypts a stream into a document of the format `dapr.io/enc/v1`, at constant memory: the answer is read as
    /// `plaintext` is. A failure later on ends the answer with an error.
    ///
    /// # Errors
    /// Those of [`require`](Self::require); [`Code::Crypto`] if an option is none, or the key cannot be used. Of the
    /// stream: an [`Error`] of [`Code::CryptoStream`], or whatever ended `plaintext`.
    pub async fn encrypt(&self, ctx: &Ctx, provider: &str, options: EncryptOptions, plaintext: Body) -> Result<Body> {
        document::encrypt(self.provider(provider)?, ctx, options, plaintext).await
    }

    /// Decrypts such a document, at constant memory. Every segment is verified before it is handed on; a document that
    /// was cut or changed ends the answer with an error, so what came before is genuine but not everything.
    ///
    /// The format knows one exception: of a document that is cut right after its header there is nothing left to
    /// verify, and it reads as that of an empty plaintext.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    pub async fn decrypt(&self, ctx: &Ctx, provider: &str, options: DecryptOptions, document: Body) -> Result<Body> {
        document::decrypt(self.provider(provider)?, ctx, options, document).await
    }

    /// One operation on a short message or a key. Keys are bytes, which are wrapped as they are.
    ///
    /// # Errors
    /// Those of [`require`](Self::require); [`Code::Crypto`], which does not say what was wrong with the ciphertext: a
    /// caller who may ask again and again could learn from it. The log says.
    pub async fn cipher(
        &self,
        ctx: &Ctx,
        provider: &str,
        cipher: Cipher,
        request: CipherRequest,
    ) -> Result<CipherResult> {
        let (verb, request) = (cipher.verb(), &request);
        let result = self.provider(provider)?.call(ctx, Op::Crypto, |provider| match cipher {
            Cipher::Encrypt => provider.encrypt(request),
            Cipher::Decrypt => provider.decrypt(request),
            Cipher::WrapKey => provider.wrap_key(request),
            Cipher::UnwrapKey => provider.unwrap_key(request),
        });
        result.await.map_err(|cause| failed(verb, &cause))
    }

    /// The public part of a key; `None` for a symmetric key.
    ///
    /// # Errors
    /// Those of [`require`](Self::require); [`Code::CryptoKey`] if there is no such key.
    pub async fn public_key(
        &self,
        ctx: &Ctx,
        provider: &str,
        key: &str,
        format: KeyFormat,
    ) -> Result<Option<PublicKey>> {
        let found = self.provider(provider)?.call(ctx, Op::Get, |provider| provider.public_key(key, format)).await;
        found.map_err(|cause| {
            Error::from_component(Code::CryptoKey, format!("failed to retrieve key {key}: {cause}"), &cause)
        })
    }

    /// Signs a digest; with `EdDSA`, a whole message.
    ///
    /// # Errors
    /// As [`cipher`](Self::cipher).
    pub async fn sign(&self, ctx: &Ctx, provider: &str, digest: &[u8], algorithm: &str, key: &str) -> Result<Bytes> {
        let signed = self.provider(provider)?.call(ctx, Op::Crypto, |provider| provider.sign(digest, algorithm, key));
        signed.await.map_err(|cause| failed("sign", &cause))
    }

    /// Whether a signature is the key's for this digest.
    ///
    /// # Errors
    /// As [`cipher`](Self::cipher). A signature that is wrong is no error.
    pub async fn verify(
        &self,
        ctx: &Ctx,
        provider: &str,
        digest: &[u8],
        signature: &[u8],
        algorithm: &str,
        key: &str,
    ) -> Result<bool> {
        let provider = self.provider(provider)?;
        let verified =
            provider.call(ctx, Op::Crypto, |provider| provider.verify(digest, signature, algorithm, key)).await;
        verified.map_err(|cause| failed("verify signature", &cause))
    }

    fn provider(&self, name: &str) -> Result<&Handle<dyn CryptoProvider>> {
        if self.providers.is_empty() {
            return Err(Error::new(Code::CryptoProvidersNotConfigured, "crypto providers not configured"));
        }
        if name.is_empty() {
            return Err(Error::new(Code::BadRequest, "invalid request: missing component name"));
        }
        let found = self.providers.get(name);
        found.ok_or_else(|| Error::new(Code::CryptoProviderNotFound, format!("crypto provider {name} not found")))
    }
}

impl Cipher {
    fn verb(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::WrapKey => "wrap key",
            Self::UnwrapKey => "unwrap key",
        }
    }
}

fn failed(verb: &str, cause: &ComponentError) -> Error {
    Error::from_component(Code::Crypto, format!("failed to perform operation: failed to {verb}"), cause)
}
