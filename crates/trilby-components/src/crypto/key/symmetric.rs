//! Ciphers of symmetric keys, by JOSE's names and those that Dapr adds.

use aes_gcm::{
    Aes128Gcm, Aes256Gcm, AesGcm,
    aead::{AeadInOut, KeyInit, Nonce, Tag, consts::U12},
    aes::{Aes128, Aes192, Aes256},
};
use aes_kw::AesKw;
use cbc::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt as _, BlockModeEncrypt as _, BlockSizeUser,
    InnerIvInit as _,
    block_padding::{NoPadding, Pkcs7},
    consts::U16,
};
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha384, Sha512};
use trilby_component::{
    ComponentError, Result,
    crypto::{CipherRequest, CipherResult},
};

use super::{asymmetric, mismatch, unfit};

/// What the names of algorithms for these keys begin with.
pub(super) const ALGORITHMS: &[&str] = &["A128", "A192", "A256", "C20P", "XC20P"];

/// Bytes of an AES block, and so of an initialization vector.
const BLOCK_BYTES: usize = 16;

/// Encrypts a message or a key.
pub(super) fn encrypt(key: &[u8], request: &CipherRequest) -> Result<CipherResult> {
    match request.algorithm.as_str() {
        "A128CBC" => cbc_encrypt::<Aes128>(key, request, true).map(without_tag),
        "A192CBC" => cbc_encrypt::<Aes192>(key, request, true).map(without_tag),
        "A256CBC" => cbc_encrypt::<Aes256>(key, request, true).map(without_tag),
        "A128CBC-NOPAD" => cbc_encrypt::<Aes128>(key, request, false).map(without_tag),
        "A192CBC-NOPAD" => cbc_encrypt::<Aes192>(key, request, false).map(without_tag),
        "A256CBC-NOPAD" => cbc_encrypt::<Aes256>(key, request, false).map(without_tag),
        "A128CBC-HS256" => cbc_hmac_encrypt::<Aes128, Hmac<Sha256>>(key, 16, request),
        "A192CBC-HS384" => cbc_hmac_encrypt::<Aes192, Hmac<Sha384>>(key, 24, request),
        "A256CBC-HS512" => cbc_hmac_encrypt::<Aes256, Hmac<Sha512>>(key, 32, request),
        "A128GCM" => seal::<Aes128Gcm>(key, request),
        "A192GCM" => seal::<AesGcm<Aes192, U12>>(key, request),
        "A256GCM" => seal::<Aes256Gcm>(key, request),
        "C20P" | "C20PKW" => seal::<ChaCha20Poly1305>(key, request),
        "XC20P" | "XC20PKW" => seal::<XChaCha20Poly1305>(key, request),
        "A128KW" => wrap::<Aes128>(key, request).map(without_tag),
        "A192KW" => wrap::<Aes192>(key, request).map(without_tag),
        "A256KW" => wrap::<Aes256>(key, request).map(without_tag),
        other => Err(unfit(other, asymmetric::ALGORITHMS)),
    }
}

/// Decrypts a message or a key.
pub(super) fn decrypt(key: &[u8], request: &CipherRequest) -> Result<CipherResult> {
    let output = match request.algorithm.as_str() {
        "A128CBC" => cbc_decrypt::<Aes128>(key, request, true),
        "A192CBC" => cbc_decrypt::<Aes192>(key, request, true),
        "A256CBC" => cbc_decrypt::<Aes256>(key, request, true),
        "A128CBC-NOPAD" => cbc_decrypt::<Aes128>(key, request, false),
        "A192CBC-NOPAD" => cbc_decrypt::<Aes192>(key, request, false),
        "A256CBC-NOPAD" => cbc_decrypt::<Aes256>(key, request, false),
        "A128CBC-HS256" => cbc_hmac_decrypt::<Aes128, Hmac<Sha256>>(key, 16, request),
        "A192CBC-HS384" => cbc_hmac_decrypt::<Aes192, Hmac<Sha384>>(key, 24, request),
        "A256CBC-HS512" => cbc_hmac_decrypt::<Aes256, Hmac<Sha512>>(key, 32, request),
        "A128GCM" => open::<Aes128Gcm>(key, request),
        "A192GCM" => open::<AesGcm<Aes192, U12>>(key, request),
        "A256GCM" => open::<Aes256Gcm>(key, request),
        "C20P" | "C20PKW" => open::<ChaCha20Poly1305>(key, request),
        "XC20P" | "XC20PKW" => open::<XChaCha20Poly1305>(key, request),
        "A128KW" => unwrap::<Aes128>(key, request),
        "A192KW" => unwrap::<Aes192>(key, request),
        "A256KW" => unwrap::<Aes256>(key, request),
        other => Err(unfit(other, asymmetric::ALGORITHMS)),
    };
    output.map(without_tag)
}

fn without_tag(output: Vec<u8>) -> CipherResult {
    CipherResult { output: output.into(), ..CipherResult::default() }
}

fn invalid_nonce() -> ComponentError {
    ComponentError::request("invalid nonce")
}

fn unauthentic() -> ComponentError {
    ComponentError::request("message authentication failed")
}

fn seal<A: AeadInOut + KeyInit>(key: &[u8], request: &CipherRequest) -> Result<CipherResult> {
    let cipher = A::new_from_slice(key).map_err(|_| mismatch())?;
    let nonce = Nonce::<A>::try_from(&*request.nonce).map_err(|_| invalid_nonce())?;
    let mut output = request.input.to_vec();
    let sealed = cipher.encrypt_inout_detached(&nonce, &request.associated_data, output.as_mut_slice().into());
    let tag = sealed.map_err(|_| ComponentError::request("invalid plaintext length"))?;
    Ok(CipherResult { output: output.into(), tag: tag.to_vec().into() })
}

fn open<A: AeadInOut + KeyInit>(key: &[u8], request: &CipherRequest) -> Result<Vec<u8>> {
    let cipher = A::new_from_slice(key).map_err(|_| mismatch())?;
    let nonce = Nonce::<A>::try_from(&*request.nonce).map_err(|_| invalid_nonce())?;
    let tag = Tag::<A>::try_from(&*request.tag).map_err(|_| invalid_tag())?;
    let mut output = request.input.to_vec();
    let opened = cipher.decrypt_inout_detached(&nonce, &request.associated_data, output.as_mut_slice().into(), &tag);
    opened.map_err(|_| unauthentic())?;
    Ok(output)
}

fn invalid_tag() -> ComponentError {
    ComponentError::request("invalid tag")
}

fn cbc_encrypt<C>(key: &[u8], request: &CipherRequest, padded: bool) -> Result<Vec<u8>>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    let cipher = C::new_from_slice(key).map_err(|_| mismatch())?;
    let cipher = cbc::Encryptor::inner_iv_slice_init(cipher, &request.nonce).map_err(|_| invalid_nonce())?;
    if padded {
        return Ok(cipher.encrypt_padded_vec::<Pkcs7>(&request.input));
    }
    if !request.input.len().is_multiple_of(BLOCK_BYTES) {
        return Err(ComponentError::request("invalid plaintext length"));
    }
    Ok(cipher.encrypt_padded_vec::<NoPadding>(&request.input))
}

fn cbc_decrypt<C>(key: &[u8], request: &CipherRequest, padded: bool) -> Result<Vec<u8>>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    let cipher = C::new_from_slice(key).map_err(|_| mismatch())?;
    let cipher = cbc::Decryptor::inner_iv_slice_init(cipher, &request.nonce).map_err(|_| invalid_nonce())?;
    if !request.input.len().is_multiple_of(BLOCK_BYTES) {
        return Err(ComponentError::request("invalid ciphertext length"));
    }
    let opened = if padded {
        cipher.decrypt_padded_vec::<Pkcs7>(&request.input)
    } else {
        cipher.decrypt_padded_vec::<NoPadding>(&request.input)
    };
    opened.map_err(|_| ComponentError::request("invalid padding"))
}

/// AES-CBC with HMAC (RFC 7518, section 5.2.2): half of the key signs, the other half encrypts, and half of the
/// signature is the tag.
fn cbc_hmac_encrypt<C, M>(key: &[u8], half: usize, request: &CipherRequest) -> Result<CipherResult>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
    M: Mac + KeyInit,
{
    let (signing, encrypting) = halves(key, half)?;
    let output = cbc_encrypt::<C>(encrypting, request, true)?;
    let tag = cbc_hmac_tag::<M>(signing, request, &output)?.finalize().into_bytes();
    Ok(CipherResult { output: output.into(), tag: tag[..half].to_vec().into() })
}

fn cbc_hmac_decrypt<C, M>(key: &[u8], half: usize, request: &CipherRequest) -> Result<Vec<u8>>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
    M: Mac + KeyInit,
{
    let (signing, encrypting) = halves(key, half)?;
    if request.nonce.len() != BLOCK_BYTES {
        return Err(invalid_nonce());
    }
    if request.tag.len() != half {
        return Err(invalid_tag());
    }
    // Before anything else is looked at: what is said about a padding would be an oracle.
    let tag = cbc_hmac_tag::<M>(signing, request, &request.input)?;
    tag.verify_truncated_left(&request.tag).map_err(|_| unauthentic())?;
    cbc_decrypt::<C>(encrypting, request, true)
}

fn halves(key: &[u8], half: usize) -> Result<(&[u8], &[u8])> {
    if key.len() == 2 * half { Ok(key.split_at(half)) } else { Err(mismatch()) }
}

fn cbc_hmac_tag<M: Mac + KeyInit>(key: &[u8], request: &CipherRequest, ciphertext: &[u8]) -> Result<M> {
    let data = &request.associated_data;
    let mac = <M as KeyInit>::new_from_slice(key).map_err(|_| mismatch())?;
    let bits = (data.len() as u64 * 8).to_be_bytes();
    Ok(mac.chain_update(data).chain_update(&request.nonce).chain_update(ciphertext).chain_update(bits))
}

fn wrap<C>(key: &[u8], request: &CipherRequest) -> Result<Vec<u8>>
where
    AesKw<C>: KeyInit,
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let cipher = <AesKw<C> as KeyInit>::new_from_slice(key).map_err(|_| mismatch())?;
    let mut output = vec![0; request.input.len() + aes_kw::IV_LEN];
    let wrapped = cipher.wrap_key(&request.input, &mut output);
    wrapped.map_err(|_| ComponentError::request("cek must be in 8-byte blocks"))?;
    Ok(output)
}

fn unwrap<C>(key: &[u8], request: &CipherRequest) -> Result<Vec<u8>>
where
    AesKw<C>: KeyInit,
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    let cipher = <AesKw<C> as KeyInit>::new_from_slice(key).map_err(|_| mismatch())?;
    let mut output = vec![0; request.input.len().saturating_sub(aes_kw::IV_LEN)];
    let unwrapped = cipher.unwrap_key(&request.input, &mut output);
    unwrapped.map_err(|_| ComponentError::request("integrity check failed - unexpected IV"))?;
    Ok(output)
}
