//! Starting a runtime, in the order in which failures cost least: addresses, components, apps, doors.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::task::JoinSet;
use trilby_core::{Api, AppChannel};
use trilby_runtime::{Configuration, HttpClientFactory, Options, Runtime};

use crate::{
    AppSpec, Builder, Error, HealthCheck, Trilby,
    channel::{Connected, connect, connection, server_address, wait_for_server},
    doors::{Listening, Served, StopSignal, listen},
    guard::Guard,
    health,
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
        catalog: builder.take_catalog(),
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
        Ok(connected) => Ok(serve(runtime, connected, &configuration).await),
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
        let api = runtime.api_for(app.identity.clone(), own, connection(&app)).await?;
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
    let host = crate::guest::Host {
        engine: &builder.engine,
        configuration,
        // A client that cannot be made was an error before: every app has one for absolute URLs.
        outside: clients.and_then(|make| make(&trilby_runtime::TlsSettings::default()).ok()),
    };
    #[cfg(not(feature = "wasm"))]
    let _ = (builder, configuration, clients);

    let mut connected = Vec::with_capacity(starting.len());
    for mut starting in starting {
        let handlers = std::mem::take(&mut starting.app.handlers);
        let app = connect(
            &starting.app,
            handlers,
            &starting.api,
            #[cfg(feature = "wasm")]
            &host,
        )
        .await?;
        runtime.local_apps().register(&starting.app.identity, Arc::clone(&app.channel))?;
        connected.push((starting, app));
    }
    Ok(connected)
}

/// Opens the doors, and the ways to the apps that are here. Nothing can fail any more.
async fn serve(runtime: Runtime, connected: Vec<(Starting, Connected)>, configuration: &Configuration) -> Trilby {
    let stop = StopSignal::new();
    let (mut tasks, mut watchers) = (JoinSet::new(), JoinSet::new());
    let mut apps = BTreeMap::new();
    let mut beginning = Vec::new();
    for (Starting { app, api, listening }, connected) in connected {
        let channel = connected.channel;
        if connected.has_app {
            api.attach(&channel);
        }
        let served = Served {
            api: &api,
            channel: &channel,
            configuration: app.configuration.as_ref().unwrap_or(configuration),
            settings: &app.doors,
            stop: &stop,
        };
        let addresses = listening.iter().map(|listening| (listening.listener, listening.address.clone())).collect();
        for listening in listening {
            served.serve(listening, &mut tasks);
        }
        api.health.set_outbound_ready(true);
        let running = Running {
            api: api.clone(),
            addresses,
            guard: connected.guard.clone(),
            drain_timeout: app.doors.drain_timeout,
            #[cfg(feature = "wasm")]
            guest: connected.guest,
        };
        let way = server_address(&app.way);
        if way.is_some() || app.health_check.is_some() {
            let checked = app.health_check.zip(connected.guard);
            watchers.spawn(watch(way, checked, api, channel, app.doors.drain_timeout));
        } else if connected.is_called {
            beginning.push(begin(api, channel));
        } else {
            api.health.set_ready(true);
        }
        apps.insert(app.identity.id, running);
    }
    join_all(beginning).await;
    Trilby { runtime, apps, tasks, watchers, stop }
}

/// Begins what comes to an app, and says that it is ready.
async fn begin(api: Api, channel: Arc<dyn AppChannel>) {
    api.start(&channel).await;
    api.health.set_ready(true);
}

/// Waits for an app that is a server elsewhere to listen, and goes on to ask for its health if that is wanted.
async fn watch(
    way: Option<(String, u16)>,
    checked: Option<(HealthCheck, Arc<Guard>)>,
    api: Api,
    channel: Arc<dyn AppChannel>,
    drain_timeout: Duration,
) {
    if let Some((address, port)) = way {
        wait_for_server(&address, port).await;
        tracing::info!(app_id = api.app.id, address, port, "app is ready");
    }
    let Some((check, guard)) = checked else { return begin(api, channel).await };
    // As with daprd: the runtime is ready, whatever the app says of itself.
    api.health.set_ready(true);
    health::watch(&check, &api, &guard, drain_timeout).await;
}
