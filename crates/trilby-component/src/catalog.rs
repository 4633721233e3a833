//! The catalog: which component types this build has, as a value. Two runtimes in one process may have two.

use std::{collections::BTreeMap, fmt::Write as _, future::Future, pin::Pin, sync::Arc};

use crate::{
    Properties,
    binding::Binding,
    configuration::ConfigurationStore,
    conversation::Conversation,
    crypto::CryptoProvider,
    error::{ComponentError, Result},
    lock::LockStore,
    pubsub::PubSub,
    secret::SecretStore,
    state::StateStore,
};

/// What a component is opened with.
#[derive(Debug, Clone, Default)]
pub struct OpenRequest {
    /// The resource's `metadata.name`.
    pub name: String,
    /// `spec.metadata`, secrets and templates resolved.
    pub properties: Properties,
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<Arc<T>>> + Send>>;
type Open<T> = Arc<dyn Fn(OpenRequest) -> Opening<T> + Send + Sync>;

/// One row of the catalog, without its constructor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Dapr's full type, for example `state.redis`.
    pub type_name: &'static str,
    /// `v1` or later.
    pub version: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
}

struct Row<T: ?Sized> {
    entry: Entry,
    open: Open<T>,
}

impl<T: ?Sized> Clone for Row<T> {
    fn clone(&self) -> Self {
        Self { entry: self.entry, open: Arc::clone(&self.open) }
    }
}

type Rows<T> = BTreeMap<(String, String), Row<T>>;

/// Writes the catalog: for each block the rows that it has, how a build adds one, and how a runtime opens one.
macro_rules! blocks {
    ($($(#[doc = $add:literal])+ $block:ident, $open:ident: $component:ty;)+) => {
        /// Component types by name and version.
        #[derive(Clone, Default)]
        pub struct Catalog { $($block: Rows<$component>,)+ }

        impl Catalog {
            /// A catalog without any component.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Everything this build has, by block, type and version.
            pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
                let rows: Vec<_> = [$(self.$block.values().map(|row| row.entry).collect::<Vec<_>>(),)+].concat();
                rows.into_iter()
            }

            $(
                $(#[doc = $add])+
                ///
                /// # Panics
                /// If the type and version are taken: a build never has two of one name.
                pub fn $block<F, O>(&mut self, entry: Entry, open: O) -> &mut Self
                where
                    O: Fn(OpenRequest) -> F + Send + Sync + 'static,
                    F: Future<Output = Result<Arc<$component>>> + Send + 'static,
                {
                    insert(&mut self.$block, entry, Arc::new(move |request| Box::pin(open(request))));
                    self
                }

                /// Opens one, by its full type (`state.redis`) and version (empty, `v0` and `v1` are one).
                ///
                /// # Errors
                /// `NotFound` that lists the known types; else what the component says of its metadata or backend.
                pub async fn $open(
                    &self,
                    type_name: &str,
                    version: &str,
                    request: OpenRequest,
                ) -> Result<Arc<$component>> {
                    (find(&self.$block, type_name, version)?.open)(request).await
                }
            )+
        }
    };
}

blocks! {
    /// Adds a binding.
    binding, open_binding: Binding;
    /// Adds a configuration store.
    configuration, open_configuration: dyn ConfigurationStore;
    /// Adds a language model.
    conversation, open_conversation: dyn Conversation;
    /// Adds a cryptography provider.
    crypto, open_crypto: dyn CryptoProvider;
    /// Adds a lock store.
    lock, open_lock: dyn LockStore;
    /// Adds a broker.
    pubsub, open_pubsub: dyn PubSub;
    /// Adds a secret store.
    secret, open_secret: dyn SecretStore;
    /// Adds a state store.
    state, open_state: dyn StateStore;
}

fn insert<T: ?Sized>(rows: &mut Rows<T>, entry: Entry, open: Open<T>) {
    let previous = rows.insert(key(entry.type_name, entry.version), Row { entry, open });
    assert!(previous.is_none(), "component type {}/{} is in the catalog twice", entry.type_name, entry.version);
}

/// Dapr compares types and versions without case, and takes no version, `v0` and `v1` for the same.
fn key(type_name: &str, version: &str) -> (String, String) {
    let version = version.to_ascii_lowercase();
    let version = if matches!(version.as_str(), "" | "v0") { "v1".to_owned() } else { version };
    (type_name.to_ascii_lowercase(), version)
}

fn find<'a, T: ?Sized>(rows: &'a Rows<T>, type_name: &str, version: &str) -> Result<&'a Row<T>> {
    rows.get(&key(type_name, version)).ok_or_else(|| {
        let mut message = format!("unknown type {type_name}");
        if !version.is_empty() {
            let _ = write!(message, "/{version}");
        }
        message.push_str("; this build has ");
        let known: Vec<_> = rows.values().map(|row| format!("{}/{}", row.entry.type_name, row.entry.version)).collect();
        message.push_str(&known.join(", "));
        ComponentError::new(crate::ErrorKind::NotFound, message)
    })
}
