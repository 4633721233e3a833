//! Opening one component: its type, its time, and what the state block needs to know of it.

use std::sync::Arc;

use trilby_component::{
    Catalog, ComponentError, ErrorKind, OpenRequest, Properties, Result, secret::SecretStore, state::StateStore,
};
use trilby_core::state::{Encryption, Key, KeyPrefix};

use crate::{
    error::StartError,
    resources::{Component, Source},
};

/// A component as a block takes it.
pub(crate) enum Store {
    Secret(Arc<dyn SecretStore>),
    State { store: Arc<dyn StateStore>, key_prefix: KeyPrefix, encryption: Option<Arc<Encryption>> },
}

/// Which block a component belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Category {
    Secret,
    State,
    Unknown,
}

impl Category {
    pub(super) fn of(component: &Component) -> Self {
        match component.type_name.split_once('.').map(|(category, _)| category.to_ascii_lowercase()).as_deref() {
            Some("secretstores") => Self::Secret,
            Some("state") => Self::State,
            _ => Self::Unknown,
        }
    }
}

/// Opens a component within its `initTimeout`.
pub(super) async fn open(catalog: &Catalog, component: &Component, properties: &Properties) -> Result<Store> {
    let (type_name, version) = (component.type_name.as_str(), component.version.as_str());
    let request = OpenRequest { name: component.header.name.clone(), properties: properties.clone() };
    let opening = async {
        match Category::of(component) {
            Category::Secret => catalog.open_secret(type_name, version, request).await.map(Store::Secret),
            Category::State => {
                // Checked first: a mistake in them should not wait for a server.
                let key_prefix = KeyPrefix::parse(properties.get("keyPrefix").unwrap_or_default())?;
                let encryption = encryption(component, properties)?.map(Arc::new);
                let store = catalog.open_state(type_name, version, request).await?;
                Ok(Store::State { store, key_prefix, encryption })
            }
            Category::Unknown => Err(unknown_type(catalog, type_name)),
        }
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
