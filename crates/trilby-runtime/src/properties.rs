//! Where values come from: literals, environment variables and secrets, and the templates in all of them.

use std::collections::{BTreeMap, HashMap};

use trilby_component::{
    ComponentError, Metadata, Properties,
    secret::{Secret, SecretStore},
};
use trilby_core::Identity;

use crate::{
    env::Env,
    resources::{Header, Pair, Source},
};

/// The pod that daprd says it runs in.
const POD_NAME: &str = "POD_NAME";

/// Reads the values of one resource for one app.
pub(crate) struct Resolver<'a> {
    app: &'a Identity,
    env: &'a Env,
    header: &'a Header,
    store: Option<&'a dyn SecretStore>,
    /// Several values often come from one secret.
    read: HashMap<String, Secret>,
}

impl<'a> Resolver<'a> {
    /// `store` is the one that the resource names, if it is there.
    pub(crate) fn new(app: &'a Identity, env: &'a Env, header: &'a Header, store: Option<&'a dyn SecretStore>) -> Self {
        Self { app, env, header, store, read: HashMap::new() }
    }

    /// All values, templates filled in.
    pub(crate) async fn properties(&mut self, pairs: &[Pair]) -> Result<Properties, ComponentError> {
        let mut properties = BTreeMap::new();
        for Pair { name, source } in pairs {
            let value = self.value(&format!("metadata {name}"), source).await?;
            properties.insert(name.as_str(), self.fill(name, value)?);
        }
        Ok(properties.into_iter().collect())
    }

    /// One value, templates left as they are. `name` is for messages.
    pub(crate) async fn value(&mut self, name: &str, source: &Source) -> Result<String, ComponentError> {
        match source {
            Source::Literal(text) => Ok(text.clone()),
            Source::Env(variable) => match self.env.referenced(variable) {
                Ok(value) => Ok(value.to_owned()),
                Err(reason) => {
                    // daprd goes on without the value, and many components can.
                    tracing::warn!(origin = %self.header.origin, "{name}: {reason}");
                    Ok(String::new())
                }
            },
            Source::Secret { name: secret, key, fallback } => match (self.secret(secret, key).await, fallback) {
                (Ok(value), _) => Ok(value),
                (Err(_), Some(fallback)) => Ok(fallback.clone()),
                (Err(reason), None) => Err(ComponentError::metadata(format!("{name}: {reason}"))),
            },
        }
    }

    async fn secret(&mut self, name: &str, key: &str) -> Result<String, String> {
        let store_name = self.header.secret_store.as_deref();
        let Some(store) = self.store else {
            return Err(match store_name {
                None => {
                    format!("secretKeyRef {name:?} without auth.secretStore; name the component that holds the secret")
                }
                Some(store) => format!(
                    "auth.secretStore {store:?} is not a secret store that this app has; its components may be scoped or missing"
                ),
            });
        };
        let store_name = store_name.unwrap_or_default();
        if !self.read.contains_key(name) {
            let namespace = self.header.namespace.clone().unwrap_or_default();
            let metadata = Metadata::from([("namespace".to_owned(), namespace)]);
            let secret = store.get(name, &metadata).await;
            self.read
                .insert(name.to_owned(), secret.map_err(|cause| format!("secret {name:?} of {store_name}: {cause}"))?);
        }
        let secret = &self.read[name];
        match secret.get(key) {
            Some(value) if !value.is_empty() => Ok(value.clone()),
            Some(_) => Err(format!("key {key:?} of secret {name:?} of {store_name} is empty")),
            None => {
                let known: Vec<_> = secret.keys().map(String::as_str).collect();
                Err(format!("secret {name:?} of {store_name} has no key {key:?}; it has {}", known.join(", ")))
            }
        }
    }

    fn fill(&self, name: &str, mut value: String) -> Result<String, ComponentError> {
        while let Some(at) = value.find("{uuid}") {
            value.replace_range(at..at + "{uuid}".len(), &uuid::Uuid::new_v4().to_string());
        }
        if value.contains("{podName}") {
            let pod = self.env.get(POD_NAME).ok_or_else(|| {
                ComponentError::metadata(format!("metadata {name}: refers to {{podName}} but {POD_NAME} is not set"))
            })?;
            value = value.replace("{podName}", pod);
        }
        if value.contains("{namespace}") {
            value = value.replace("{namespace}", &format!("{}.{}", self.app.namespace_or_default(), self.app.id));
        }
        if value.contains("{appID}") {
            value = value.replace("{appID}", &self.app.id);
        }
        Ok(value)
    }
}
