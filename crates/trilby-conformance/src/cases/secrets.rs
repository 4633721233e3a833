//! What every secret store must do, as an application sees it. The stores are set up with the secret `plain` = `p`.

use super::{Case, Outcome, check, check_eq};
use crate::client::Client;

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    vec![
        Case::new("a_secret_can_be_read", Vec::new(), |c, s| Box::pin(read(c, s))),
        Case::new("a_secret_that_does_not_exist_is_an_error_that_names_it", Vec::new(), |c, s| Box::pin(missing(c, s))),
        Case::new("a_store_that_does_not_exist_is_an_error_that_names_it", Vec::new(), |c, _| {
            Box::pin(missing_store(c))
        }),
    ]
}

async fn read(c: &dyn Client, s: &str) -> Outcome {
    let secret = c.get_secret(s, "plain").await.map_err(|failure| failure.to_string())?;
    check_eq("secret", secret, vec![("plain".to_owned(), "p".to_owned())])
}

async fn missing(c: &dyn Client, s: &str) -> Outcome {
    let Err(failure) = c.get_secret(s, "nope").await else { return Err("a secret was found".to_owned()) };
    check(failure.text.contains("nope") && failure.text.contains(s), || failure.to_string())
}

async fn missing_store(c: &dyn Client) -> Outcome {
    let Err(failure) = c.get_secret("other", "plain").await else { return Err("a secret was found".to_owned()) };
    check(failure.text.contains("failed finding secret store with key other"), || failure.to_string())
}
