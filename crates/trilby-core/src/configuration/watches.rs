//! The watches of one app: each a task of its own, which ends with its entry.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use futures_util::future::join_all;
use tokio_util::task::AbortOnDropHandle;
use trilby_component::{CancellationToken, configuration::Watch};

/// Who wanted a watch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A caller of the API, until it unsubscribes.
    Api,
    /// The app, for as long as it is up.
    App,
}

struct Watching {
    asker: Asker,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// Watches by id.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<String, Watching>>);

/// An id that nobody can guess: whoever knows it may end the watch.
pub(super) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Watches {
    pub(super) fn insert(&self, id: &str, asker: Asker, stop: CancellationToken, watch: Watch) {
        let name = id.to_owned();
        let task = tokio::spawn(async move {
            if let Err(error) = watch.await {
                tracing::error!(id = name, %error, "configuration is no longer watched");
            }
        });
        let watching = Watching { asker, stop, task: AbortOnDropHandle::new(task) };
        self.lock().insert(id.to_owned(), watching);
    }

    /// Ends a watch; `false` if there is none of that id.
    pub(super) fn remove(&self, id: &str) -> bool {
        self.lock().remove(id).is_some()
    }

    /// Ends the watches of `asker`, and waits until they have.
    pub(super) async fn end(&self, asker: Asker) {
        let ended: Vec<_> = self.lock().extract_if(|_, watching| watching.asker == asker).collect();
        let waiting = ended.into_iter().map(|(_, watching)| {
            watching.stop.cancel();
            watching.task
        });
        join_all(waiting).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Watching>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
