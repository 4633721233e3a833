//! Signatures, by JOSE's names. What is signed is a digest, but for EdDSA, which makes its own of the message.
//!
//! ECDSA signatures are ASN.1, as Dapr's are, and not the pair of numbers that a JWT holds.

use getrandom::SysRng;
use rsa::{
    Pkcs1v15Sign, Pss,
    rand_core::UnwrapErr,
    signature::{
        Signer as _, Verifier as _,
        hazmat::{PrehashSigner, PrehashVerifier as _},
    },
    traits::PublicKeyParts as _,
};
use sha2::{
    Sha256, Sha384, Sha512,
    digest::{Digest, FixedOutputReset},
};
use trilby_component::{ComponentError, Result};

use super::{
    material::{Private, Public},
    unfit,
};

/// What the names of algorithms begin with that some key has.
const ALGORITHMS: &[&str] = &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

/// Signs a digest.
pub(super) fn sign(key: &Private, algorithm: &str, digest: &[u8]) -> Result<Vec<u8>> {
    match (key, algorithm) {
        (Private::Rsa(key), "PS256") => {
            rsa_signature(key.sign_with_rng(&mut random(), longest_salt::<Sha256>(key), digest))
        }
        (Private::Rsa(key), "PS384") => {
            rsa_signature(key.sign_with_rng(&mut random(), longest_salt::<Sha384>(key), digest))
        }
        (Private::Rsa(key), "PS512") => {
            rsa_signature(key.sign_with_rng(&mut random(), longest_salt::<Sha512>(key), digest))
        }
        (Private::Rsa(key), _) => {
            let scheme = pkcs1(algorithm).ok_or_else(|| unfit(algorithm, ALGORITHMS))?;
            rsa_signature(key.sign_with_rng(&mut random(), scheme, digest))
        }
        (Private::P256(key), "ES256") => {
            let signature: p256::ecdsa::DerSignature = key.sign_prehash(digest).map_err(unsignable)?;
            Ok(signature.as_bytes().to_vec())
        }
        (Private::P384(key), "ES384") => {
            let signature: p384::ecdsa::DerSignature = key.sign_prehash(digest).map_err(unsignable)?;
            Ok(signature.as_bytes().to_vec())
        }
        (Private::P521(key), "ES512") => {
            let signature: p521::ecdsa::DerSignature =
                PrehashSigner::sign_prehash(&**key, digest).map_err(unsignable)?;
            Ok(signature.as_bytes().to_vec())
        }
        (Private::Ed25519(key), "EdDSA") => Ok(key.try_sign(digest).map_err(unsignable)?.to_bytes().to_vec()),
        _ => Err(unfit(algorithm, ALGORITHMS)),
    }
}

/// Whether a signature is that of a digest. One that is no signature at all is not.
pub(super) fn verify(key: &Public, algorithm: &str, digest: &[u8], signature: &[u8]) -> Result<bool> {
    let is_valid = match (key, algorithm) {
        (Public::Rsa(key), "PS256") => key.verify(any_salt::<Sha256>(), digest, signature).is_ok(),
        (Public::Rsa(key), "PS384") => key.verify(any_salt::<Sha384>(), digest, signature).is_ok(),
        (Public::Rsa(key), "PS512") => key.verify(any_salt::<Sha512>(), digest, signature).is_ok(),
        (Public::Rsa(key), _) => {
            let scheme = pkcs1(algorithm).ok_or_else(|| unfit(algorithm, ALGORITHMS))?;
            key.verify(scheme, digest, signature).is_ok()
        }
        (Public::P256(key), "ES256") => p256::ecdsa::Signature::from_der(signature)
            .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
        (Public::P384(key), "ES384") => p384::ecdsa::Signature::from_der(signature)
            .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
        (Public::P521(key), "ES512") => p521::ecdsa::Signature::from_der(signature)
            .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok()),
        (Public::Ed25519(key), "EdDSA") => ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| key.verify(digest, &signature).is_ok()),
        _ => return Err(unfit(algorithm, ALGORITHMS)),
    };
    Ok(is_valid)
}

fn random() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

fn pkcs1(algorithm: &str) -> Option<Pkcs1v15Sign> {
    match algorithm {
        "RS256" => Some(Pkcs1v15Sign::new::<Sha256>()),
        "RS384" => Some(Pkcs1v15Sign::new::<Sha384>()),
        "RS512" => Some(Pkcs1v15Sign::new::<Sha512>()),
        _ => None,
    }
}

/// PSS as Go signs by default, with as much salt as there is room for.
fn longest_salt<D: Digest + FixedOutputReset>(key: &rsa::RsaPrivateKey) -> Pss<D> {
    let room = (key.n().bits() as usize - 1).div_ceil(8);
    Pss::new_with_salt(room.saturating_sub(2 + <D as Digest>::output_size()))
}

/// PSS as Go verifies by default.
fn any_salt<D: Digest + FixedOutputReset>() -> Pss<D> {
    Pss { blinded: true, digest: D::new(), salt_len: None }
}

fn rsa_signature(signed: rsa::Result<Vec<u8>>) -> Result<Vec<u8>> {
    signed.map_err(|error| ComponentError::request(format!("RSA: {error}")))
}

fn unsignable(error: rsa::signature::Error) -> ComponentError {
    ComponentError::request(error.to_string())
}
