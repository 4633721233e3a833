//! From what a program says of an app to the channel that reaches it.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use trilby_core::{Api, AppChannel, metadata::AppConnection};

use crate::{
    AppSpec, Error, HealthCheck,
    app::{Absent, Way},
    guard::Guard,
    handlers::{Handler, WithHandlers},
};

/// How often a server is tried, and how long one try may take; daprd's.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// An app that can be called.
pub(crate) struct Connected {
    pub(crate) channel: Arc<dyn AppChannel>,
    /// What `channel` leads through, if something may have to be kept from the app.
    pub(crate) guard: Option<Arc<Guard>>,
    /// Whether there is anything but handlers to be called.
    pub(crate) has_app: bool,
    /// Whether there is anything to be called.
    pub(crate) is_called: bool,
    #[cfg(feature = "wasm")]
    pub(crate) guest: Option<trilby_door_wasm::WasmApp>,
}

/// Reaches an app, or loads it, and puts before it what the program says of it.
pub(crate) async fn connect(
    app: &AppSpec,
    handlers: Vec<Handler>,
    api: &Api,
    #[cfg(feature = "wasm")] host: &crate::guest::Host<'_>,
) -> Result<Connected, Error> {
    #[cfg(any(feature = "http", feature = "grpc"))]
    let failed = |message: String| Error::App { app: api.app.id.clone(), message };
    #[cfg(feature = "wasm")]
    let mut guest = None;
    let mut channel: Arc<dyn AppChannel> = match &app.way {
        Way::None => Arc::new(Absent),
        Way::Channel(channel) => Arc::clone(channel),
        #[cfg(feature = "http")]
        Way::Http(options) => {
            Arc::new(trilby_door_http::app::HttpApp::new(options).map_err(|error| failed(error.to_string()))?)
        }
        #[cfg(feature = "grpc")]
        Way::Grpc(options) => {
            Arc::new(trilby_door_grpc::app::GrpcApp::new(options).map_err(|error| failed(error.to_string()))?)
        }
        #[cfg(feature = "wasm")]
        Way::Wasm(program) => Arc::new(guest.insert(host.load(program, app, api).await?).clone()),
    };
    let has_app = !matches!(app.way, Way::None);
    let is_called = has_app || !handlers.is_empty();
    if !handlers.is_empty() {
        channel = Arc::new(WithHandlers { app: channel, handlers, has_app });
    }
    let is_guarded = app.health_check.is_some() || !app.asks_subscriptions;
    let guard = is_guarded.then(|| Arc::new(Guard::new(Arc::clone(&channel), app)));
    Ok(Connected {
        channel: guard.clone().map_or(channel, |guard| guard as Arc<dyn AppChannel>),
        guard,
        has_app,
        is_called,
        #[cfg(feature = "wasm")]
        guest,
    })
}

/// How metadata describes the way to an app.
pub(crate) fn connection(app: &AppSpec) -> AppConnection {
    AppConnection {
        health: app.health_check.as_ref().map(HealthCheck::facts),
        binding_probe_timeout: app.binding_probe_timeout,
        ..reached(&app.way)
    }
}

fn reached(way: &Way) -> AppConnection {
    let of = |protocol: &str| AppConnection { protocol: protocol.to_owned(), ..AppConnection::default() };
    match way {
        // daprd's defaults, which it shows of an app without a port too.
        Way::None => AppConnection { channel_address: "127.0.0.1".to_owned(), ..of("http") },
        Way::Channel(_) => of("embedded"),
        #[cfg(feature = "http")]
        Way::Http(options) => {
            use trilby_door_http::app::Protocol;

            let protocol = match options.protocol {
                Protocol::Http => "http",
                Protocol::Https => "https",
                Protocol::H2c => "h2c",
            };
            server(protocol, options.port, &options.address, options.max_concurrency)
        }
        #[cfg(feature = "grpc")]
        Way::Grpc(options) => {
            use trilby_door_grpc::app::Protocol;

            let protocol = match options.protocol {
                Protocol::Grpc => "grpc",
                Protocol::Grpcs => "grpcs",
            };
            server(protocol, options.port, &options.address, options.max_concurrency)
        }
        #[cfg(feature = "wasm")]
        Way::Wasm(_) => of("wasm"),
    }
}

#[cfg(any(feature = "http", feature = "grpc"))]
fn server(protocol: &str, port: u16, address: &str, max_concurrency: Option<usize>) -> AppConnection {
    AppConnection {
        port: Some(port),
        protocol: protocol.to_owned(),
        channel_address: address.to_owned(),
        max_concurrency: max_concurrency.and_then(|most| u32::try_from(most).ok()),
        ..AppConnection::default()
    }
}

/// Host and port of an app that is a server elsewhere.
pub(crate) fn server_address(way: &Way) -> Option<(String, u16)> {
    match way {
        #[cfg(feature = "http")]
        Way::Http(options) => Some((options.address.clone(), options.port)),
        #[cfg(feature = "grpc")]
        Way::Grpc(options) => Some((options.address.clone(), options.port)),
        _ => None,
    }
}

/// Waits until something listens there, however long that takes.
pub(crate) async fn wait_for_server(address: &str, port: u16) {
    let host = address.trim_start_matches('[').trim_end_matches(']');
    while !matches!(timeout(PROBE_TIMEOUT, TcpStream::connect((host, port))).await, Ok(Ok(_))) {
        sleep(PROBE_INTERVAL).await;
    }
}
