//! Starting a runtime, in the order in which failures cost least: addresses, components, apps, doors.

use std::collections::BTreeMap;

use tokio::{select, task::JoinSet};
use trilby_core::Api;
use trilby_runtime::{Configuration, HttpClientFactory, Options, Runtime};

use crate::{
    AppSpec, Builder, Error, Trilby,
    channel::{Connected, connect, connection, server_address, wait_for_server},
    doors::{Listening, Served, StopSignal, listen},
    trilby::Running,
};

/// An app that has its blocks and its addresses.
struct Starting {
    app: AppSpec,
    api: Api,
    listening: Vec<Listening>,
}

pub(crate) async fn start(mut builder: Builder) -> Result<Trilby, Error> {
    let configuration = builder.read_configuration()?;
    let resources = builder.read_resources()?;
    let mut apps = Vec::with_capacity(builder.apps.len());
    for app in std::mem::take(&mut builder.apps) {
        let listening = listen(&app).await?;
        apps.push((app, listening));
    }

    let clients = clients();
    let mut runtime = Runtime::new(Options {
        catalog: std::mem::take(&mut builder.catalog),
        resources,
        env: std::mem::take(&mut builder.env),
        http_clients: clients.clone(),
        version: std::mem::take(&mut builder.version),
    });
    let started = match open(&mut runtime, apps, &configuration).await {
        Ok(starting) => connect_all(&runtime, starting, &builder, &configuration, clients).await,
        Err(error) => Err(error),
    };
    match started {
        Ok(connected) => Ok(serve(runtime, connected, &configuration)),
        Err(error) => {
            runtime.close().await;
            Err(error)
        }
    }
}

fn clients() -> Option<HttpClientFactory> {
    #[cfg(feature = "http")]
    return Some(crate::doors::http::clients());
    #[cfg(not(feature = "http"))]
    None
}

/// Opens the components of every app.
async fn open(
    runtime: &mut Runtime,
    apps: Vec<(AppSpec, Vec<Listening>)>,
    configuration: &Configuration,
) -> Result<Vec<Starting>, Error> {
    let mut starting = Vec::with_capacity(apps.len());
    for (app, listening) in apps {
        let own = app.configuration.as_ref().unwrap_or(configuration);
        let api = runtime.api_for(app.identity.clone(), own, connection(&app.way)).await?;
        starting.push(Starting { app, api, listening });
    }
    Ok(starting)
}

/// Reaches or loads every app, and lets the others call it.
async fn connect_all(
    runtime: &Runtime,
    starting: Vec<Starting>,
    builder: &Builder,
    configuration: &Configuration,
    clients: Option<HttpClientFactory>,
) -> Result<Vec<(Starting, Connected)>, Error> {
    #[cfg(feature = "wasm")]
    let engine = builder.engine.clone().unwrap_or_else(|| trilby_wasm::Engine::new(trilby_wasm::Options::default()));
    #[cfg(feature = "wasm")]
    let host = crate::guest::Host {
        engine: &engine,
        configuration,
        // A client that cannot be made was an error before: every app has one for absolute URLs.
        outside: clients.and_then(|make| make(&trilby_runtime::TlsSettings::default()).ok()),
    };
    #[cfg(not(feature = "wasm"))]
    let _ = (builder, configuration, clients);

    let mut connected = Vec::with_capacity(starting.len());
    for starting in starting {
        let app = connect(
            &starting.app,
            &starting.api,
            #[cfg(feature = "wasm")]
            &host,
        )
        .await?;
        runtime.local_apps().register(&starting.app.identity, app.channel.clone())?;
        connected.push((starting, app));
    }
    Ok(connected)
}

/// Opens the doors. Nothing can fail any more.
fn serve(runtime: Runtime, connected: Vec<(Starting, Connected)>, configuration: &Configuration) -> Trilby {
    let stop = StopSignal::new();
    let mut tasks = JoinSet::new();
    let mut apps = BTreeMap::new();
    for (Starting { app, api, listening }, connected) in connected {
        let served = Served {
            api: &api,
            channel: &connected.channel,
            configuration: app.configuration.as_ref().unwrap_or(configuration),
            settings: &app.doors,
            stop: &stop,
        };
        let addresses = listening.iter().map(|listening| (listening.listener, listening.address.clone())).collect();
        for listening in listening {
            served.serve(listening, &mut tasks);
        }
        api.health.set_outbound_ready(true);
        become_ready(&app, &api, &stop, &mut tasks);
        let running = Running {
            api,
            addresses,
            #[cfg(feature = "wasm")]
            guest: connected.guest,
        };
        apps.insert(app.identity.id, running);
    }
    Trilby { runtime, apps, tasks, stop }
}

/// Says that an app is ready: now, or once it listens if it is a server elsewhere.
fn become_ready(app: &AppSpec, api: &Api, stop: &StopSignal, tasks: &mut JoinSet<()>) {
    let Some((address, port)) = server_address(&app.way) else {
        api.health.set_ready(true);
        return;
    };
    let (api, stopped) = (api.clone(), stop.stopped());
    tasks.spawn(async move {
        select! {
            () = wait_for_server(&address, port) => {
                api.health.set_ready(true);
                tracing::info!(app_id = api.app.id, address, port, "app is ready");
            }
            () = stopped => {}
        }
    });
}
