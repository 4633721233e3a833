//! A provider whose keys come from somewhere and are used in this process.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use trilby_component::{
    ComponentError, ErrorKind, Result,
    crypto::{CipherRequest, CipherResult, CryptoProvider, KeyFormat, PublicKey},
};

use super::key::{Key, Use};

/// Where keys come from.
#[async_trait]
pub(super) trait KeySource: Send + Sync + 'static {
    /// The key of this name.
    async fn key(&self, name: &str) -> Result<Arc<Key>>;
}

/// A provider of the keys of a source.
pub(super) struct Local<S>(pub(super) S);

#[async_trait]
impl<S: KeySource> CryptoProvider for Local<S> {
    async fn public_key(&self, name: &str, format: KeyFormat) -> Result<Option<PublicKey>> {
        let key = self.0.key(name).await?;
        Ok(key.public(format)?.map(|text| PublicKey { name: name.to_owned(), text }))
    }

    async fn encrypt(&self, request: &CipherRequest) -> Result<CipherResult> {
        self.cipher(request, Use::Encrypt, Key::encrypt).await
    }

    async fn decrypt(&self, request: &CipherRequest) -> Result<CipherResult> {
        self.cipher(request, Use::Decrypt, Key::decrypt).await
    }

    async fn wrap_key(&self, request: &CipherRequest) -> Result<CipherResult> {
        self.cipher(request, Use::WrapKey, Key::encrypt).await
    }

    async fn unwrap_key(&self, request: &CipherRequest) -> Result<CipherResult> {
        self.cipher(request, Use::UnwrapKey, Key::decrypt).await
    }

    async fn sign(&self, digest: &[u8], algorithm: &str, key: &str) -> Result<Bytes> {
        let key = self.key(key, Use::Sign, algorithm).await?;
        let (digest, algorithm) = (Bytes::copy_from_slice(digest), algorithm.to_owned());
        run(key, move |key| key.sign(&digest, &algorithm))
            .await
            .map_err(|cause| inside("failed to sign message", &cause))
    }

    async fn verify(&self, digest: &[u8], signature: &[u8], algorithm: &str, key: &str) -> Result<bool> {
        let key = self.key(key, Use::Verify, algorithm).await?;
        let (digest, signature) = (Bytes::copy_from_slice(digest), Bytes::copy_from_slice(signature));
        let algorithm = algorithm.to_owned();
        let verified = run(key, move |key| key.verify(&digest, &signature, &algorithm)).await;
        verified.map_err(|cause| inside("failed to validate the signature", &cause))
    }
}

impl<S: KeySource> Local<S> {
    async fn cipher(
        &self,
        request: &CipherRequest,
        purpose: Use,
        operation: fn(&Key, &CipherRequest) -> Result<CipherResult>,
    ) -> Result<CipherResult> {
        let key = self.key(&request.key, purpose, &request.algorithm).await?;
        let request = request.clone();
        let what = match purpose {
            Use::Decrypt | Use::UnwrapKey => "failed to decrypt data",
            _ => "failed to encrypt data",
        };
        run(key, move |key| operation(key, &request)).await.map_err(|cause| inside(what, &cause))
    }

    /// The key of this name, if it may be used so.
    async fn key(&self, name: &str, purpose: Use, algorithm: &str) -> Result<Arc<Key>> {
        let what = match purpose {
            Use::WrapKey | Use::UnwrapKey => "failed to retrieve the key encryption key",
            _ => "failed to retrieve the key",
        };
        let key = self.0.key(name).await.map_err(|cause| inside(what, &cause))?;
        key.permits(purpose, algorithm)?;
        Ok(key)
    }
}

/// Uses a key. What takes a while, and with RSA it can be milliseconds, is done aside.
async fn run<R: Send + 'static>(
    key: Arc<Key>,
    operation: impl FnOnce(&Key) -> Result<R> + Send + 'static,
) -> Result<R> {
    if !key.is_slow() {
        return operation(&key);
    }
    let done = tokio::task::spawn_blocking(move || operation(&key)).await;
    done.unwrap_or_else(|error| Err(ComponentError::new(ErrorKind::Internal, format!("the operation ended: {error}"))))
}

fn inside(what: &str, cause: &ComponentError) -> ComponentError {
    ComponentError::new(cause.kind(), format!("{what}: {cause}"))
}
