//! What keys are made of.

use p256::{SecretKey as P256Secret, ecdsa as es256};
use p384::{SecretKey as P384Secret, ecdsa as es384};
use p521::{SecretKey as P521Secret, ecdsa as es512};
use rsa::{
    RsaPrivateKey, RsaPublicKey,
    pkcs1::{DecodeRsaPrivateKey as _, DecodeRsaPublicKey as _},
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _, LineEnding, spki},
};

/// What a key is made of.
pub(super) enum Material {
    Symmetric(Vec<u8>),
    Private(Private),
    Public(Public),
}

/// A key pair.
pub(super) enum Private {
    Rsa(Box<RsaPrivateKey>),
    P256(es256::SigningKey),
    P384(es384::SigningKey),
    P521(Box<es512::SigningKey>),
    Ed25519(ed25519_dalek::SigningKey),
}

/// The public half of one.
#[derive(Clone)]
pub(super) enum Public {
    Rsa(RsaPublicKey),
    P256(es256::VerifyingKey),
    P384(es384::VerifyingKey),
    P521(Box<es512::VerifyingKey>),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl Material {
    /// The public half, if it has halves.
    pub(super) fn public(&self) -> Option<Public> {
        match self {
            Self::Symmetric(_) => None,
            Self::Private(key) => Some(key.public()),
            Self::Public(key) => Some(key.clone()),
        }
    }
}

impl Private {
    pub(super) fn public(&self) -> Public {
        match self {
            Self::Rsa(key) => Public::Rsa(key.to_public_key()),
            Self::P256(key) => Public::P256(*key.verifying_key()),
            Self::P384(key) => Public::P384(*key.verifying_key()),
            Self::P521(key) => Public::P521(Box::new(*key.verifying_key())),
            Self::Ed25519(key) => Public::Ed25519(key.verifying_key()),
        }
    }

    /// From DER of PKCS#8, whatever kind of key it holds.
    pub(super) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let rsa = || RsaPrivateKey::from_pkcs8_der(der).ok().map(Box::new).map(Self::Rsa);
        let p256 = || P256Secret::from_pkcs8_der(der).ok().map(|key| Self::P256(key.into()));
        let p384 = || P384Secret::from_pkcs8_der(der).ok().map(|key| Self::P384(key.into()));
        let p521 = || P521Secret::from_pkcs8_der(der).ok().map(|key| Self::P521(Box::new(key.into())));
        let ed25519 = || ed25519_dalek::SigningKey::from_pkcs8_der(der).ok().map(Self::Ed25519);
        rsa().or_else(p256).or_else(p384).or_else(p521).or_else(ed25519)
    }

    /// From DER of PKCS#1.
    pub(super) fn from_pkcs1(der: &[u8]) -> Option<Self> {
        RsaPrivateKey::from_pkcs1_der(der).ok().map(Box::new).map(Self::Rsa)
    }

    /// From DER of SEC 1.
    pub(super) fn from_sec1(der: &[u8]) -> Option<Self> {
        let p256 = || P256Secret::from_sec1_der(der).ok().map(|key| Self::P256(key.into()));
        let p384 = || P384Secret::from_sec1_der(der).ok().map(|key| Self::P384(key.into()));
        let p521 = || P521Secret::from_sec1_der(der).ok().map(|key| Self::P521(Box::new(key.into())));
        p256().or_else(p384).or_else(p521)
    }
}

impl Public {
    /// From DER of PKIX, whatever kind of key it holds.
    pub(super) fn from_pkix(der: &[u8]) -> Option<Self> {
        let rsa = || RsaPublicKey::from_public_key_der(der).ok().map(Self::Rsa);
        let p256 = || es256::VerifyingKey::from_public_key_der(der).ok().map(Self::P256);
        let p384 = || es384::VerifyingKey::from_public_key_der(der).ok().map(Self::P384);
        let p521 = || es512::VerifyingKey::from_public_key_der(der).ok().map(Box::new).map(Self::P521);
        let ed25519 = || ed25519_dalek::VerifyingKey::from_public_key_der(der).ok().map(Self::Ed25519);
        rsa().or_else(p256).or_else(p384).or_else(p521).or_else(ed25519)
    }

    /// From DER of PKCS#1.
    pub(super) fn from_pkcs1(der: &[u8]) -> Option<Self> {
        RsaPublicKey::from_pkcs1_der(der).ok().map(Self::Rsa)
    }

    /// PEM of PKIX.
    pub(super) fn to_pem(&self) -> spki::Result<String> {
        match self {
            Self::Rsa(key) => key.to_public_key_pem(LineEnding::LF),
            Self::P256(key) => key.to_public_key_pem(LineEnding::LF),
            Self::P384(key) => key.to_public_key_pem(LineEnding::LF),
            Self::P521(key) => key.to_public_key_pem(LineEnding::LF),
            Self::Ed25519(key) => key.to_public_key_pem(LineEnding::LF),
        }
    }
}
