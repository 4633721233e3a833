//! The secrets block: reading secrets, within the scopes of the app's Configuration.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use trilby_component::{
    Metadata,
    secret::{Secret, SecretStore},
};

use crate::{Code, Ctx, Error, Result, Wiring, handle::Handle, metrics::Op, resiliency::Block};

/// Which secrets of a store an app may read; a `secrets.scopes` entry of its Configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Whether a secret that no list names is refused. Default: allowed.
    pub deny_by_default: bool,
    /// If not empty, only these may be read.
    pub allowed: Vec<String>,
    /// These may not be read, unless `allowed` says otherwise.
    pub denied: Vec<String>,
}

impl Scope {
    fn allows(&self, name: &str) -> bool {
        if !self.allowed.is_empty() {
            return self.allowed.iter().any(|allowed| allowed == name);
        }
        if self.deny_by_default {
            return false;
        }
        !self.denied.iter().any(|denied| denied == name)
    }
}

/// A secret store that is open, and what this app may read of it.
pub struct SecretComponent {
    /// The resource's name.
    pub name: String,
    /// The store.
    pub store: Arc<dyn SecretStore>,
    /// The app's scope for this store.
    pub scope: Scope,
}

struct Store {
    handle: Handle<dyn SecretStore>,
    scope: Scope,
}

/// The secrets block of one app.
#[derive(Default)]
pub struct SecretsApi {
    stores: HashMap<String, Store>,
}

impl SecretsApi {
    /// A block over the stores that the app may use.
    pub fn new(wiring: &Wiring<'_>, stores: impl IntoIterator<Item = SecretComponent>) -> Self {
        let open = |component: SecretComponent| {
            let handle = wiring.handle(Block::Secret, &component.name, component.store);
            (component.name, Store { handle, scope: component.scope })
        };
        Self { stores: stores.into_iter().map(open).collect() }
    }

    /// Reads one secret: its keys and values.
    ///
    /// # Errors
    /// [`Code::SecretDenied`] if the scope forbids it, whether it exists or not; [`Code::SecretGet`] if it does not
    /// exist or the store fails.
    pub async fn get(&self, ctx: &Ctx, store: &str, name: &str, metadata: &Metadata) -> Result<Secret> {
        let target = self.store(store)?;
        if !target.scope.allows(name) {
            return Err(Error::new(
                Code::SecretDenied,
                format!("access denied by policy to get {name:?} from {store:?}"),
            ));
        }
        target.handle.call(ctx, Op::Get, |secrets| secrets.get(name, metadata)).await.map_err(|cause| {
            let message = format!("failed getting secret with key {name} from secret store {store}: {cause}");
            Error::from_component(Code::SecretGet, message, &cause)
        })
    }

    /// Reads every secret of a store that the scope allows.
    ///
    /// # Errors
    /// [`Code::SecretGet`] if the store fails or cannot list.
    pub async fn bulk_get(&self, ctx: &Ctx, store: &str, metadata: &Metadata) -> Result<BTreeMap<String, Secret>> {
        let target = self.store(store)?;
        let all = target.handle.call(ctx, Op::BulkGet, |secrets| secrets.bulk_get(metadata)).await;
        let mut all = all.map_err(|cause| {
            let message = format!("failed getting secrets from secret store {store}: {cause}");
            Error::from_component(Code::SecretGet, message, &cause)
        })?;
        all.retain(|name, _| target.scope.allows(name));
        Ok(all)
    }

    fn store(&self, name: &str) -> Result<&Store> {
        if self.stores.is_empty() {
            return Err(Error::new(Code::SecretStoresNotConfigured, "secret store is not configured"));
        }
        self.stores.get(name).ok_or_else(|| {
            Error::new(Code::SecretStoreNotFound, format!("failed finding secret store with key {name}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowed_list_wins_then_the_default_then_the_denied_list() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (deny_by_default, allowed, denied, expect) in [
            (false, &[][..], &[][..], true),
            (true, &[][..], &[][..], false),
            (true, &["a"][..], &[][..], true),
            (false, &["b"][..], &[][..], false),
            (false, &[][..], &["a"][..], false),
            (false, &["a"][..], &["a"][..], true),
        ] {
            let scope = Scope { deny_by_default, allowed: list(allowed), denied: list(denied) };
            assert_eq!(scope.allows("a"), expect, "{scope:?}");
        }
    }
}
