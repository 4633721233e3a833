//! What every cryptography provider must do, as an application sees it. The providers are set up with the AES-256 key
//! `sym`.

use super::{Case, Outcome, check, check_eq};
use crate::client::Client;

/// The key of the suite.
const KEY: &str = "sym";

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    vec![
        Case::new("a_document_is_decrypted_to_what_was_encrypted", Vec::new(), |c, s| Box::pin(round_trip(c, s))),
        Case::new("a_document_that_was_changed_is_refused", Vec::new(), |c, s| Box::pin(changed(c, s))),
        Case::new("a_key_that_does_not_exist_cannot_encrypt", Vec::new(), |c, s| Box::pin(missing_key(c, s))),
        Case::new("a_provider_that_does_not_exist_is_an_error_that_names_it", Vec::new(), |c, _| {
            Box::pin(missing_provider(c))
        }),
    ]
}

async fn round_trip(c: &dyn Client, s: &str) -> Outcome {
    // Nothing, less than a segment, a whole one, and several.
    for length in [0, 5, 65_536, 200_000] {
        let plaintext: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
        let document = c.encrypt(s, KEY, &plaintext).await.map_err(|failure| failure.to_string())?;
        check(document.starts_with(b"dapr.io/enc/v1\n"), || "it does not begin as a document".to_owned())?;
        let decrypted = c.decrypt(s, &document).await.map_err(|failure| failure.to_string())?;
        check(decrypted == plaintext, || format!("{length} bytes came back as {}", decrypted.len()))?;
    }
    Ok(())
}

async fn changed(c: &dyn Client, s: &str) -> Outcome {
    let document = c.encrypt(s, KEY, b"hello").await.map_err(|failure| failure.to_string())?;
    for at in [0, 20, document.len() - 30, document.len() - 1] {
        let mut changed = document.clone();
        changed[at] ^= 1;
        let answer = c.decrypt(s, &changed).await;
        check(answer.is_err(), || format!("a change of byte {at} was not noticed"))?;
    }
    let answer = c.decrypt(s, &document[..document.len() - 1]).await;
    check(answer.is_err(), || "a cut was not noticed".to_owned())
}

async fn missing_key(c: &dyn Client, s: &str) -> Outcome {
    let Err(failure) = c.encrypt(s, "nope", b"hello").await else { return Err("it was encrypted".to_owned()) };
    check(failure.text.contains("failed to retrieve the key encryption key"), || failure.to_string())
}

async fn missing_provider(c: &dyn Client) -> Outcome {
    let answer = c.encrypt("other", KEY, b"hello").await;
    let failure = answer.map_or_else(|failure| failure.text, |_| "it was encrypted".to_owned());
    check(failure.contains("crypto provider other not found"), || failure.clone())?;
    check_eq("decryption", c.decrypt("other", b"x").await.is_err(), true)
}
