//! From what a program says of an app to the channel that reaches it.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use trilby_core::{Api, AppChannel, metadata::AppConnection};

use crate::{
    AppSpec, Error,
    app::{Absent, Way},
};

/// How often a server is tried, and how long one try may take; daprd's.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// An app that can be called.
pub(crate) struct Connected {
    pub(crate) channel: Arc<dyn AppChannel>,
    #[cfg(feature = "wasm")]
    pub(crate) guest: Option<trilby_door_wasm::WasmApp>,
}

impl Connected {
    fn new(channel: impl AppChannel + 'static) -> Self {
        Self::shared(Arc::new(channel))
    }

    fn shared(channel: Arc<dyn AppChannel>) -> Self {
        Self {
            channel,
            #[cfg(feature = "wasm")]
            guest: None,
        }
    }
}

/// Reaches an app, or loads it.
pub(crate) async fn connect(
    app: &AppSpec,
    api: &Api,
    #[cfg(feature = "wasm")] host: &crate::guest::Host<'_>,
) -> Result<Connected, Error> {
    #[cfg(any(feature = "http", feature = "grpc"))]
    let failed = |message: String| Error::App { app: api.app.id.clone(), message };
    Ok(match &app.way {
        Way::None => Connected::new(Absent),
        Way::Channel(channel) => Connected::shared(Arc::clone(channel)),
        #[cfg(feature = "http")]
        Way::Http(options) => {
            Connected::new(trilby_door_http::app::HttpApp::new(options).map_err(|error| failed(error.to_string()))?)
        }
        #[cfg(feature = "grpc")]
        Way::Grpc(options) => {
            Connected::new(trilby_door_grpc::app::GrpcApp::new(options).map_err(|error| failed(error.to_string()))?)
        }
        #[cfg(feature = "wasm")]
        Way::Wasm(program) => {
            let guest = host.load(program, app, api).await?;
            Connected { guest: Some(guest.clone()), ..Connected::new(guest) }
        }
    })
}

/// How metadata describes the way to an app.
pub(crate) fn connection(way: &Way) -> AppConnection {
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
