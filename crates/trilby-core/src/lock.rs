//! The lock block: leases on resources that apps share.

use std::{collections::HashMap, sync::Arc, time::Duration};

use trilby_component::{
    ComponentError,
    lock::{LockStore, UnlockStatus},
};

use crate::{
    Code, Ctx, Error, Result, Wiring,
    handle::Handle,
    metrics::Op,
    resiliency::Block,
    state::{KeyPrefix, SEPARATOR},
};

/// A lock store that is open.
pub struct LockComponent {
    /// The resource's name.
    pub name: String,
    /// The store.
    pub store: Arc<dyn LockStore>,
    /// What is put in front of names. The component's `keyPrefix`; locks know no `namespace`.
    pub key_prefix: KeyPrefix,
}

/// The lock block of one app.
#[derive(Default)]
pub struct LockApi {
    stores: HashMap<String, Store>,
}

struct Store {
    handle: Handle<dyn LockStore>,
    prefix: String,
}

impl LockApi {
    /// A block over the stores that the app may use.
    pub fn new(wiring: &Wiring<'_>, stores: impl IntoIterator<Item = LockComponent>) -> Self {
        let open = |component: LockComponent| {
            let key_prefix = match component.key_prefix {
                KeyPrefix::Namespace => KeyPrefix::Literal("namespace".to_owned()),
                known => known,
            };
            // Locks may share a database with state, so their names begin with a word of their own.
            let prefix = format!("lock{SEPARATOR}{}", key_prefix.resolve(wiring.app, &component.name));
            let handle = wiring.handle(Block::Lock, &component.name, component.store);
            (component.name, Store { handle, prefix })
        };
        Self { stores: stores.into_iter().map(open).collect() }
    }

    /// Takes a lock for at most `expiry`. `false` if somebody holds it.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] if the resource, the owner or the expiry is empty; [`Code::LockStoreNotConfigured`],
    /// [`Code::LockStoreNotFound`]; [`Code::TryLock`] if the name holds `||` or the store fails.
    pub async fn try_lock(
        &self,
        ctx: &Ctx,
        store: &str,
        resource: &str,
        owner: &str,
        expiry: Duration,
    ) -> Result<bool> {
        if expiry.is_zero() {
            let message = format!("ExpiryInSeconds is not positive in lock store {store}");
            return Err(Error::new(Code::MalformedRequest, message));
        }
        let target = self.find(store, resource, owner)?;
        let failed = |cause: ComponentError| {
            let message = format!("failed to try acquiring lock: {cause}");
            Error::from_component(Code::TryLock, message, &cause)
        };
        let name = target.complete(resource).map_err(failed)?;
        target.handle.call(ctx, Op::TryLock, |store| store.try_lock(&name, owner, expiry)).await.map_err(failed)
    }

    /// Gives a lock back.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock), with [`Code::Unlock`].
    pub async fn unlock(&self, ctx: &Ctx, store: &str, resource: &str, owner: &str) -> Result<UnlockStatus> {
        let target = self.find(store, resource, owner)?;
        let failed = |cause: ComponentError| {
            Error::from_component(Code::Unlock, format!("failed to release lock: {cause}"), &cause)
        };
        let name = target.complete(resource).map_err(failed)?;
        target.handle.call(ctx, Op::Unlock, |store| store.unlock(&name, owner)).await.map_err(failed)
    }

    fn find(&self, store: &str, resource: &str, owner: &str) -> Result<&Store> {
        if self.stores.is_empty() {
            return Err(Error::new(Code::LockStoreNotConfigured, "lock store is not configured"));
        }
        for (value, field) in [(resource, "ResourceId"), (owner, "LockOwner")] {
            if value.is_empty() {
                return Err(Error::new(Code::MalformedRequest, format!("{field} is empty in lock store {store}")));
            }
        }
        let missing = || Error::new(Code::LockStoreNotFound, format!("lock store {store} not found"));
        self.stores.get(store).ok_or_else(missing)
    }
}

impl Store {
    /// The store's name for an app's resource.
    fn complete(&self, resource: &str) -> Result<String, ComponentError> {
        if resource.contains(SEPARATOR) {
            return Err(ComponentError::request(format!("input key/keyPrefix '{resource}' can't contain '||'")));
        }
        Ok(format!("{}{resource}", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{Identity, metrics::Metrics, resiliency::Policies};

    /// Grants every lock but that of the name that is held.
    struct Held(&'static str);

    #[async_trait]
    impl LockStore for Held {
        async fn try_lock(&self, resource: &str, _: &str, _: Duration) -> Result<bool, ComponentError> {
            Ok(resource != self.0)
        }

        async fn unlock(&self, _: &str, _: &str) -> Result<UnlockStatus, ComponentError> {
            Ok(UnlockStatus::Success)
        }
    }

    async fn takes(key_prefix: &str, held: &'static str) -> bool {
        let (app, metrics, policies) = (Identity::new("myapp"), Metrics::default(), Policies::default());
        let wiring = Wiring { app: &app, metrics: &metrics, policies: &policies };
        let component = LockComponent {
            name: "locks".to_owned(),
            store: Arc::new(Held(held)),
            key_prefix: KeyPrefix::parse(key_prefix).expect("legal"),
        };
        let lock = LockApi::new(&wiring, [component]);
        lock.try_lock(&Ctx::default(), "locks", "r", "o", Duration::from_secs(1)).await.expect("it answers")
    }

    #[tokio::test]
    async fn names_are_completed_as_daprs_are() {
        for (key_prefix, name) in [
            ("", "lock||myapp||r"),
            ("name", "lock||locks||r"),
            ("none", "lock||r"),
            ("Team", "lock||team||r"),
            ("namespace", "lock||namespace||r"),
        ] {
            assert!(!takes(key_prefix, name).await, "{key_prefix} does not give {name}");
        }
        assert!(takes("", "r").await);
    }
}
