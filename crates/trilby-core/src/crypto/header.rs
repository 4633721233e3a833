//! The header of a document: three lines of text, of which the third signs the others.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    file_key::{Cipher, FileKey, NONCE_PREFIX_BYTES},
    segments::{SEGMENT_BYTES, Source},
};

/// The first line.
const SCHEME: &str = "dapr.io/enc/v1";
/// What the lines are, in order.
const LINES: [&str; 3] = ["scheme name", "manifest", "message authentication code"];
/// A header is never longer than a segment.
const MAX_BYTES: usize = SEGMENT_BYTES;

/// How a document's secret is wrapped: name, number in the manifest.
const WRAPS: [(&str, u8); 5] =
    [("A256KW", 1), ("A128CBC-NOPAD", 2), ("A192CBC-NOPAD", 3), ("A256CBC-NOPAD", 4), ("RSA-OAEP-256", 5)];

/// How a document's secret is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyWrap(usize);

impl KeyWrap {
    /// By its name in upper case, or by an alias.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let name = match name {
            "AES" => "A256KW",
            "RSA" => "RSA-OAEP-256",
            name => name,
        };
        WRAPS.iter().position(|(known, _)| *known == name).map(Self)
    }

    pub(super) fn name(self) -> &'static str {
        WRAPS[self.0].0
    }

    fn from_number(number: u8) -> Option<Self> {
        WRAPS.iter().position(|(_, known)| *known == number).map(Self)
    }
}

impl Cipher {
    /// By its name in upper case.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "AES-GCM" => Some(Self::AesGcm),
            "CHACHA20-POLY1305" => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::AesGcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::AesGcm, Self::ChaCha20Poly1305].into_iter().find(|cipher| cipher.number() == number)
    }
}

/// What the second line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// The key that opens the document; may be empty.
    pub(super) key_name: String,
    pub(super) wrap: KeyWrap,
    pub(super) wrapped_secret: Bytes,
    pub(super) cipher: Cipher,
    pub(super) nonce_prefix: [u8; NONCE_PREFIX_BYTES],
}

/// The second line as it is written.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(rename = "k", default, skip_serializing_if = "String::is_empty")]
    key_name: String,
    #[serde(rename = "kw")]
    wrap: u8,
    #[serde(rename = "wfk")]
    wrapped_secret: String,
    #[serde(rename = "cph")]
    cipher: u8,
    #[serde(rename = "np")]
    nonce_prefix: String,
}

impl Manifest {
    fn parse(line: &[u8]) -> Option<Self> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let manifest = Self {
            key_name: line.key_name,
            wrap: KeyWrap::from_number(line.wrap)?,
            wrapped_secret: STANDARD.decode(line.wrapped_secret).ok()?.into(),
            cipher: Cipher::from_number(line.cipher)?,
            nonce_prefix: STANDARD.decode(line.nonce_prefix).ok()?.try_into().ok()?,
        };
        (!manifest.wrapped_secret.is_empty()).then_some(manifest)
    }

    /// The header of a document with this manifest; `None` if it would be too long.
    pub(super) fn header(&self, key: &FileKey) -> Option<Bytes> {
        let line = Line {
            key_name: self.key_name.clone(),
            wrap: WRAPS[self.wrap.0].1,
            wrapped_secret: STANDARD.encode(&self.wrapped_secret),
            cipher: self.cipher.number(),
            nonce_prefix: STANDARD.encode(self.nonce_prefix),
        };
        let line = serde_json::to_string(&line).expect("text and numbers are JSON");
        let mut header = format!("{SCHEME}\n{line}\n");
        let signature = key.sign(header.as_bytes());
        STANDARD.encode_string(signature, &mut header);
        header.push('\n');
        (header.len() <= MAX_BYTES).then(|| header.into())
    }
}

/// A header as it was read.
pub(super) struct Header {
    pub(super) manifest: Manifest,
    /// All three lines.
    text: Vec<u8>,
    /// Where the third line begins, which signs what is before it.
    signature_at: usize,
}

impl Header {
    /// Takes the header off the start of a document. The texts of failures are Dapr's.
    pub(super) async fn read(source: &mut Source) -> Result<Self, String> {
        let mut text = Vec::with_capacity(512);
        // Where each line begins, and where the segments do.
        let mut starts = vec![0];
        while starts.len() <= LINES.len()
            && text.len() < MAX_BYTES
            && source.fill().await.map_err(|error| error.to_string())?
        {
            let piece = source.piece();
            let piece = &piece[..piece.len().min(MAX_BYTES - text.len())];
            let newline = piece.iter().position(|byte| *byte == b'\n');
            text.extend_from_slice(&source.take(newline.map_or(piece.len(), |at| at + 1)));
            if newline.is_some() {
                let line = &text[starts[starts.len() - 1]..text.len() - 1];
                if line.is_empty() {
                    return Err("invalid format".to_owned());
                }
                if starts.len() == 1 && line != SCHEME.as_bytes() {
                    return Err("unsupported scheme".to_owned());
                }
                starts.push(text.len());
            }
        }
        if let Some(missing) = LINES.get(starts.len() - 1) {
            return Err(format!("{missing} not found"));
        }
        let manifest = Manifest::parse(&text[starts[1]..starts[2]]).ok_or("invalid manifest")?;
        Ok(Self { manifest, text, signature_at: starts[2] })
    }

    /// Whether the header was signed with this key.
    ///
    /// # Errors
    /// Why the signature cannot even be read.
    pub(super) fn is_signed_with(&self, key: &FileKey) -> Result<bool, String> {
        let (signed, signature) = self.text.split_at(self.signature_at);
        let signature = signature.strip_suffix(b"\n").unwrap_or(signature);
        let signature = STANDARD.decode(signature);
        let signature = signature.map_err(|error| format!("failed to decode header's signature: {error}"))?;
        Ok(key.verify(signed, &signature))
    }
}
