//! The life of a `trilby run`: start everything, wait for the end, end everything.

use std::{
    collections::BTreeMap,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use futures_util::{
    StreamExt as _,
    future::{join_all, pending},
    stream::FuturesUnordered,
};
use tokio::select;
use trilby::{
    AppSpec, Builder, DoorSettings, Embedded, Engine, Env, Resources, Trilby, runtime::configuration::Layers,
};

use super::{
    args::Plan,
    plan::{App, Doors, Program},
    process::Process,
    tool::Loaded,
};
use crate::{
    listen::explain,
    log::Log,
    metrics::Metrics,
    signals::{Signals, Wanted},
};

/// How long commands, and calls that are under way, may take when all ends.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the plan. The exit code is that of the command, if it was about one.
pub(super) async fn serve(plan: Plan, env: Env, engine: Engine, log: &Log) -> Result<ExitCode, String> {
    let mut signals = Signals::catch().map_err(|error| format!("signals cannot be caught: {error}"))?;
    let loaded = select! {
        loaded = Loaded::of(&plan, &engine) => loaded?,
        () = signals.end() => return Ok(ExitCode::FAILURE),
    };
    if let Some(loaded) = &loaded {
        let ran = select! {
            ran = loaded.run(&plan, &engine) => ran,
            () = signals.end() => return Ok(ExitCode::FAILURE),
        };
        if let Some(code) = ran {
            return code;
        }
    }
    let started = Instant::now();
    let metrics = listen_for_metrics(&plan.apps).await?;
    let builder = builder(&plan, env, engine).await?;
    let trilby = select! {
        trilby = builder.start() => trilby.map_err(explain)?,
        () = signals.end() => return Ok(ExitCode::FAILURE),
    };
    announce(&plan, &trilby);
    let mut processes = match start_commands(&plan.apps, &trilby, log) {
        Ok(processes) => processes,
        Err(message) => {
            trilby.shutdown().await;
            return Err(message);
        }
    };
    tracing::info!("{} running after {} ms; end with ctrl-c", count(plan.apps.len()), started.elapsed().as_millis());

    let serve_metrics = async {
        let mut served: FuturesUnordered<_> =
            metrics.iter().map(|metrics| metrics.serve(|| trilby.metrics().render())).collect();
        match served.next().await {
            Some(never) => match never {},
            None => pending().await,
        }
    };
    let code = select! {
        code = commands_end(&mut processes, &plan) => code,
        () = asked_by_signal(&mut signals) => ExitCode::SUCCESS,
        stop = trilby.stop_asked() => {
            tracing::info!(app_id = stop.app_id, "the app asked for the shutdown");
            ExitCode::SUCCESS
        }
        never = serve_metrics => match never {},
    };
    let end = async {
        // Commands first: until they have ended they may need their doors.
        join_all(processes.into_iter().map(|process| process.stop(GRACE))).await;
        trilby.shutdown().await;
    };
    select! {
        () = end => Ok(code),
        () = signals.end() => {
            tracing::warn!("told twice to end: what is under way is cut off");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn listen_for_metrics(apps: &[App]) -> Result<Vec<Metrics>, String> {
    let mut listening = Vec::new();
    for app in apps {
        if let Doors::Ports { metrics: Some(address), .. } = &app.doors {
            listening
                .push(Metrics::listen(address).await.map_err(|message| format!("app {}, metrics: {message}", app.id))?);
        }
    }
    Ok(listening)
}

async fn builder(plan: &Plan, env: Env, engine: Engine) -> Result<Builder, String> {
    let mut builder = Trilby::builder().engine(engine).strict(true);
    builder = with_resources(builder, plan)?;
    for app in &plan.apps {
        builder = builder.app(spec(app, &env).await?);
    }
    Ok(builder.env(env))
}

async fn spec(app: &App, env: &Env) -> Result<AppSpec, String> {
    let id = app.id.as_str();
    let mut spec = match &app.program {
        Program::None => AppSpec::caller(id),
        Program::Server(server) => server.spec(id),
        Program::Wasm { source, settings, .. } => AppSpec::wasm(id, source).wasm_settings(settings.clone()),
    };
    if let Some(path) = &app.configuration {
        let mut layers = Layers::default();
        let configuration = layers.add_file(path, env).and_then(|()| layers.finish());
        spec = spec.configuration(configuration.map_err(|error| format!("app {id}: {error}"))?);
    }
    spec = spec.namespace(app.namespace.as_deref().unwrap_or_default()).doors(DoorSettings {
        max_body_bytes: app.max_body_bytes,
        max_header_bytes: app.max_header_bytes,
        api_token: app.api_token.clone(),
        drain_timeout: GRACE,
        ..DoorSettings::default()
    });
    if let Some(check) = &app.health_check {
        spec = spec.health_check(check.clone());
    }
    if let Program::Wasm { ingress: Some(address), .. } = &app.program {
        spec = spec.ingress(address.resolve().await?);
    }
    match &app.doors {
        Doors::Sockets(folder) => {
            spec = spec
                .http(folder.join(format!("dapr-{id}-http.socket")))
                .grpc(folder.join(format!("dapr-{id}-grpc.socket")));
        }
        Doors::Ports { http, grpc, .. } => {
            for address in http {
                spec = spec.http(address.resolve().await?);
            }
            for address in grpc {
                spec = spec.grpc(address.resolve().await?);
            }
        }
    }
    Ok(spec)
}

/// Says where each app is to be found.
fn announce(plan: &Plan, trilby: &Trilby) {
    for app in &plan.apps {
        let app_id = app.id.as_str();
        if let Some(address) = trilby.ingress_address(app_id) {
            tracing::info!(app_id, "app is at http://{address}");
        }
        if let Some(address) = trilby.http_address(app_id) {
            tracing::info!(app_id, "Dapr's HTTP API is at http://{address}");
        }
        if let Some(address) = trilby.grpc_address(app_id) {
            tracing::info!(app_id, "Dapr's gRPC API is at {address}");
        }
        if plan.is_single && matches!(app.program, Program::Wasm { ingress: None, .. }) {
            tracing::info!(app_id, "app has no port; add --app-port 8080 to reach it by HTTP");
        }
    }
}

fn count(apps: usize) -> String {
    if apps == 1 { "1 app is".to_owned() } else { format!("{apps} apps are") }
}

fn start_commands(apps: &[App], trilby: &Trilby, log: &Log) -> Result<Vec<Process>, String> {
    let mut processes = Vec::new();
    for app in apps {
        if let Some(command) = &app.command {
            processes.push(Process::start(&app.id, command, variables(app, trilby), log)?);
            tracing::info!(app_id = app.id, command = command.words.join(" "), "command started");
        }
    }
    Ok(processes)
}

/// What `dapr run` tells a command of its surroundings.
fn variables(app: &App, trilby: &Trilby) -> Vec<(&'static str, String)> {
    let mut variables = vec![("APP_ID", app.id.clone())];
    if let Program::Server(server) = &app.program {
        variables.extend([
            ("APP_PORT", server.port.to_string()),
            ("APP_PROTOCOL", server.protocol.name().to_owned()),
            ("APP_CHANNEL_ADDRESS", server.address.clone()),
        ]);
    }
    let ports = [("DAPR_HTTP_PORT", trilby.http_address(&app.id)), ("DAPR_GRPC_PORT", trilby.grpc_address(&app.id))];
    variables.extend(ports.into_iter().filter_map(|(name, address)| Some((name, address?.port().to_string()))));
    if let Doors::Ports { metrics: Some(address), .. } = &app.doors {
        variables.push(("DAPR_METRICS_PORT", address.port.to_string()));
    }
    variables
}

/// Ends when there is nothing left to run: the command of a single app, or all of them if the apps have nothing else.
async fn commands_end(processes: &mut [Process], plan: &Plan) -> ExitCode {
    let goes_on = plan.apps.iter().any(|app| app.command.is_none());
    let mut ending: FuturesUnordered<_> =
        processes.iter_mut().map(|process| async move { (process.app_id.clone(), process.ended().await) }).collect();
    let mut code = ExitCode::SUCCESS;
    while let Some((app_id, status)) = ending.next().await {
        match status {
            Some(status) if status.success() => tracing::info!(app_id, "command ended"),
            Some(status) => {
                tracing::error!(app_id, "command ended with {status}");
                code = status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from);
            }
            None => tracing::error!(app_id, "command is lost"),
        }
    }
    if goes_on { pending().await } else { code }
}

async fn asked_by_signal(signals: &mut Signals) {
    match signals.next().await {
        Wanted::End(signal) => tracing::info!("signal '{signal}': ending"),
        Wanted::Restart => tracing::info!("signal 'hangup': ending"),
    }
}

/// Gives the runtime its resources: each folder to the apps that name it, and the embedded set to those that name none.
///
/// A folder is read once, so that apps which name it share what it opens.
fn with_resources(mut builder: Builder, plan: &Plan) -> Result<Builder, String> {
    let mut folders: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
    for app in &plan.apps {
        for folder in &app.resources {
            folders.entry(folder).or_default().push(app.id.clone());
        }
    }
    for (folder, app_ids) in folders {
        let mut resources = Resources::strict();
        resources.read_directory(folder).map_err(|error| error.to_string())?;
        builder = builder.resources(resources.only_for(&app_ids));
    }
    let without = plan.apps.iter().filter(|app| app.resources.is_empty());
    let app_ids: Vec<_> = without.map(|app| app.id.clone()).collect();
    if app_ids.is_empty() {
        return Ok(builder);
    }
    let embedded = Embedded { dir: plan.embedded.clone() }.read().map_err(|error| error.to_string())?;
    Ok(builder.resources(embedded.only_for(&app_ids)))
}
