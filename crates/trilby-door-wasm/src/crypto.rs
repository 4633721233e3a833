//! Cryptography for guests.

use trilby_component::crypto::{CipherRequest, KeyFormat};
use trilby_core::{
    Body, Code, Error, Result,
    body::CollectError,
    crypto::{Cipher, DecryptOptions, EncryptOptions},
};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::DynInputStream;

use crate::{
    guest::Guest,
    stream,
    wit::trilby::dapr::{crypto, crypto_streams},
};

impl crypto::Host for Guest {
    async fn encrypt(
        &mut self,
        provider: String,
        plaintext: Vec<u8>,
        options: crypto::EncryptOptions,
    ) -> Result<Vec<u8>> {
        let (api, ctx) = self.blocks();
        let document = api.crypto.encrypt(ctx, &provider, encrypt_options(options), plaintext.into()).await?;

        whole(document, self.max_body_bytes()).await
    }

    async fn decrypt(
        &mut self,
        provider: String,
        document: Vec<u8>,
        options: Option<crypto::DecryptOptions>,
    ) -> Result<Vec<u8>> {
        let (api, ctx) = self.blocks();
        let plaintext = api.crypto.decrypt(ctx, &provider, decrypt_options(options), document.into()).await?;

        whole(plaintext, self.max_body_bytes()).await
    }

    async fn encrypt_message(
        &mut self,
        provider: String,
        request: crypto::CipherRequest,
    ) -> Result<crypto::CipherResult> {
        self.cipher(&provider, Cipher::Encrypt, request).await
    }

    async fn decrypt_message(
        &mut self,
        provider: String,
        request: crypto::CipherRequest,
    ) -> Result<crypto::CipherResult> {
        self.cipher(&provider, Cipher::Decrypt, request).await
    }

    async fn wrap_key(&mut self, provider: String, request: crypto::CipherRequest) -> Result<crypto::CipherResult> {
        self.cipher(&provider, Cipher::WrapKey, request).await
    }

    async fn unwrap_key(&mut self, provider: String, request: crypto::CipherRequest) -> Result<crypto::CipherResult> {
        self.cipher(&provider, Cipher::UnwrapKey, request).await
    }

    async fn get_key(
        &mut self,
        provider: String,
        key: String,
        format: crypto::KeyFormat,
    ) -> Result<Option<crypto::PublicKey>> {
        let format = match format {
            crypto::KeyFormat::Pem => KeyFormat::Pem,
            crypto::KeyFormat::Json => KeyFormat::Json,
        };

        let (api, ctx) = self.blocks();
        let key = api.crypto.public_key(ctx, &provider, &key, format).await?;

        Ok(key.map(|key| crypto::PublicKey { name: key.name, text: key.text }))
    }

    async fn sign(&mut self, provider: String, digest: Vec<u8>, algorithm: String, key: String) -> Result<Vec<u8>> {
        let (api, ctx) = self.blocks();
        api.crypto.sign(ctx, &provider, &digest, &algorithm, &key).await.map(Into::into)
    }

    async fn verify(
        &mut self,
        provider: String,
        digest: Vec<u8>,
        signature: Vec<u8>,
        algorithm: String,
        key: String,
    ) -> Result<bool> {
        let (api, ctx) = self.blocks();
        api.crypto.verify(ctx, &provider, &digest, &signature, &algorithm, &key).await
    }
}

impl crypto_streams::Host for Guest {
    async fn encrypt(
        &mut self,
        provider: String,
        plaintext: Resource<DynInputStream>,
        options: crypto::EncryptOptions,
    ) -> Result<Resource<DynInputStream>> {
        let plaintext = self.take(plaintext)?;

        let (api, ctx) = self.blocks();
        let document = api.crypto.encrypt(ctx, &provider, encrypt_options(options), plaintext).await?;

        self.give(document)
    }

    async fn decrypt(
        &mut self,
        provider: String,
        document: Resource<DynInputStream>,
        options: Option<crypto::DecryptOptions>,
    ) -> Result<Resource<DynInputStream>> {
        let document = self.take(document)?;

        let (api, ctx) = self.blocks();
        let plaintext = api.crypto.decrypt(ctx, &provider, decrypt_options(options), document).await?;

        self.give(plaintext)
    }
}

impl Guest {
    async fn cipher(
        &mut self,
        provider: &str,
        cipher: Cipher,
        request: crypto::CipherRequest,
    ) -> Result<crypto::CipherResult> {
        let request = CipherRequest {
            input: request.input.into(),
            algorithm: request.algorithm,
            key: request.key_name,
            nonce: request.nonce.into(),
            associated_data: request.associated_data.into(),
            tag: request.tag.into(),
        };

        let (api, ctx) = self.blocks();
        let result = api.crypto.cipher(ctx, provider, cipher, request).await?;

        Ok(crypto::CipherResult { output: result.output.into(), tag: result.tag.into() })
    }

    /// Takes a stream out of the guest's hands.
    fn take(&mut self, stream: Resource<DynInputStream>) -> Result<Body> {
        let taken = self.table().delete(stream);
        taken.map(stream::to_body).map_err(|error| Error::new(Code::BadRequest, format!("input stream: {error}")))
    }

    fn give(&mut self, body: Body) -> Result<Resource<DynInputStream>> {
        let stream: DynInputStream = Box::new(stream::of_body(body));
        let given = self.table().push(stream);
        given.map_err(|error| Error::new(Code::Crypto, format!("output stream: {error}")))
    }
}

async fn whole(body: Body, max_bytes: usize) -> Result<Vec<u8>> {
    body.collect(max_bytes).await.map(Into::into).map_err(|error| match error {
        CollectError::TooLarge(_) => Error::new(Code::BodyRead, format!("{error}, or use the streams")),
        CollectError::Broken(error) => Error::new(Code::Crypto, error.to_string()),
    })
}

fn encrypt_options(options: crypto::EncryptOptions) -> EncryptOptions {
    EncryptOptions {
        key_name: options.key_name,
        key_wrap_algorithm: options.key_wrap_algorithm,
        cipher: options.cipher.unwrap_or_default(),
        omit_decryption_key_name: options.omit_decryption_key_name,
        decryption_key_name: options.decryption_key_name.unwrap_or_default(),
    }
}

fn decrypt_options(options: Option<crypto::DecryptOptions>) -> DecryptOptions {
    DecryptOptions { key_name: options.and_then(|options| options.key_name).unwrap_or_default() }
}
