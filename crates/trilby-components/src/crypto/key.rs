//! A key: what it is made of, what it may be used for, and the ways in which it is written.

mod asymmetric;
mod jwk;
mod material;
mod pem;
mod signature;
mod symmetric;

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde_json::Value;
use trilby_component::{
    ComponentError, ErrorKind, Result,
    crypto::{CipherRequest, CipherResult, KeyFormat},
};

pub(super) use self::jwk::Set;
use self::material::Material;

/// How a key is written, where a file's name says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON Web Key.
    Json,
    /// PEM: PKCS#1, PKCS#8, SEC 1 or PKIX.
    Pem,
    /// Any of them, or the bytes of a symmetric key, or base64 of those.
    Unknown,
}

/// What a key is used for; the names are those of `key_ops`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Encrypt,
    Decrypt,
    WrapKey,
    UnwrapKey,
    Sign,
    Verify,
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::WrapKey => "wrapKey",
            Self::UnwrapKey => "unwrapKey",
            Self::Sign => "sign",
            Self::Verify => "verify",
        }
    }

    /// The value of `use` that a key for this has.
    fn group(self) -> &'static str {
        match self {
            Self::Sign | Self::Verify => "sig",
            _ => "enc",
        }
    }
}

/// What a JSON Web Key says about itself besides the key. Empty means that nothing is ruled out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Limits {
    id: String,
    group: String,
    operations: Vec<String>,
    algorithm: String,
}

/// A key.
pub(super) struct Key {
    material: Material,
    limits: Limits,
}

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    /// What is wrong with the text. The text is never repeated.
    pub(super) fn parse(raw: &[u8], form: Form) -> Result<Self, String> {
        if raw.is_empty() {
            return Err("key is empty".to_owned());
        }
        let is_aes_key = matches!(raw.len(), 16 | 24 | 32);
        match form {
            Form::Json => jwk::parse(raw),
            Form::Pem => pem::parse(raw).map(Self::from),
            Form::Unknown if raw[0] == b'{' && !is_aes_key => jwk::parse(raw),
            Form::Unknown if raw.len() > 10 && raw.starts_with(b"-----") => pem::parse(raw).map(Self::from),
            Form::Unknown => Ok(Material::Symmetric(symmetric_bytes(raw)).into()),
        }
    }

    /// Whether its operations take so long that they should not be done between others.
    pub(super) fn is_slow(&self) -> bool {
        !matches!(self.material, Material::Symmetric(_))
    }

    /// # Errors
    /// `Denied`, in Dapr's words, if the key is not for this.
    pub(super) fn permits(&self, purpose: Use, algorithm: &str) -> Result<()> {
        let Limits { group, operations, algorithm: only, .. } = &self.limits;
        let listed = operations.is_empty() || operations.iter().any(|operation| operation == purpose.name());
        let grouped = group.is_empty() || group == purpose.group();
        if !listed || !grouped {
            let message = format!("key cannot perform the '{}' operation", purpose.name());
            return Err(ComponentError::new(ErrorKind::Denied, message));
        }
        if !only.is_empty() && only != algorithm {
            let message = format!("key cannot be used with algorithm '{algorithm}'");
            return Err(ComponentError::new(ErrorKind::Denied, message));
        }
        Ok(())
    }

    /// The public part in one of the formats; `None` for a symmetric key.
    pub(super) fn public(&self, format: KeyFormat) -> Result<Option<String>> {
        let Some(public) = self.material.public() else { return Ok(None) };
        match format {
            KeyFormat::Pem => public.to_pem().map(Some).map_err(|error| {
                ComponentError::new(ErrorKind::Internal, format!("failed to marshal public key as PKIX: {error}"))
            }),
            KeyFormat::Json => Ok(Some(Value::Object(jwk::write(&public, &self.limits)).to_string())),
        }
    }

    pub(super) fn encrypt(&self, request: &CipherRequest) -> Result<CipherResult> {
        match &self.material {
            Material::Symmetric(key) => symmetric::encrypt(key, request),
            Material::Private(key) => asymmetric::encrypt(&key.public(), request),
            Material::Public(key) => asymmetric::encrypt(key, request),
        }
    }

    pub(super) fn decrypt(&self, request: &CipherRequest) -> Result<CipherResult> {
        match &self.material {
            Material::Symmetric(key) => symmetric::decrypt(key, request),
            Material::Private(key) => asymmetric::decrypt(key, request),
            Material::Public(_) => Err(mismatch()),
        }
    }

    pub(super) fn sign(&self, digest: &[u8], algorithm: &str) -> Result<Bytes> {
        match &self.material {
            Material::Private(key) => signature::sign(key, algorithm, digest).map(Bytes::from),
            Material::Symmetric(_) | Material::Public(_) => Err(mismatch()),
        }
    }

    pub(super) fn verify(&self, digest: &[u8], signature: &[u8], algorithm: &str) -> Result<bool> {
        match &self.material {
            Material::Private(key) => signature::verify(&key.public(), algorithm, digest, signature),
            Material::Public(key) => signature::verify(key, algorithm, digest, signature),
            Material::Symmetric(_) => Err(mismatch()),
        }
    }
}

/// Bytes, which may be written in base64 of either alphabet.
fn symmetric_bytes(raw: &[u8]) -> Vec<u8> {
    // As lenient as Go's decoder: without padding, with line ends anywhere and stray bits at the end.
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true);
    let end = raw.iter().rposition(|byte| !matches!(byte, b'\n' | b'=')).map_or(0, |last| last + 1);
    let text: Vec<u8> = raw[..end].iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(&text);
    decode(&STANDARD).or_else(|_| decode(&URL_SAFE)).unwrap_or_else(|_| raw.to_vec())
}

/// The key is of another kind or length than the algorithm takes.
fn mismatch() -> ComponentError {
    ComponentError::request("key type mismatch")
}

/// The error for an algorithm that a key cannot be used with: `others` are those of other keys.
fn unfit(algorithm: &str, others: &[&str]) -> ComponentError {
    if others.iter().any(|start| algorithm.starts_with(start)) {
        return mismatch();
    }
    ComponentError::unsupported("unsupported algorithm")
}

impl From<Material> for Key {
    fn from(material: Material) -> Self {
        Self { material, limits: Limits::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(raw: &[u8]) -> Vec<u8> {
        match Key::parse(raw, Form::Unknown).expect("a key").material {
            Material::Symmetric(bytes) => bytes,
            _ => panic!("not symmetric"),
        }
    }

    #[test]
    fn a_symmetric_key_is_bytes_or_base64_of_them() {
        assert_eq!(bytes(b"AAECAw=="), [0, 1, 2, 3]);
        assert_eq!(bytes(b"AAECAw\n"), [0, 1, 2, 3]);
        assert_eq!(bytes(b"AAEC\nAw==\n"), [0, 1, 2, 3]);
        assert_eq!(bytes(b"-_-_"), [0xfb, 0xff, 0xbf]);
        assert_eq!(bytes(b"+/+/"), [0xfb, 0xff, 0xbf]);
        assert_eq!(bytes(b"not base64!"), b"not base64!");
        assert_eq!(bytes(b"{23456789012345}"), b"{23456789012345}", "as long as an AES key, so not JSON");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for (raw, form, expect) in [
            (&b""[..], Form::Unknown, "key is empty"),
            (b"{}", Form::Unknown, "missing field `kty`"),
            (b"x", Form::Json, "expected value"),
            (b"x", Form::Pem, "failed to parse PEM encoded key: there is no PEM block"),
            (br#"{"kty":"oct"}"#, Form::Json, "k is missing"),
            (br#"{"kty":"odd"}"#, Form::Json, "invalid key type"),
            (br#"{"kty":"EC","crv":"P-999","x":"AA","y":"AA"}"#, Form::Json, "unknown curve P-999"),
        ] {
            let error = Key::parse(raw, form).err().expect("no key");
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn a_key_is_only_for_what_it_says() {
        let key = |members: &str| {
            let text = format!(r#"{{"kty":"oct","k":"AAECAwQFBgcICQoLDA0ODw"{members}}}"#);
            Key::parse(text.as_bytes(), Form::Json).expect("a key")
        };
        let denied = |key: &Key, purpose, algorithm| key.permits(purpose, algorithm).expect_err("denied").to_string();
        assert!(key("").permits(Use::Sign, "any").is_ok());
        let signing = key(r#","use":"sig""#);
        assert!(signing.permits(Use::Verify, "any").is_ok());
        assert_eq!(denied(&signing, Use::WrapKey, "any"), "key cannot perform the 'wrapKey' operation");
        let encrypting = key(r#","key_ops":["encrypt"]"#);
        assert!(encrypting.permits(Use::Encrypt, "any").is_ok());
        assert_eq!(denied(&encrypting, Use::Decrypt, "any"), "key cannot perform the 'decrypt' operation");
        let wrapping = key(r#","alg":"A128KW""#);
        assert!(wrapping.permits(Use::WrapKey, "A128KW").is_ok());
        assert_eq!(denied(&wrapping, Use::WrapKey, "A256KW"), "key cannot be used with algorithm 'A256KW'");
    }
}
