//! The HTTP door of an app, and the client for addresses outside.

use std::sync::Arc;

use tokio::task::JoinSet;
use trilby_core::invoke::HttpClient;
#[cfg(feature = "wasm")]
use trilby_core::{Api, ChannelError, Request, Response};
use trilby_door_http::{
    Access, HttpDoor, Options, Shutdown,
    client::{Client, Tls},
};
use trilby_runtime::{Configuration, HttpClientFactory, TlsSettings, configuration::Protocol};

use super::{Served, rules};
use crate::{DoorSettings, address::Bound};

/// The door that the app's own listeners serve.
pub(super) fn door(served: &Served<'_>) -> HttpDoor {
    let ask = served.stop.asker(&served.api.app.id);
    HttpDoor::new(
        served.api.clone(),
        Options {
            api_token: served.settings.api_token.clone(),
            allowed_origins: served.settings.allowed_origins.clone(),
            access: access(served.configuration),
            shutdown: Some(Arc::new(move |how| ask(how == Shutdown::Forced))),
            ..options(served.settings)
        },
    )
}

pub(super) fn public_door(served: &Served<'_>) -> HttpDoor {
    HttpDoor::public(served.api.clone(), options(served.settings))
}

pub(super) fn serve(
    door: HttpDoor,
    bound: Bound,
    stopped: impl Future<Output = ()> + Send + 'static,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(async move {
        match bound {
            Bound::Tcp(listener) => door.serve(listener, stopped).await,
            Bound::Unix(listener, _file) => door.serve_unix(listener, stopped).await,
        }
    });
}

/// The door without a socket, for a guest that speaks Dapr's HTTP API. It is in this process, so no token is asked for;
/// and it is a guest, so it cannot end the process.
#[cfg(feature = "wasm")]
pub(crate) fn in_process(api: &Api, configuration: &Configuration, settings: &DoorSettings) -> Arc<dyn HttpClient> {
    let options = Options { access: access(configuration), ..options(settings) };
    Arc::new(InProcess(HttpDoor::new(api.clone(), options)))
}

#[cfg(feature = "wasm")]
struct InProcess(HttpDoor);

#[cfg(feature = "wasm")]
#[async_trait::async_trait]
impl HttpClient for InProcess {
    async fn send(&self, request: Request) -> Result<Response, ChannelError> {
        Ok(self.0.handle(request).await)
    }
}

/// Clients for HTTP endpoints and absolute URLs.
pub(crate) fn clients() -> HttpClientFactory {
    Arc::new(|settings: &TlsSettings| {
        let TlsSettings { root_ca, certificate, private_key } = settings.clone();
        let client = Client::new(&Tls { root_ca, certificate, private_key }).map_err(|error| error.to_string())?;
        Ok(Arc::new(client) as Arc<dyn HttpClient>)
    })
}

fn access(configuration: &Configuration) -> Access {
    let (allowed, denied) = rules(configuration, Protocol::Http);
    Access { allowed, denied }
}

fn options(settings: &DoorSettings) -> Options {
    Options {
        max_body_bytes: settings.max_body_bytes,
        max_header_bytes: settings.max_header_bytes,
        drain_timeout: settings.drain_timeout,
        h2c: settings.h2c,
        ..Options::default()
    }
}
