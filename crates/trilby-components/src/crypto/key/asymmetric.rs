//! RSA encryption, by JOSE's names of the paddings.

use getrandom::SysRng;
use rsa::{Oaep, Pkcs1v15Encrypt, rand_core::UnwrapErr};
use sha1::Sha1;
use sha2::{
    Sha256, Sha384, Sha512,
    digest::{Digest, FixedOutputReset},
};
use trilby_component::{
    ComponentError, Result,
    crypto::{CipherRequest, CipherResult},
};

use super::{
    material::{Private, Public},
    symmetric, unfit,
};

/// What the names of algorithms for these keys begin with.
pub(super) const ALGORITHMS: &[&str] = &["RSA1_5", "RSA-OAEP"];

/// Encrypts for whoever has the private key. Associated data become OAEP's label.
pub(super) fn encrypt(key: &Public, request: &CipherRequest) -> Result<CipherResult> {
    let Public::Rsa(key) = key else { return Err(unfit(&request.algorithm, ALGORITHMS)) };
    let (input, random) = (&*request.input, &mut UnwrapErr(SysRng));
    let encrypted = match request.algorithm.as_str() {
        "RSA1_5" => key.encrypt(random, Pkcs1v15Encrypt, input),
        "RSA-OAEP" => key.encrypt(random, oaep::<Sha1>(request), input),
        "RSA-OAEP-256" => key.encrypt(random, oaep::<Sha256>(request), input),
        "RSA-OAEP-384" => key.encrypt(random, oaep::<Sha384>(request), input),
        "RSA-OAEP-512" => key.encrypt(random, oaep::<Sha512>(request), input),
        other => return Err(unfit(other, symmetric::ALGORITHMS)),
    };
    done(encrypted)
}

/// Decrypts. What RSA1_5 makes of a ciphertext that is none is noise and not an error, so that nobody can ask which are.
pub(super) fn decrypt(key: &Private, request: &CipherRequest) -> Result<CipherResult> {
    let Private::Rsa(key) = key else { return Err(unfit(&request.algorithm, ALGORITHMS)) };
    let (input, random) = (&*request.input, &mut UnwrapErr(SysRng));
    let decrypted = match request.algorithm.as_str() {
        "RSA1_5" => key.decrypt_blinded(random, Pkcs1v15Encrypt, input),
        "RSA-OAEP" => key.decrypt_blinded(random, oaep::<Sha1>(request), input),
        "RSA-OAEP-256" => key.decrypt_blinded(random, oaep::<Sha256>(request), input),
        "RSA-OAEP-384" => key.decrypt_blinded(random, oaep::<Sha384>(request), input),
        "RSA-OAEP-512" => key.decrypt_blinded(random, oaep::<Sha512>(request), input),
        other => return Err(unfit(other, symmetric::ALGORITHMS)),
    };
    done(decrypted)
}

fn oaep<D: Digest + FixedOutputReset>(request: &CipherRequest) -> Oaep<D> {
    Oaep::new_with_label(&*request.associated_data)
}

fn done(output: rsa::Result<Vec<u8>>) -> Result<CipherResult> {
    let output = output.map_err(|error| match error {
        rsa::Error::MessageTooLong => ComponentError::request("message too long for RSA key size"),
        other => ComponentError::request(format!("RSA: {other}")),
    })?;
    Ok(CipherResult { output: output.into(), ..CipherResult::default() })
}
