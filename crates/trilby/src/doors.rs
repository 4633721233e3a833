//! The listeners of an app: all are taken before anything runs, so that a port in use costs nothing, and served last.

#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "http")]
pub(crate) mod http;
#[cfg(feature = "http")]
mod ingress;

use std::{fmt, sync::Arc};

use tokio::{sync::watch, task::JoinSet};
use trilby_core::{Api, AppChannel};
use trilby_runtime::Configuration;
#[cfg(any(feature = "http", feature = "grpc"))]
use trilby_runtime::configuration::{ApiRule, Protocol};

use crate::{Address, AppSpec, DoorSettings, Error, Stop, address::Bound};

/// What listens for an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Listener {
    /// Dapr's HTTP API.
    #[cfg(feature = "http")]
    Http,
    /// Health and metadata.
    #[cfg(feature = "http")]
    Public,
    /// The app itself.
    #[cfg(feature = "http")]
    Ingress,
    /// Dapr's gRPC API.
    #[cfg(feature = "grpc")]
    Grpc,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            #[cfg(feature = "http")]
            Self::Http => "HTTP API",
            #[cfg(feature = "http")]
            Self::Public => "public port",
            #[cfg(feature = "http")]
            Self::Ingress => "ingress",
            #[cfg(feature = "grpc")]
            Self::Grpc => "gRPC API",
        })
    }
}

/// A listener that has its address.
pub(crate) struct Listening {
    pub(crate) listener: Listener,
    pub(crate) address: Address,
    bound: Bound,
}

/// Takes the addresses of an app.
pub(crate) async fn listen(app: &AppSpec) -> Result<Vec<Listening>, Error> {
    let mut listening = Vec::with_capacity(app.listeners.len());
    for (listener, wanted) in &app.listeners {
        let failed = |source| Error::Listen {
            app: app.identity.id.clone(),
            listener: *listener,
            address: wanted.clone(),
            source,
        };
        let bound = Bound::bind(wanted).await.map_err(failed)?;
        let address = bound.address().map_err(failed)?;
        listening.push(Listening { listener: *listener, address, bound });
    }
    Ok(listening)
}

/// What the doors of one app serve.
pub(crate) struct Served<'a> {
    pub(crate) api: &'a Api,
    pub(crate) channel: &'a Arc<dyn AppChannel>,
    pub(crate) configuration: &'a Configuration,
    pub(crate) settings: &'a DoorSettings,
    pub(crate) stop: &'a StopSignal,
}

impl Served<'_> {
    /// Serves a listener in a task of its own, until the runtime stops.
    pub(crate) fn serve(&self, listening: Listening, tasks: &mut JoinSet<()>) {
        let Listening { listener, address, bound } = listening;
        tracing::info!(app_id = self.api.app.id, %address, "{listener} is open");
        match listener {
            #[cfg(feature = "http")]
            Listener::Http => http::serve(http::door(self), bound, self.stop.stopped(), tasks),
            #[cfg(feature = "http")]
            Listener::Public => http::serve(http::public_door(self), bound, self.stop.stopped(), tasks),
            #[cfg(feature = "http")]
            Listener::Ingress => ingress::serve(self, bound, tasks),
            #[cfg(feature = "grpc")]
            Listener::Grpc => grpc::serve(self, bound, tasks),
        }
    }
}

/// The rules of a Configuration about one door, each as `version/name`: those that allow, and those that deny.
#[cfg(any(feature = "http", feature = "grpc"))]
fn rules(configuration: &Configuration, protocol: Protocol) -> (Vec<String>, Vec<String>) {
    let of_door = |rules: &[ApiRule]| {
        let rules = rules.iter().filter(|rule| rule.protocol == protocol);
        rules.map(|rule| format!("{}/{}", rule.version, rule.name)).collect()
    };
    (of_door(&configuration.api.allowed), of_door(&configuration.api.denied))
}

/// Ends the doors of a runtime, and lets an app ask for that.
pub(crate) struct StopSignal {
    stopping: watch::Sender<bool>,
    asked: watch::Sender<Option<Stop>>,
}

impl StopSignal {
    pub(crate) fn new() -> Self {
        Self { stopping: watch::Sender::new(false), asked: watch::Sender::new(None) }
    }

    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Ends when the runtime stops, or is gone.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error means that the sender is gone, and with it the runtime.
            stopping.wait_for(|stopping| *stopping).await.ok();
        }
    }

    /// What a door calls when its app asks for the end. The first to ask is heard.
    #[cfg(any(feature = "http", feature = "grpc"))]
    fn asker(&self, app_id: &str) -> impl Fn(bool) + Send + Sync + use<> {
        let (asked, app_id) = (self.asked.clone(), app_id.to_owned());
        move |forced| {
            let stop = Stop { app_id: app_id.clone(), forced };
            asked.send_if_modified(|asked| {
                let is_first = asked.is_none();
                asked.get_or_insert(stop);
                is_first
            });
        }
    }

    pub(crate) async fn asked(&self) -> Stop {
        let mut asked = self.asked.subscribe();
        let stop = asked.wait_for(Option::is_some).await.ok().and_then(|stop| stop.clone());
        match stop {
            Some(stop) => stop,
            None => std::future::pending().await,
        }
    }
}
