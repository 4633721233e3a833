//! A runtime that runs.

use std::{collections::BTreeMap, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{
    FutureExt as _,
    future::{join_all, select_all},
};
use tokio::{task::JoinSet, time::timeout};
use trilby_core::{Api, Code, Ctx, Error as ApiError, Request, Response, metrics::Metrics};
use trilby_runtime::Runtime;

use crate::{
    Address, Builder,
    doors::{Listener, StopSignal},
    guard::Guard,
};

/// A runtime that runs: its apps can be called and call.
///
/// Shut it down to let calls under way finish and to release the components. Dropping it closes its doors at once.
pub struct Trilby {
    pub(crate) runtime: Runtime,
    pub(crate) apps: BTreeMap<String, Running>,
    /// Doors and whatever else runs for itself; ended by `stop`.
    pub(crate) tasks: JoinSet<()>,
    /// What waits for apps, and asks for their health.
    pub(crate) watchers: JoinSet<()>,
    pub(crate) stop: StopSignal,
}

/// One app that runs.
pub(crate) struct Running {
    pub(crate) api: Api,
    pub(crate) addresses: Vec<(Listener, Address)>,
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) drain_timeout: Duration,
    #[cfg(feature = "wasm")]
    pub(crate) guest: Option<trilby_door_wasm::WasmApp>,
}

/// An app asked, through one of its doors, for the end of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The app.
    pub app_id: String,
    /// Whether it does not want to wait for what is under way.
    pub forced: bool,
}

impl Trilby {
    /// Begins a runtime.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The building blocks as an app has them.
    #[must_use]
    pub fn api(&self, app_id: &str) -> Option<&Api> {
        self.apps.get(app_id).map(|app| &app.api)
    }

    /// Ids of the apps, in order.
    pub fn app_ids(&self) -> impl Iterator<Item = &str> {
        self.apps.keys().map(String::as_str)
    }

    /// Calls an app as if it called itself: no other app is named as the caller.
    ///
    /// # Errors
    /// [`Code::Invoke`] if there is no such app, or it gave no answer.
    pub async fn invoke(&self, app_id: &str, request: Request) -> Result<Response, ApiError> {
        let Some(app) = self.apps.get(app_id) else {
            let message = format!("failed to invoke, id: {app_id}, err: couldn't find service: {app_id}");
            return Err(ApiError::new(Code::Invoke, message));
        };
        let ctx = Ctx::from_headers(request.headers());
        app.api.invoke.call(&ctx, app_id, request).await
    }

    /// Where the HTTP API of an app listens; the first TCP address if there are several.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http_address(&self, app_id: &str) -> Option<SocketAddr> {
        self.address(app_id, Listener::Http)
    }

    /// Where the public port of an app is.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn public_address(&self, app_id: &str) -> Option<SocketAddr> {
        self.address(app_id, Listener::Public)
    }

    /// Where the world reaches an app.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn ingress_address(&self, app_id: &str) -> Option<SocketAddr> {
        self.address(app_id, Listener::Ingress)
    }

    /// Where the gRPC API of an app listens.
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn grpc_address(&self, app_id: &str) -> Option<SocketAddr> {
        self.address(app_id, Listener::Grpc)
    }

    #[cfg(any(feature = "http", feature = "grpc"))]
    fn address(&self, app_id: &str, wanted: Listener) -> Option<SocketAddr> {
        self.apps.get(app_id)?.addresses.iter().find_map(|(listener, address)| match address {
            Address::Tcp(address) if *listener == wanted => Some(*address),
            _ => None,
        })
    }

    /// What a Wasm app exports, imports and was given; `None` for other apps.
    #[cfg(feature = "wasm")]
    #[must_use]
    pub fn wasm_report(&self, app_id: &str) -> Option<&trilby_door_wasm::Report> {
        self.apps.get(app_id)?.guest.as_ref().map(|guest| guest.report())
    }

    /// What the instances of a Wasm app are and have done; `None` for other apps.
    #[cfg(feature = "wasm")]
    #[must_use]
    pub fn wasm_stats(&self, app_id: &str) -> Option<trilby_wasm::Stats> {
        self.apps.get(app_id)?.guest.as_ref().map(|guest| guest.stats())
    }

    /// What is measured of component calls.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.runtime.metrics()
    }

    /// Ends when an app asks for the end of the process: `POST /v1.0/shutdown`, or `Shutdown` over gRPC. Whoever waits
    /// decides what to do.
    pub async fn stop_asked(&self) -> Stop {
        self.stop.asked().await
    }

    /// Goes on serving, without events that come by themselves, for `duration` or until an app is unhealthy: for who is
    /// about to shut down and gives others time to notice. Dapr's `--dapr-block-shutdown-duration`.
    pub async fn linger(&self, duration: Duration) {
        self.close_ways_in().await;
        let guards = self.apps.values().filter_map(|app| app.guard.as_deref());
        // Whose health nobody asks for is never unwell.
        let unwell = guards.map(|guard| guard.unhealthy().boxed()).chain([pending().boxed()]);
        let _ = timeout(duration, select_all(unwell)).await;
    }

    /// Ends what comes to the apps by itself, lets calls and deliveries finish within their drain timeout, closes the
    /// doors, and releases the components. What is not settled then is left to the brokers.
    pub async fn shutdown(mut self) {
        for app in self.apps.values() {
            app.api.health.set_ready(false);
            app.api.health.set_outbound_ready(false);
        }
        self.watchers.shutdown().await;
        self.close_ways_in().await;
        self.stop.stop();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a door ended early");
            }
        }
        for app_id in self.apps.keys() {
            self.runtime.local_apps().unregister(app_id);
        }
        drop(self.apps);
        self.runtime.close().await;
    }

    async fn close_ways_in(&self) {
        let closing = self.apps.iter().map(|(app_id, app)| async move {
            if timeout(app.drain_timeout, app.api.close()).await.is_err() {
                tracing::warn!(app_id, "deliveries did not finish in time and are cut off");
            }
        });
        join_all(closing).await;
    }
}
