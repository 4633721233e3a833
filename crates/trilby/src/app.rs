//! What a program says of one app: who it is, how it is reached, and which doors it gets.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use trilby_component::ErrorKind;
use trilby_core::{
    AppChannel, ChannelError, Ctx, Identity, Request, Response, app,
    pubsub::{Event, Outcome},
};
use trilby_runtime::{Configuration, configuration::WasmSettings};

use crate::{Address, HealthCheck, doors::Listener, handlers::Handler};

/// Bounds and rules of an app's doors. The defaults are daprd's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorSettings {
    /// Longest message in bytes, either way. Default 4 MiB; Dapr's `--max-body-size`.
    pub max_body_bytes: usize,
    /// Longest request head in bytes. Default 4 KiB; Dapr's `--read-buffer-size`.
    pub max_header_bytes: usize,
    /// What callers of Dapr's API must send as `dapr-api-token`. Default none; Dapr's `DAPR_API_TOKEN`.
    pub api_token: Option<String>,
    /// Origins that browsers may call Dapr's API from, `*` for any. Default none; Dapr's `--allowed-origins`.
    pub allowed_origins: Vec<String>,
    /// Whether the HTTP API speaks clear-text HTTP/2 too. Default true; off is Dapr's `DAPR_HTTP_DISABLE_H2C`.
    pub h2c: bool,
    /// How long a door waits at shutdown for calls that are under way. Default 5 s; Dapr's
    /// `--dapr-graceful-shutdown-seconds`.
    pub drain_timeout: Duration,
}

impl Default for DoorSettings {
    fn default() -> Self {
        Self {
            max_body_bytes: 4 << 20,
            max_header_bytes: 4 << 10,
            api_token: None,
            allowed_origins: Vec::new(),
            h2c: true,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// How an app is reached.
pub(crate) enum Way {
    /// Not at all: it only calls.
    None,
    Channel(Arc<dyn AppChannel>),
    #[cfg(feature = "http")]
    Http(trilby_door_http::app::Options),
    #[cfg(feature = "grpc")]
    Grpc(trilby_door_grpc::app::Options),
    #[cfg(feature = "wasm")]
    Wasm(String),
}

/// One app of a runtime.
///
/// Made by how the app is reached; then say what else it gets. Without a listener it has no port at all.
pub struct AppSpec {
    pub(crate) identity: Identity,
    pub(crate) way: Way,
    pub(crate) configuration: Option<Configuration>,
    pub(crate) doors: DoorSettings,
    pub(crate) wasm: WasmSettings,
    pub(crate) listeners: Vec<(Listener, Address)>,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) health_check: Option<HealthCheck>,
    pub(crate) asks_subscriptions: bool,
    pub(crate) binding_probe_timeout: Option<Duration>,
}

impl AppSpec {
    fn new(id: impl Into<String>, way: Way) -> Self {
        Self {
            identity: Identity::new(id),
            way,
            configuration: None,
            doors: DoorSettings::default(),
            wasm: WasmSettings::default(),
            listeners: Vec::new(),
            handlers: Vec::new(),
            health_check: None,
            asks_subscriptions: true,
            binding_probe_timeout: None,
        }
    }

    /// An app that calls and is not called: the program itself, or a process beside it that has no port.
    pub fn caller(id: impl Into<String>) -> Self {
        Self::new(id, Way::None)
    }

    /// An app that is an async function from request to response.
    pub fn function<F, Fut>(id: impl Into<String>, function: F) -> Self
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response> + Send + 'static,
    {
        Self::channel(id, Arc::new(app::from_fn(function)))
    }

    /// An app that is reached by a channel of the program's own.
    pub fn channel(id: impl Into<String>, channel: Arc<dyn AppChannel>) -> Self {
        Self::new(id, Way::Channel(channel))
    }

    /// An app that is an HTTP server. It is ready when its port is.
    #[cfg(feature = "http")]
    pub fn http_server(id: impl Into<String>, options: trilby_door_http::app::Options) -> Self {
        Self::new(id, Way::Http(options))
    }

    /// An app that is a gRPC server. It is ready when its port is.
    #[cfg(feature = "grpc")]
    pub fn grpc_server(id: impl Into<String>, options: trilby_door_grpc::app::Options) -> Self {
        Self::new(id, Way::Grpc(options))
    }

    /// An app that is a Wasm component: a path, or a URL with `file`, `http` or `https`.
    #[cfg(feature = "wasm")]
    pub fn wasm(id: impl Into<String>, program: impl Into<String>) -> Self {
        Self::new(id, Way::Wasm(program.into()))
    }

    /// Puts the app into a namespace; Dapr's `NAMESPACE`. Default none.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.identity.namespace = Some(namespace.into()).filter(|namespace| !namespace.is_empty());
        self
    }

    /// What the app may do. Default: the builder's Configuration.
    #[must_use]
    pub fn configuration(mut self, configuration: Configuration) -> Self {
        self.configuration = Some(configuration);
        self
    }

    /// Bounds and rules of the app's doors.
    #[must_use]
    pub fn doors(mut self, settings: DoorSettings) -> Self {
        self.doors = settings;
        self
    }

    /// Limits and grants of a Wasm app, over those of its Configuration.
    #[must_use]
    pub fn wasm_settings(mut self, settings: WasmSettings) -> Self {
        self.wasm = settings;
        self
    }

    /// Handles the events of a topic with an async function, beside whatever else the app is. A panic or an end of the
    /// runtime before it answers leaves the event to the broker. May be said more than once, for different topics.
    #[must_use]
    pub fn subscribe<F, Fut>(mut self, pubsub: impl Into<String>, topic: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        self.handlers.push(Handler::new(pubsub.into(), topic.into(), handler));
        self
    }

    /// Asks the app whether it is healthy, and gives it nothing while it is not. Default: an app that can be reached is
    /// taken for healthy. Dapr's `--enable-app-health-check`.
    #[must_use]
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.health_check = Some(check);
        self
    }

    /// Whether the app itself is asked what it subscribes to. Default true; off is Dapr's `--disable-init-endpoints
    /// subscribe`.
    #[must_use]
    pub fn ask_subscriptions(mut self, asks: bool) -> Self {
        self.asks_subscriptions = asks;
        self
    }

    /// Longest time that the app is asked whether it wants the events of a binding. Default 3 s; Dapr's
    /// `--app-binding-options-timeout`.
    #[must_use]
    pub fn binding_probe_timeout(mut self, limit: Duration) -> Self {
        self.binding_probe_timeout = Some(limit);
        self
    }

    /// Listens for Dapr's HTTP API. May be said more than once.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http(self, address: impl Into<Address>) -> Self {
        self.listen(Listener::Http, address)
    }

    /// Listens for probes from elsewhere: health and metadata only, without a token. Dapr's `--dapr-public-port`.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn public(self, address: impl Into<Address>) -> Self {
        self.listen(Listener::Public, address)
    }

    /// Listens for the app itself: what arrives there goes to the app. For apps that have no port of their own, such as
    /// Wasm guests.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn ingress(self, address: impl Into<Address>) -> Self {
        self.listen(Listener::Ingress, address)
    }

    /// Listens for Dapr's gRPC API. May be said more than once.
    #[cfg(feature = "grpc")]
    #[must_use]
    pub fn grpc(self, address: impl Into<Address>) -> Self {
        self.listen(Listener::Grpc, address)
    }

    #[cfg(any(feature = "http", feature = "grpc"))]
    fn listen(mut self, listener: Listener, address: impl Into<Address>) -> Self {
        self.listeners.push((listener, address.into()));
        self
    }
}

/// Stands for an app that cannot be called.
pub(crate) struct Absent;

#[async_trait]
impl AppChannel for Absent {
    async fn invoke(&self, _: &Ctx, _: Request) -> Result<Response, ChannelError> {
        // daprd's words, which name its own part.
        Err(ChannelError::new(ErrorKind::Unavailable, "cannot invoke local endpoint: app channel not initialized"))
    }
}
