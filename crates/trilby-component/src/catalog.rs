//! The catalog: which component types this build has, as a value. Two runtimes in one process may have two.

use std::{collections::BTreeMap, fmt::Write as _, future::Future, pin::Pin, sync::Arc};

use crate::{
    Properties,
    error::{ComponentError, Result},
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

/// Component types by name and version.
#[derive(Clone, Default)]
pub struct Catalog {
    state: Rows<dyn StateStore>,
    secret: Rows<dyn SecretStore>,
}

impl Catalog {
    /// A catalog without any component.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a state store.
    ///
    /// # Panics
    /// If the type and version are taken: a build never has two of one name.
    pub fn state<F, O>(&mut self, entry: Entry, open: O) -> &mut Self
    where
        O: Fn(OpenRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Arc<dyn StateStore>>> + Send + 'static,
    {
        insert(&mut self.state, entry, Arc::new(move |request| Box::pin(open(request))));
        self
    }

    /// Adds a secret store.
    ///
    /// # Panics
    /// As [`state`](Self::state).
    pub fn secret<F, O>(&mut self, entry: Entry, open: O) -> &mut Self
    where
        O: Fn(OpenRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Arc<dyn SecretStore>>> + Send + 'static,
    {
        insert(&mut self.secret, entry, Arc::new(move |request| Box::pin(open(request))));
        self
    }

    /// Everything this build has, by type and version.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let secret = self.secret.values().map(|row| row.entry);
        secret.chain(self.state.values().map(|row| row.entry))
    }

    /// Opens a state store of `type_name` (`state.redis`) and `version` (empty, `v0` and `v1` are one).
    ///
    /// # Errors
    /// `NotFound` that lists the known types; else what the component says of its metadata or backend.
    pub async fn open_state(
        &self,
        type_name: &str,
        version: &str,
        request: OpenRequest,
    ) -> Result<Arc<dyn StateStore>> {
        (find(&self.state, type_name, version)?.open)(request).await
    }

    /// Opens a secret store.
    ///
    /// # Errors
    /// As [`open_state`](Self::open_state).
    pub async fn open_secret(
        &self,
        type_name: &str,
        version: &str,
        request: OpenRequest,
    ) -> Result<Arc<dyn SecretStore>> {
        (find(&self.secret, type_name, version)?.open)(request).await
    }
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
