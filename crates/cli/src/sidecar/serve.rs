//! One life of a daprd: from its options to its end.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::{select, time::sleep};
use trilby::{AppSpec, Builder, DoorSettings, Env, Trilby};

use super::options::Options;
use crate::{
    apps::Server,
    listen::explain,
    metrics::Metrics,
    run::engine,
    signals::{Signals, Wanted},
};

/// How a life ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Gracefully,
    /// What was under way was cut off.
    ByForce,
    /// To begin another.
    ToRestart,
}

/// How often the app's readiness is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long an answer to who asked for the end may take, before it comes.
const FAREWELL: Duration = Duration::from_millis(100);

/// Serves until a signal or the app wants the end.
pub(super) async fn serve(options: &Options, env: &Env, signals: &mut Signals) -> Result<Ended, String> {
    let started = Instant::now();
    let metrics = match &options.metrics {
        Some(address) => Some(Metrics::listen(address).await?),
        None => None,
    };
    let builder = builder(options, env).await?;
    let trilby = select! {
        trilby = builder.start() => trilby.map_err(explain)?,
        wanted = signals.next() => return Ok(announce(wanted)),
    };
    announce_doors(options, &trilby);

    let running = async {
        if let Some(app) = &options.app {
            wait_for_app(&trilby, options, app).await;
        }
        // Tools look for this line.
        tracing::info!("dapr initialized. Status: Running. Init Elapsed {}ms", started.elapsed().as_millis());
        trilby.stop_asked().await
    };
    let serve_metrics = async {
        match &metrics {
            Some(metrics) => metrics.serve(|| trilby.metrics().render()).await,
            None => std::future::pending().await,
        }
    };
    let ended = select! {
        stop = running => {
            tracing::info!("the app asked for the shutdown");
            if stop.forced {
                sleep(FAREWELL).await;
                return Ok(Ended::ByForce);
            }
            Ended::Gracefully
        }
        wanted = signals.next() => announce(wanted),
        never = serve_metrics => match never {},
    };
    let ending = async {
        if let Some(duration) = options.block_shutdown {
            tracing::info!("Blocking graceful shutdown for {duration:?} or until app reports unhealthy...");
            trilby.linger(duration).await;
        }
        tracing::info!("Dapr is shutting down");
        trilby.shutdown().await;
    };
    select! {
        () = ending => Ok(ended),
        () = signals.end() => {
            tracing::warn!("told twice to end: what is under way is cut off");
            Ok(Ended::ByForce)
        }
    }
}

async fn builder(options: &Options, env: &Env) -> Result<Builder, String> {
    // A daprd skips what it cannot read, and says so.
    let mut builder = Trilby::builder().engine(engine(None, env)).env(env.clone()).strict(false);
    for folder in &options.resources {
        builder = builder.resources_dir(folder);
    }
    for file in &options.configurations {
        builder = builder.config_file(file);
    }
    Ok(builder.app(app(options).await?))
}

async fn app(options: &Options) -> Result<AppSpec, String> {
    let id = &options.app_id;
    let mut app = options.app.as_ref().map_or_else(|| AppSpec::caller(id), |server| server.spec(id));
    app = app.namespace(options.namespace.as_deref().unwrap_or_default()).doors(DoorSettings {
        max_body_bytes: options.max_body_bytes,
        max_header_bytes: options.max_header_bytes,
        api_token: options.api_token.clone(),
        allowed_origins: options.allowed_origins.clone(),
        h2c: options.h2c,
        drain_timeout: options.grace,
    });
    app = app.ask_subscriptions(options.asks_subscriptions);
    if let Some(check) = &options.health_check {
        app = app.health_check(check.clone());
    }
    if let Some(limit) = options.binding_probe_timeout {
        app = app.binding_probe_timeout(limit);
    }
    if let Some(folder) = &options.socket_folder {
        app = app.http(socket(folder, id, "http")).grpc(socket(folder, id, "grpc"));
    } else {
        for address in options.http.addresses() {
            app = app.http(address.resolve().await?);
        }
        for address in options.grpc.addresses() {
            app = app.grpc(address.resolve().await?);
        }
    }
    if let Some(address) = &options.public {
        app = app.public(address.resolve().await?);
    }
    Ok(app)
}

/// Where daprd's clients look for a socket.
fn socket(folder: &Path, app_id: &str, door: &str) -> std::path::PathBuf {
    folder.join(format!("dapr-{app_id}-{door}.socket"))
}

fn announce_doors(options: &Options, trilby: &Trilby) {
    let id = &options.app_id;
    tracing::info!("standalone mode configured");
    tracing::info!("app id: {id}");
    match trilby.grpc_address(id) {
        Some(address) => tracing::info!("API gRPC server is running on port {}", address.port()),
        None => tracing::info!("API gRPC server is running on a Unix Domain Socket"),
    }
    match trilby.http_address(id) {
        Some(address) => tracing::info!("HTTP server is running on port {}", address.port()),
        None => tracing::info!("HTTP server is running on a Unix Domain Socket"),
    }
    tracing::info!("The request body size parameter is: {} bytes", options.max_body_bytes);
}

async fn wait_for_app(trilby: &Trilby, options: &Options, app: &Server) {
    let Some(api) = trilby.api(&options.app_id) else { return };
    let (protocol, port) = (app.protocol.name(), app.port);
    tracing::info!(
        "application protocol: {protocol}. waiting on port {port}.  This will block until the app is listening on that port."
    );
    while api.health.check().is_err() {
        sleep(LOOK_INTERVAL).await;
    }
    tracing::info!("application discovered on port {port}");
}

fn announce(wanted: Wanted) -> Ended {
    match wanted {
        Wanted::End(signal) => {
            tracing::info!("Received signal '{signal}'; beginning shutdown");
            Ended::Gracefully
        }
        Wanted::Restart => {
            tracing::info!("Received signal 'hangup'; beginning restart");
            Ended::ToRestart
        }
    }
}
