//! The apps of one runtime, by id: name resolution that needs no network.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use async_trait::async_trait;
use trilby_core::{AppChannel, ChannelError, Identity, invoke::NameResolver};

use crate::error::StartError;

struct App {
    namespace: String,
    channel: Arc<dyn AppChannel>,
}

/// Which app answers to which id. Apps may come and go while others call.
#[derive(Default)]
pub struct LocalApps {
    apps: RwLock<HashMap<String, App>>,
}

impl LocalApps {
    /// Lets an app be called.
    ///
    /// # Errors
    /// If an app of that id is there; it stays.
    pub fn register(&self, app: &Identity, channel: Arc<dyn AppChannel>) -> Result<(), StartError> {
        match self.write().entry(app.id.clone()) {
            Entry::Occupied(_) => Err(StartError::DuplicateApp(app.id.clone())),
            Entry::Vacant(place) => {
                place.insert(App { namespace: app.namespace_or_default().to_owned(), channel });
                Ok(())
            }
        }
    }

    /// Makes an app unknown. Calls that have reached it go on.
    pub fn unregister(&self, app_id: &str) {
        self.write().remove(app_id);
    }

    /// The channel to an app, whatever its namespace.
    #[must_use]
    pub fn channel(&self, app_id: &str) -> Option<Arc<dyn AppChannel>> {
        self.read().get(app_id).map(|app| Arc::clone(&app.channel))
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, App>> {
        self.apps.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, App>> {
        self.apps.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl NameResolver for LocalApps {
    async fn resolve(
        &self,
        app_id: &str,
        namespace: Option<&str>,
    ) -> Result<Option<Arc<dyn AppChannel>>, ChannelError> {
        let apps = self.read();
        let app = apps.get(app_id).filter(|app| app.namespace == namespace.unwrap_or("default"));
        Ok(app.map(|app| Arc::clone(&app.channel)))
    }
}

#[cfg(test)]
mod tests {
    use trilby_core::{Body, Request, Response, app};

    use super::*;

    fn channel() -> Arc<dyn AppChannel> {
        Arc::new(app::from_fn(|_: Request| async { Response::new(Body::Empty) }))
    }

    #[tokio::test]
    async fn an_app_is_found_in_its_namespace_until_it_leaves() {
        let apps = LocalApps::default();
        let prod = Identity { id: "a".into(), namespace: Some("prod".into()) };
        apps.register(&prod, channel()).expect("free");
        apps.register(&Identity::new("b"), channel()).expect("free");
        let found = async |id, namespace| apps.resolve(id, namespace).await.expect("no I/O").is_some();
        assert!(found("a", Some("prod")).await);
        assert!(!found("a", None).await);
        assert!(found("b", None).await);
        assert!(found("b", Some("default")).await);
        apps.unregister("b");
        assert!(!found("b", None).await);
    }

    #[test]
    fn an_id_belongs_to_one_app() {
        let apps = LocalApps::default();
        apps.register(&Identity::new("a"), channel()).expect("free");
        let error = apps.register(&Identity::new("a"), channel()).expect_err("taken");
        assert_eq!(error.to_string(), "two apps have the id a; every app of a runtime needs an id of its own");
    }
}
