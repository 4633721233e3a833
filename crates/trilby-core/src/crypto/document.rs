//! Documents of the format `dapr.io/enc/v1`: a header that names and wraps the document's own key, and sealed segments.

use bytes::Bytes;
use trilby_component::{
    ErrorKind,
    crypto::{CipherRequest, CryptoProvider},
};

use super::{
    DecryptOptions, EncryptOptions,
    file_key::{Cipher, FileKey, SECRET_BYTES},
    header::{Header, KeyWrap, Manifest},
    segments::{Segments, Source},
};
use crate::{Body, Code, Ctx, Error, Result, handle::Handle, metrics::Op};

type Provider = Handle<dyn CryptoProvider>;

/// Begins a document.
pub(super) async fn encrypt(provider: &Provider, ctx: &Ctx, options: EncryptOptions, plaintext: Body) -> Result<Body> {
    let Choice { wrap, cipher } = Choice::of(&options)?;
    let key = FileKey::random().map_err(|error| failed(format!("failed to generate file key: {error}")))?;
    let request = CipherRequest {
        input: Bytes::copy_from_slice(key.secret()),
        algorithm: wrap.name().to_owned(),
        key: options.key_name,
        ..CipherRequest::default()
    };
    let wrapped = provider.call(ctx, Op::Crypto, |provider| provider.wrap_key(&request)).await;
    let wrapped =
        wrapped.map_err(|cause| failed(format!("failed to wrap the file key: {cause}")).with_kind_of(cause.kind()))?;

    let key_name = match options.decryption_key_name {
        _ if options.omit_decryption_key_name => String::new(),
        name if name.is_empty() => request.key,
        name => name,
    };
    let manifest =
        Manifest { key_name, wrap, wrapped_secret: wrapped.output, cipher, nonce_prefix: key.nonce_prefix() };
    let header = manifest.header(&key).ok_or_else(|| invalid("failed to sign header: header is too long"))?;
    Ok(Body::stream(Segments::sealed(header, Source::new(plaintext), key.sealer(cipher))))
}

/// Reads the header of a document and begins its plaintext.
pub(super) async fn decrypt(provider: &Provider, ctx: &Ctx, options: DecryptOptions, document: Body) -> Result<Body> {
    let mut source = Source::new(document);
    let header = Header::read(&mut source).await.map_err(|reason| invalid(format!("invalid header: {reason}")))?;
    let manifest = &header.manifest;
    let key_name = if options.key_name.is_empty() { &manifest.key_name } else { &options.key_name };
    if key_name.is_empty() {
        return Err(invalid("document's manifest does not contain a key name, and no key name was provided"));
    }
    let request = CipherRequest {
        input: manifest.wrapped_secret.clone(),
        algorithm: manifest.wrap.name().to_owned(),
        key: key_name.clone(),
        ..CipherRequest::default()
    };
    let unwrapped = provider.call(ctx, Op::Crypto, |provider| provider.unwrap_key(&request)).await;
    // Whether there is such a key, and what it says to a wrapped secret that somebody made up, is nobody's business:
    // without the secret the signature is wrong, and that is all that is told.
    let secret: [u8; SECRET_BYTES] =
        unwrapped.ok().and_then(|key| key.output.as_ref().try_into().ok()).unwrap_or_default();
    let key = FileKey::new(secret, manifest.nonce_prefix);
    if !header.is_signed_with(&key).map_err(invalid)? {
        return Err(invalid("failed to validate the document's signature"));
    }
    Ok(Body::stream(Segments::opened(source, key.sealer(manifest.cipher))))
}

/// The algorithms of a document.
struct Choice {
    wrap: KeyWrap,
    cipher: Cipher,
}

impl Choice {
    fn of(options: &EncryptOptions) -> Result<Self> {
        if options.key_name.is_empty() {
            return Err(invalid("option KeyName is required"));
        }
        let algorithm = options.key_wrap_algorithm.to_ascii_uppercase();
        if algorithm.is_empty() {
            return Err(invalid("option Algorithm is required"));
        }
        let wrap = KeyWrap::from_name(&algorithm)
            .ok_or_else(|| invalid(format!("option Algorithm is not valid: algorithm {algorithm} is not supported")))?;
        let cipher = match options.cipher.to_ascii_uppercase().as_str() {
            "" => Cipher::AesGcm,
            name => Cipher::from_name(name)
                .ok_or_else(|| invalid(format!("option Cipher is not valid: cipher {name} is not supported")))?,
        };
        Ok(Self { wrap, cipher })
    }
}

fn failed(reason: impl std::fmt::Display) -> Error {
    Error::new(Code::Crypto, format!("failed to perform operation: {reason}"))
}

fn invalid(reason: impl std::fmt::Display) -> Error {
    failed(reason).with_kind_of(ErrorKind::InvalidRequest)
}
