//! Keys in PEM.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::material::{Material, Private, Public};

/// The key in the first block.
pub(super) fn parse(text: &[u8]) -> Result<Material, String> {
    let failed = |reason: &str| format!("failed to parse PEM encoded key: {reason}");
    let text = std::str::from_utf8(text).map_err(|_| failed("it is not text"))?;
    let (label, der) = block(text).ok_or_else(|| failed("there is no PEM block"))?;
    let key = match label {
        "PRIVATE KEY" => Private::from_pkcs8(&der).map(Material::Private),
        "RSA PRIVATE KEY" => Private::from_pkcs1(&der).map(Material::Private),
        "EC PRIVATE KEY" => Private::from_sec1(&der).map(Material::Private),
        "PUBLIC KEY" => Public::from_pkix(&der).map(Material::Public),
        "RSA PUBLIC KEY" => Public::from_pkcs1(&der).map(Material::Public),
        other => return Err(failed(&format!("invalid PEM block type {other}"))),
    };
    key.ok_or_else(|| failed(&format!("the {label} is broken, or of a kind that is not known")))
}

/// Label and content of the first block. What is around it does not matter.
fn block(text: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (base64, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let base64: String = base64.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    Some((label, STANDARD.decode(base64).ok()?))
}
