//! Opening one component: its type, its time, and what its block needs to know of it besides.

use std::sync::Arc;

use trilby_component::{
    Catalog, ComponentError, ErrorKind, OpenRequest, Properties, Result, binding::Binding,
    configuration::ConfigurationStore, conversation::Conversation, crypto::CryptoProvider, lock::LockStore,
    pubsub::PubSub, secret::SecretStore, state::StateStore,
};
use trilby_core::state::{Encryption, Key, KeyPrefix};

use crate::{
    error::StartError,
    resources::{Component, Source},
};

/// A component as a block takes it.
pub(crate) enum Part {
    Binding(Arc<Binding>),
    Configuration(Arc<dyn ConfigurationStore>),
    Conversation(Arc<dyn Conversation>),
    Crypto(Arc<dyn CryptoProvider>),
    Lock { store: Arc<dyn LockStore>, key_prefix: KeyPrefix },
    PubSub(Arc<dyn PubSub>),
    Secret(Arc<dyn SecretStore>),
    State { store: Arc<dyn StateStore>, key_prefix: KeyPrefix, encryption: Option<Arc<Encryption>> },
}

impl Part {
    /// Whether it is a broker that gives every message to every subscription.
    pub(crate) fn is_broadcast(&self) -> bool {
        matches!(self, Self::PubSub(broker) if broker.is_broadcast())
    }

    /// Releases what it holds.
    pub(crate) async fn close(&self) {
        match self {
            Self::Binding(binding) => {
                if let Some(input) = &binding.input {
                    input.close().await;
                }
                if let Some(output) = &binding.output {
                    output.close().await;
                }
            }
            Self::Configuration(store) => store.close().await,
            Self::Conversation(model) => model.close().await,
            Self::Crypto(provider) => provider.close().await,
            Self::Lock { store, .. } => store.close().await,
            Self::PubSub(broker) => broker.close().await,
            Self::Secret(store) => store.close().await,
            Self::State { store, .. } => store.close().await,
        }
    }
}

/// Whether a component is a secret store, which others may wait for.
pub(super) fn is_secret_store(component: &Component) -> bool {
    category(&component.type_name) == "secretstores"
}

/// Whether a component is a broker, whose consumers are told apart.
pub(super) fn is_broker(component: &Component) -> bool {
    category(&component.type_name) == "pubsub"
}

fn category(type_name: &str) -> String {
    type_name.split_once('.').map_or("", |(category, _)| category).to_ascii_lowercase()
}

/// Opens a component within its `initTimeout`.
pub(super) async fn open(catalog: &Catalog, component: &Component, properties: &Properties) -> Result<Part> {
    let (type_name, version) = (component.type_name.as_str(), component.version.as_str());
    let request = OpenRequest { name: component.header.name.clone(), properties: properties.clone() };
    let key_prefix = || KeyPrefix::parse(properties.get("keyPrefix").unwrap_or_default());
    let opening = async {
        Ok(match category(type_name).as_str() {
            "bindings" => Part::Binding(catalog.open_binding(type_name, version, request).await?),
            "configuration" => Part::Configuration(catalog.open_configuration(type_name, version, request).await?),
            "conversation" => Part::Conversation(catalog.open_conversation(type_name, version, request).await?),
            "crypto" => Part::Crypto(catalog.open_crypto(type_name, version, request).await?),
            "lock" => {
                let key_prefix = key_prefix()?;
                Part::Lock { store: catalog.open_lock(type_name, version, request).await?, key_prefix }
            }
            "pubsub" => Part::PubSub(catalog.open_pubsub(type_name, version, request).await?),
            "secretstores" => Part::Secret(catalog.open_secret(type_name, version, request).await?),
            "state" => {
                // Checked first: a mistake in them should not wait for a server.
                let key_prefix = key_prefix()?;
                let encryption = encryption(component, properties)?.map(Arc::new);
                Part::State { store: catalog.open_state(type_name, version, request).await?, key_prefix, encryption }
            }
            _ => return Err(unknown_type(catalog, type_name)),
        })
    };
    let limit = component.init_timeout;
    tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
        let message = format!("did not open within {limit:?}; is its server up? spec.initTimeout gives it longer");
        Err(ComponentError::new(ErrorKind::Timeout, message))
    })
}

fn unknown_type(catalog: &Catalog, type_name: &str) -> ComponentError {
    let known: Vec<_> = catalog.entries().map(|entry| format!("{}/{}", entry.type_name, entry.version)).collect();
    ComponentError::new(ErrorKind::NotFound, format!("unknown type {type_name}; this build has {}", known.join(", ")))
}

/// The keys of an encrypted store. Their names in the ciphertext are those of the secrets they come from.
fn encryption(component: &Component, properties: &Properties) -> Result<Option<Encryption>> {
    const PRIMARY: &str = "primaryEncryptionKey";
    const SECONDARY: &str = "secondaryEncryptionKey";

    let key = |field: &str| {
        let Some(pair) = component.metadata.iter().find(|pair| pair.name == field) else { return Ok(None) };
        let Source::Secret { name, .. } = &pair.source else {
            return Err(ComponentError::metadata(format!(
                "metadata {field}: an encryption key must come from a secretKeyRef"
            )));
        };
        let text = properties.get(field).unwrap_or_default();
        Key::from_hex(name, text)
            .map(Some)
            .map_err(|cause| ComponentError::metadata(format!("metadata {field}: {cause}")))
    };
    match (key(PRIMARY)?, key(SECONDARY)?) {
        (Some(primary), secondary) => Ok(Some(Encryption::new(primary, secondary))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(ComponentError::metadata(format!("metadata {SECONDARY}: needs a {PRIMARY} beside it"))),
    }
}

/// A component that could not be set up, with its place and name.
pub(super) fn failed(component: &Component, source: ComponentError) -> StartError {
    let Component { header, type_name, version, .. } = component;
    let version = if version.is_empty() { String::new() } else { format!("/{version}") };
    let resource = format!("component {} ({type_name}{version})", header.name);
    StartError::Resource { origin: header.origin.clone(), resource, source }
}
