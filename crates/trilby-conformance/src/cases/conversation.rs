//! What every language model must do, as an application sees it. The model of the suite repeats what it hears.

use super::{Case, Outcome, check, check_eq};
use crate::client::Client;

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    vec![
        Case::new("an_answer_comes_back", Vec::new(), |c, s| Box::pin(answers(c, s))),
        Case::new("personal_data_does_not_reach_the_model_if_asked_so", Vec::new(), |c, s| Box::pin(scrubs(c, s))),
        Case::new("a_model_that_does_not_exist_is_an_error_that_names_it", Vec::new(), |c, _| Box::pin(missing(c))),
    ]
}

async fn answers(c: &dyn Client, s: &str) -> Outcome {
    let said = c.converse(s, "hello <€>", false).await.map_err(|failure| failure.to_string())?;
    check_eq("answer", said.as_str(), "hello <€>")?;
    let said = c.converse(s, "mail a@b.co", false).await.map_err(|failure| failure.to_string())?;
    check_eq("answer", said.as_str(), "mail a@b.co")
}

async fn scrubs(c: &dyn Client, s: &str) -> Outcome {
    let said = c.converse(s, "mail a@b.co from 10.8.9.1", true).await.map_err(|failure| failure.to_string())?;
    check_eq("answer", said.as_str(), "mail <EMAIL_ADDRESS> from <IP>")
}

async fn missing(c: &dyn Client) -> Outcome {
    let Err(failure) = c.converse("other", "hello", false).await else { return Err("somebody answered".to_owned()) };
    check(failure.text.contains("failed finding conversation component other"), || failure.to_string())
}
