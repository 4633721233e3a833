//! Apps that are Wasm guests: from settings to what the engine and the door want to know.

use std::{path::PathBuf, sync::Arc};

use trilby_core::{Api, invoke::HttpClient};
use trilby_door_wasm::{WasmApp, WasmAppOptions};
use trilby_runtime::{
    Configuration,
    configuration::{self, WasmSettings},
};
use trilby_wasm::{AllowedHosts, Directory, Engine, Grants, Isolation, Limits, LogSink, Logs, Source, Stream};

use crate::{AppSpec, Error};

/// Where Dapr's clients look for its HTTP API if nothing tells them otherwise.
#[cfg(feature = "http")]
const DAPR_HTTP_PORT: u16 = 3500;

/// What the guests of a runtime have in common.
pub(crate) struct Host<'a> {
    pub(crate) engine: &'a Engine,
    /// The Configuration of apps that have none of their own.
    pub(crate) configuration: &'a Configuration,
    /// Calls the outside hosts that guests are granted.
    pub(crate) outside: Option<Arc<dyn HttpClient>>,
}

impl Host<'_> {
    pub(crate) async fn load(&self, program: &str, app: &AppSpec, api: &Api) -> Result<WasmApp, Error> {
        let configuration = app.configuration.as_ref().unwrap_or(self.configuration);
        let settings = app.wasm.clone().over(&configuration.wasm);
        let id = &app.identity.id;
        let options = WasmAppOptions {
            limits: limits(&settings),
            isolation: isolation(&settings),
            max_body_bytes: app.doors.max_body_bytes,
            outside: self.outside.clone(),
            #[cfg(feature = "http")]
            dapr_http: Some(trilby_door_wasm::DaprHttp {
                port: DAPR_HTTP_PORT,
                door: crate::doors::http::in_process(api, configuration, &app.doors),
            }),
            grants: grants(settings).map_err(|message| Error::App { app: id.clone(), message })?,
            ..WasmAppOptions::new(Logs::new(AppLog(id.clone())))
        };
        let failed = |source| Error::Wasm { app: id.clone(), source };
        let source = Source::parse(program).map_err(|error| failed(error.into()))?;
        WasmApp::load(self.engine, &source, options, api.clone()).await.map_err(failed)
    }
}

fn limits(settings: &WasmSettings) -> Limits {
    let default = Limits::default();
    let size =
        |setting: Option<u64>, default| setting.map_or(default, |size| usize::try_from(size).unwrap_or(usize::MAX));
    Limits {
        memory_bytes: size(settings.memory_bytes, default.memory_bytes),
        table_elements: size(settings.table_elements.map(u64::from), default.table_elements),
        resources: size(settings.resources.map(u64::from), default.resources),
        call_timeout: settings.call_timeout.unwrap_or(default.call_timeout),
        max_calls_per_instance: settings.max_calls_per_instance.unwrap_or(default.max_calls_per_instance),
        max_concurrency: settings.max_concurrency.unwrap_or(default.max_concurrency),
        max_queue: settings.max_queue.unwrap_or(default.max_queue),
        max_wait: settings.max_wait.unwrap_or(default.max_wait),
        idle_instances: settings.idle_instances.unwrap_or(default.idle_instances),
        idle_timeout: settings.idle_timeout.unwrap_or(default.idle_timeout),
        ..default
    }
}

fn isolation(settings: &WasmSettings) -> Isolation {
    match settings.isolation {
        None | Some(configuration::Isolation::Reuse) => Isolation::Reuse,
        Some(configuration::Isolation::Request) => Isolation::PerCall,
    }
}

fn grants(settings: WasmSettings) -> Result<Grants, String> {
    if settings.strict_sandbox {
        return Ok(Grants::default());
    }
    let hosts = settings.allowed_hosts.iter().map(|host| host.parse()).collect::<Result<AllowedHosts, _>>();
    let dirs = settings.directories.into_iter().map(|directory| Directory {
        host: PathBuf::from(directory.host),
        guest: directory.guest,
        writable: directory.writable,
    });
    Ok(Grants {
        env: settings.env.into_iter().collect(),
        dirs: dirs.collect(),
        hosts: Arc::new(hosts.map_err(|error| format!("allowedHosts: {error}"))?),
        ..Grants::default()
    })
}

/// Makes what a guest prints part of the program's log.
struct AppLog(String);

impl LogSink for AppLog {
    fn line(&self, stream: Stream, line: &str) {
        match stream {
            Stream::Stdout => tracing::info!(app_id = self.0, "{line}"),
            Stream::Stderr => tracing::warn!(app_id = self.0, "{line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strict_sandbox_has_no_grants() {
        let settings = WasmSettings {
            strict_sandbox: true,
            env: [("A".to_owned(), "a".to_owned())].into(),
            allowed_hosts: vec!["*".to_owned()],
            ..WasmSettings::default()
        };
        let open = grants(WasmSettings { strict_sandbox: false, ..settings.clone() }).expect("good settings");
        assert!(!open.env.is_empty() && !open.hosts.is_empty());
        let strict = grants(settings).expect("good settings");
        assert!(strict.env.is_empty() && strict.hosts.is_empty());
    }

    #[test]
    fn what_is_not_set_is_the_engines_default() {
        assert_eq!(limits(&WasmSettings::default()), Limits::default());
        let settings =
            WasmSettings { memory_bytes: Some(1 << 20), max_concurrency: Some(2), ..WasmSettings::default() };
        let limits = limits(&settings);
        assert_eq!((limits.memory_bytes, limits.max_concurrency), (1 << 20, 2));
        assert_eq!(limits.max_queue, Limits::default().max_queue);
    }

    #[test]
    fn a_host_that_is_none_is_named() {
        let settings = WasmSettings { allowed_hosts: vec!["a b".to_owned()], ..WasmSettings::default() };
        let error = grants(settings).expect_err("no host");
        assert!(error.starts_with("allowedHosts: \"a b\" is not a host"), "{error}");
    }
}
