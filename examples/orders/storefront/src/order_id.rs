//! Order ids that nobody can guess or make up: a random number and its signature, with a key from the secret store.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::trilby::dapr::{secrets, types::Error};

const STORE: &str = "secretstore";
const SECRET: &str = "order-key";
/// Hexadecimal digits of each half.
const DIGITS: usize = 16;

/// A new id, such as `6b1f0c52a9e07d34-0f8c3d5e71b2a496`.
pub fn new() -> Result<String, Error> {
    let mut random = [0; DIGITS / 2];
    wstd::rand::get_random_bytes(&mut random);
    let number = hex(&random);
    let signature = sign(&number)?;
    Ok(format!("{number}-{signature}"))
}

/// Whether this shop gave out the id.
pub fn is_ours(id: &str) -> Result<bool, Error> {
    match id.split_once('-') {
        Some((number, signature)) => Ok(signature == sign(number)?),
        None => Ok(false),
    }
}

fn sign(number: &str) -> Result<String, Error> {
    let secret = secrets::get(STORE, SECRET, &[])?;
    let key = secret.iter().map(|(_, value)| value.as_str()).next().unwrap_or_default();
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key may have any length");
    mac.update(number.as_bytes());
    let digest = mac.finalize().into_bytes();
    Ok(hex(&digest[..DIGITS / 2]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
