//! `secretstores.local.env`: secrets from this process's environment variables. For development.
//!
//! The environment is read anew at each call. Variables that configure the runtime itself, its API token among them,
//! are never shown.

use std::{collections::BTreeMap, env, sync::Arc};

use async_trait::async_trait;
use serde::Deserialize;
use trilby_component::{
    Metadata, OpenRequest, Result,
    secret::{Secret, SecretStore},
};

/// What `spec.metadata` may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Only variables whose name starts with this are secrets, and their names are used without it. Compared without
    /// case on Windows, with case elsewhere. Default empty: all variables. Dapr's `prefix`.
    pub prefix: String,
}

/// Opens the store.
///
/// # Errors
/// `InvalidMetadata` if the metadata cannot be read into [`Config`].
pub async fn open(request: OpenRequest) -> Result<Arc<dyn SecretStore>> {
    let Config { prefix } = request.properties.parse()?;
    Ok(Arc::new(LocalEnv { prefix }))
}

struct LocalEnv {
    prefix: String,
}

#[async_trait]
impl SecretStore for LocalEnv {
    /// A variable that is not set, or not to be shown, is an empty secret, as in Dapr.
    async fn get(&self, name: &str, _metadata: &Metadata) -> Result<Secret> {
        let variable = format!("{}{name}", self.prefix);
        let value = if is_allowed(&variable) {
            env::var_os(&variable).unwrap_or_default().to_string_lossy().into_owned()
        } else {
            tracing::warn!(variable, "this environment variable is never shown as a secret");
            String::new()
        };
        Ok(single(name, value))
    }

    async fn bulk_get(&self, _metadata: &Metadata) -> Result<BTreeMap<String, Secret>> {
        let variables = env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        Ok(select(variables, &self.prefix))
    }
}

/// The secrets among `variables`, by their name without the prefix.
fn select(variables: impl Iterator<Item = (String, String)>, prefix: &str) -> BTreeMap<String, Secret> {
    variables
        .filter(|(variable, _)| is_allowed(variable))
        .filter_map(|(variable, value)| {
            let name = strip_prefix(&variable, prefix).filter(|name| !name.is_empty())?;
            Some((name.to_owned(), single(name, value)))
        })
        .collect()
}

fn single(name: &str, value: String) -> Secret {
    Secret::from([(name.to_owned(), value)])
}

fn is_allowed(variable: &str) -> bool {
    let variable = variable.to_ascii_uppercase();
    variable != "APP_API_TOKEN" && !variable.starts_with("DAPR_")
}

fn strip_prefix<'a>(variable: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, name) = variable.split_at_checked(prefix.len())?;
    let is_prefix = if cfg!(windows) { head.eq_ignore_ascii_case(prefix) } else { head == prefix };
    is_prefix.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(variables: &[&str], prefix: &str) -> Vec<String> {
        let variables = variables.iter().map(|name| ((*name).to_owned(), "v".to_owned()));
        select(variables, prefix).into_keys().collect()
    }

    #[test]
    fn variables_of_the_runtime_are_hidden_in_any_case() {
        let variables = ["A", "APP_API_TOKEN", "app_api_token", "DAPR_API_TOKEN", "Dapr_X", "DAPR", "APP_API_TOKEN2"];
        assert_eq!(names(&variables, ""), ["A", "APP_API_TOKEN2", "DAPR"]);
    }

    #[test]
    fn a_prefix_selects_and_is_removed() {
        assert_eq!(names(&["MY_A", "MY_", "M", "A", "ŽMY_A"], "MY_"), ["A"]);
    }

    #[test]
    fn a_prefix_does_not_open_a_way_to_hidden_variables() {
        assert!(names(&["DAPR_API_TOKEN"], "DAPR_").is_empty());
    }

    #[tokio::test]
    async fn a_hidden_or_missing_variable_is_an_empty_secret() {
        let store = LocalEnv { prefix: "DAPR".to_owned() };
        let secret = store.get("_ANYTHING", &Metadata::new()).await.expect("never an error");
        assert_eq!(secret, single("_ANYTHING", String::new()));
        let store = LocalEnv { prefix: String::new() };
        let secret = store.get("TRILBY_TEST_NOT_SET", &Metadata::new()).await.expect("never an error");
        assert_eq!(secret, single("TRILBY_TEST_NOT_SET", String::new()));
        let secret = store.get("PATH", &Metadata::new()).await.expect("never an error");
        assert!(!secret["PATH"].is_empty());
    }
}
