//! JSON Web Keys (RFC 7517), alone and in sets.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SigningKey, VerifyingKey};
use p256::ecdsa as es256;
use p384::ecdsa as es384;
use p521::ecdsa as es512;
use rsa::{BoxedUint, RsaPrivateKey, RsaPublicKey, traits::PublicKeyParts as _};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Key, Limits,
    material::{Material, Private, Public},
};

/// The members of a key that are understood.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default, rename = "use")]
    group: String,
    #[serde(default)]
    key_ops: Vec<String>,
    #[serde(default)]
    alg: String,
    #[serde(flatten)]
    parts: HashMap<String, Value>,
}

/// Reads one key.
pub(super) fn parse(text: &[u8]) -> Result<Key, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string()).and_then(Jwk::into_key)
}

/// Keys by their id.
#[derive(Default)]
pub(in crate::crypto) struct Set(HashMap<String, Arc<Key>>);

impl Set {
    /// Reads a set, or one key as a set of its own. Keys of kinds that are not known are left out, and so are those
    /// without an id, which nobody could ask for.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(in crate::crypto) fn parse(text: &[u8]) -> Result<Self, String> {
        let mut document: Map<String, Value> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let keys = match document.remove("keys") {
            Some(Value::Array(keys)) => keys,
            Some(_) => return Err("keys is not a list".to_owned()),
            None => vec![Value::Object(document)],
        };
        let mut set = HashMap::with_capacity(keys.len());
        for key in keys {
            let jwk: Jwk = serde_json::from_value(key).map_err(|error| error.to_string())?;
            let id = jwk.kid.clone();
            match jwk.into_key() {
                Ok(_) if id.is_empty() => tracing::warn!("a key of the set has no kid, so that nobody can ask for it"),
                Ok(key) => {
                    set.insert(id, Arc::new(key));
                }
                Err(reason) => tracing::warn!(kid = id, reason, "a key of the set cannot be used"),
            }
        }
        Ok(Self(set))
    }

    pub(in crate::crypto) fn get(&self, id: &str) -> Option<Arc<Key>> {
        self.0.get(id).cloned()
    }
}

impl Jwk {
    fn into_key(self) -> Result<Key, String> {
        let material = match self.kty.as_str() {
            "oct" => Material::Symmetric(self.bytes("k")?),
            "RSA" => self.rsa()?,
            "EC" => self.elliptic()?,
            "OKP" => self.edwards()?,
            _ => return Err("invalid key type".to_owned()),
        };
        let limits = Limits { id: self.kid, group: self.group, operations: self.key_ops, algorithm: self.alg };
        Ok(Key { material, limits })
    }

    fn rsa(&self) -> Result<Material, String> {
        let broken = |error: rsa::Error| format!("the RSA key is broken: {error}");
        let (n, e) = (self.number("n")?, self.number("e")?);
        if !self.has("d") {
            return RsaPublicKey::new(n, e).map(|key| Material::Public(Public::Rsa(key))).map_err(broken);
        }
        // Without its primes they are found again from the exponents.
        let primes = if self.has("p") { vec![self.number("p")?, self.number("q")?] } else { Vec::new() };
        let key = RsaPrivateKey::from_components(n, e, self.number("d")?, primes).map_err(broken)?;
        Ok(Material::Private(Private::Rsa(Box::new(key))))
    }

    fn elliptic(&self) -> Result<Material, String> {
        let curve = self.text("crv")?;
        let broken = || format!("the {curve} key is broken");
        if self.has("d") {
            let d = self.bytes("d")?;
            let key = match curve {
                "P-256" => es256::SigningKey::from_slice(&d).ok().map(Private::P256),
                "P-384" => es384::SigningKey::from_slice(&d).ok().map(Private::P384),
                "P-521" => es512::SigningKey::from_slice(&d).ok().map(Box::new).map(Private::P521),
                _ => return Err(format!("unknown curve {curve}")),
            };
            return key.map(Material::Private).ok_or_else(broken);
        }
        let point = [&[4][..], &self.bytes("x")?, &self.bytes("y")?].concat();
        let key = match curve {
            "P-256" => es256::VerifyingKey::from_sec1_bytes(&point).ok().map(Public::P256),
            "P-384" => es384::VerifyingKey::from_sec1_bytes(&point).ok().map(Public::P384),
            "P-521" => es512::VerifyingKey::from_sec1_bytes(&point).ok().map(Box::new).map(Public::P521),
            _ => return Err(format!("unknown curve {curve}")),
        };
        key.map(Material::Public).ok_or_else(broken)
    }

    fn edwards(&self) -> Result<Material, String> {
        let curve = self.text("crv")?;
        if curve != "Ed25519" {
            return Err(format!("unknown curve {curve}"));
        }
        let broken = || "the Ed25519 key is broken".to_owned();
        let part = |name| self.bytes(name)?.try_into().map_err(|_| broken());
        if self.has("d") {
            return Ok(Material::Private(Private::Ed25519(SigningKey::from_bytes(&part("d")?))));
        }
        let key = VerifyingKey::from_bytes(&part("x")?).map_err(|_| broken())?;
        Ok(Material::Public(Public::Ed25519(key)))
    }

    fn has(&self, part: &str) -> bool {
        self.parts.contains_key(part)
    }

    fn text(&self, part: &str) -> Result<&str, String> {
        self.parts.get(part).and_then(Value::as_str).ok_or_else(|| format!("{part} is missing"))
    }

    fn bytes(&self, part: &str) -> Result<Vec<u8>, String> {
        let text = self.text(part)?.trim_end_matches('=');
        URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{part} is not base64url"))
    }

    fn number(&self, part: &str) -> Result<BoxedUint, String> {
        Ok(BoxedUint::from_be_slice_vartime(&self.bytes(part)?))
    }
}

/// A public key with what it may be used for.
pub(super) fn write(key: &Public, limits: &Limits) -> Map<String, Value> {
    let mut members = Map::new();
    let mut set = |name: &str, value: &str| {
        members.insert(name.to_owned(), value.into());
    };
    match key {
        Public::Rsa(key) => {
            set("kty", "RSA");
            set("n", &URL_SAFE_NO_PAD.encode(key.n_bytes()));
            set("e", &URL_SAFE_NO_PAD.encode(key.e_bytes()));
        }
        Public::Ed25519(key) => {
            set("kty", "OKP");
            set("crv", "Ed25519");
            set("x", &URL_SAFE_NO_PAD.encode(key.as_bytes()));
        }
        Public::P256(key) => set_point(&mut set, "P-256", key.to_sec1_point(false).as_bytes()),
        Public::P384(key) => set_point(&mut set, "P-384", key.to_sec1_point(false).as_bytes()),
        Public::P521(key) => set_point(&mut set, "P-521", key.to_sec1_point(false).as_bytes()),
    }
    for (name, value) in [("kid", &limits.id), ("use", &limits.group), ("alg", &limits.algorithm)] {
        if !value.is_empty() {
            set(name, value);
        }
    }
    if !limits.operations.is_empty() {
        members.insert("key_ops".to_owned(), limits.operations.clone().into());
    }
    members
}

/// `point` is a byte that says how it is written, then both coordinates.
fn set_point(set: &mut impl FnMut(&str, &str), curve: &str, point: &[u8]) {
    let (x, y) = point[1..].split_at(point.len() / 2);
    set("kty", "EC");
    set("crv", curve);
    set("x", &URL_SAFE_NO_PAD.encode(x));
    set("y", &URL_SAFE_NO_PAD.encode(y));
}
