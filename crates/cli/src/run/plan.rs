//! What is to be run, checked: each app with its way in, its doors, its files and its limits.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use trilby::{Env, HealthCheck, WasmSettings, runtime::quantity};

use super::settings::{Own, Shared};
use crate::{
    apps::{HealthFlags, Protocol, Server},
    listen::Address,
};

/// One app.
#[derive(Debug, PartialEq)]
pub struct App {
    pub id: String,
    pub namespace: Option<String>,
    pub program: Program,
    /// A process to start beside the doors.
    pub command: Option<Command>,
    pub doors: Doors,
    /// Folders of resource files; none for the embedded set.
    pub resources: Vec<PathBuf>,
    pub configuration: Option<PathBuf>,
    pub max_body_bytes: usize,
    pub max_header_bytes: usize,
    /// What callers of the doors must send; `DAPR_API_TOKEN`.
    pub api_token: Option<String>,
    /// Whether and how the app is asked for its health.
    pub health_check: Option<HealthCheck>,
}

/// What answers when the app is called.
#[derive(Debug, PartialEq)]
pub enum Program {
    /// Nothing: it only calls.
    None,
    /// A server of its own, started here or elsewhere.
    Server(Server),
    /// A Wasm program in this process, to be found at an address or not.
    Wasm { source: String, settings: WasmSettings, ingress: Option<Address> },
}

/// A process.
#[derive(Debug, PartialEq)]
pub struct Command {
    /// Never empty.
    pub words: Vec<String>,
    pub folder: PathBuf,
    pub env: BTreeMap<String, String>,
}

/// Where Dapr's APIs are for one app.
#[derive(Debug, PartialEq)]
pub enum Doors {
    /// Ports, which may be none.
    Ports { http: Vec<Address>, grpc: Vec<Address>, metrics: Option<Address> },
    /// Sockets in a folder.
    Sockets(PathBuf),
}

const MAX_BODY_BYTES: usize = 4 << 20;
const MAX_HEADER_BYTES: usize = 4 << 10;

impl App {
    /// Checks one app.
    ///
    /// # Errors
    /// A text for people that names the app, the setting and what it may be.
    pub fn new(own: Own, shared: Shared, env: &Env) -> Result<Self, String> {
        let id = own.app_id.clone().unwrap_or_default();
        Self::check(&id, own, shared, env)
            .map_err(|message| if id.is_empty() { message } else { format!("app {id}: {message}") })
    }

    fn check(id: &str, own: Own, shared: Shared, env: &Env) -> Result<Self, String> {
        check_id(id)?;
        // An app may have its tokens and its namespace from its own variables, as under `dapr run`.
        let variables: BTreeMap<_, _> = shared.env.iter().cloned().collect();
        let variable = |name: &str| {
            let own = variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
            own.or_else(|| env.get(name)).map(str::to_owned)
        };
        let max_body_bytes = size("max-body-size", shared.max_body_size.as_deref())?.unwrap_or(MAX_BODY_BYTES);
        let health = HealthFlags {
            is_enabled: shared.enable_app_health_check,
            path: shared.app_health_check_path.as_deref(),
            interval_seconds: shared.app_health_probe_interval,
            timeout_millis: shared.app_health_probe_timeout,
            threshold: shared.app_health_threshold,
        };
        let health_check = health.check()?;
        let doors = doors(&own, &shared)?;
        let program = program(&own, &shared, &variables, max_body_bytes, variable("APP_API_TOKEN"))?;
        check_ports(&program, &doors)?;
        let folder = own.app_dir_path.unwrap_or_else(|| PathBuf::from("."));
        let command = (!own.command.is_empty()).then(|| Command { words: own.command, folder, env: variables.clone() });
        Ok(Self {
            id: id.to_owned(),
            namespace: variable("NAMESPACE"),
            program,
            command,
            doors,
            resources: shared.resources_paths,
            configuration: shared.config_file_path,
            max_body_bytes,
            max_header_bytes: size("read-buffer-size", shared.read_buffer_size.as_deref())?.unwrap_or(MAX_HEADER_BYTES),
            api_token: variable("DAPR_API_TOKEN"),
            health_check,
        })
    }
}

fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("an app needs an id; give it one with --app-id".into());
    }
    if id.contains(['.', '/', ':']) || id.contains(char::is_whitespace) {
        return Err(format!(
            "app id {id:?} must not contain dots, slashes, colons or spaces; choose another with --app-id"
        ));
    }
    Ok(())
}

fn program(
    own: &Own,
    shared: &Shared,
    variables: &BTreeMap<String, String>,
    max_body_bytes: usize,
    api_token: Option<String>,
) -> Result<Program, String> {
    let app_port = port("app-port", own.app_port)?;
    let max_concurrency = shared.app_max_concurrency.and_then(|most| u32::try_from(most).ok()).filter(|most| *most > 0);
    if let Some(source) = &own.wasm {
        let mut settings = own.wasm_options.clone();
        settings.max_concurrency = settings.max_concurrency.or(max_concurrency);
        settings.env = variables.clone().into_iter().chain(settings.env).collect();
        return Ok(Program::Wasm { source: source.clone(), settings, ingress: ingress(own, app_port)? });
    }
    if own.http_listen.is_some() {
        return Err("http-listen is for Wasm apps; an ordinary app listens by itself, on --app-port".into());
    }
    let Some(port) = app_port else { return Ok(Program::None) };
    let text = shared.app_protocol.as_deref().unwrap_or("http");
    let protocol = Protocol::parse(text, shared.app_ssl)
        .ok_or_else(|| format!("app-protocol: found {text:?}; use {}", Protocol::NAMES))?;
    let address = own.app_channel_address.clone().unwrap_or_else(|| "127.0.0.1".into());
    Ok(Program::Server(Server { address, port, protocol, max_concurrency, api_token, max_body_bytes }))
}

/// Where a Wasm app is to be found: nowhere, unless that is asked for.
fn ingress(own: &Own, app_port: Option<u16>) -> Result<Option<Address>, String> {
    let Some(text) = &own.http_listen else { return Ok(app_port.map(|port| Address::local("app-port", port))) };
    let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
    let port = port.parse().map_err(|_| format!("http-listen: found {text:?}; use an address such as 0.0.0.0:8080"))?;
    Ok(Some(Address { flag: "http-listen", host: host.trim_matches(['[', ']']).to_owned(), port }))
}

fn doors(own: &Own, shared: &Shared) -> Result<Doors, String> {
    if let Some(folder) = &own.unix_domain_socket {
        return Ok(Doors::Sockets(folder.clone()));
    }
    // A Wasm app calls through WIT, without a socket; a port is there only for those who ask for one.
    let default = if own.wasm.is_some() { None } else { Some(0) };
    let hosts = shared.api_listen_addresses.as_deref().unwrap_or("127.0.0.1");
    let addresses = |flag, port: Option<u16>| {
        let hosts = port.map(|port| hosts.split(',').map(move |host| (host.trim(), port)));
        hosts.into_iter().flatten().map(|(host, port)| Address { flag, host: host.to_owned(), port }).collect()
    };
    Ok(Doors::Ports {
        http: addresses("dapr-http-port", port("dapr-http-port", own.dapr_http_port)?.or(default)),
        grpc: addresses("dapr-grpc-port", port("dapr-grpc-port", own.dapr_grpc_port)?.or(default)),
        metrics: port("metrics-port", own.metrics_port)?.map(|port| Address::local("metrics-port", port)),
    })
}

fn check_ports(program: &Program, doors: &Doors) -> Result<(), String> {
    let (Program::Server(server), Doors::Ports { http, grpc, .. }) = (program, doors) else { return Ok(()) };
    match http.iter().chain(grpc).find(|address| address.port == server.port) {
        None => Ok(()),
        Some(Address { flag, port, .. }) => {
            Err(format!("{flag} and app-port are both {port}; choose another for one of them"))
        }
    }
}

/// A port; zero and less mean none in particular, as in `dapr run`.
fn port(name: &str, number: Option<i64>) -> Result<Option<u16>, String> {
    let Some(number) = number.filter(|number| *number > 0) else { return Ok(None) };
    u16::try_from(number).map(Some).map_err(|_| format!("{name}: found {number}; ports go to 65535"))
}

fn size(name: &str, text: Option<&str>) -> Result<Option<usize>, String> {
    let Some(text) = text.filter(|text| !text.is_empty() && !text.starts_with('-')) else { return Ok(None) };
    let bytes = quantity::parse(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.map(Some).ok_or_else(|| format!("{name}: found {text:?}; use a size such as 4Mi"))
}

/// The id of an app that has none: the name of its program.
#[must_use]
pub(super) fn id_of_program(source: &str) -> Option<String> {
    let file = source.split(['?', '#']).next()?.rsplit('/').next()?;
    let stem = Path::new(file).file_stem()?.to_str()?.replace('.', "-");
    (!stem.is_empty()).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(own: &str, shared: &str) -> Result<App, String> {
        let own: Own = serde_norway::from_str(own).expect(own);
        App::new(own, serde_norway::from_str(shared).expect(shared), &[("NAMESPACE", "prod")].into_iter().collect())
    }

    fn ports(app: &App) -> (Vec<u16>, Vec<u16>) {
        let Doors::Ports { http, grpc, .. } = &app.doors else { panic!("sockets") };
        (http.iter().map(|address| address.port).collect(), grpc.iter().map(|address| address.port).collect())
    }

    #[test]
    fn a_wasm_app_has_no_port_that_nobody_asked_for() {
        let quiet = app("{appID: a, wasm: a.wasm}", "{}").expect("valid");
        assert_eq!(ports(&quiet), (vec![], vec![]));
        assert!(matches!(quiet.program, Program::Wasm { ingress: None, .. }));
        let open = app("{appID: a, wasm: a.wasm, appPort: 8080, daprHTTPPort: 3500}", "{}").expect("valid");
        assert_eq!(ports(&open), (vec![3500], vec![]));
        let Program::Wasm { ingress, .. } = open.program else { panic!("a Wasm app") };
        assert_eq!(ingress, Some(Address::local("app-port", 8080)));
    }

    #[test]
    fn an_ordinary_app_gets_free_ports() {
        let ordinary =
            app("{appID: a, command: [x], appPort: 9000}", "{appProtocol: grpc, env: {A: b}}").expect("valid");
        assert_eq!(ports(&ordinary), (vec![0], vec![0]));
        assert_eq!(ordinary.namespace.as_deref(), Some("prod"));
        let Program::Server(server) = ordinary.program else { panic!("a server") };
        assert_eq!((server.port, server.protocol), (9000, Protocol::Grpc));
        assert_eq!(ordinary.command.expect("one").env, [("A".into(), "b".into())].into());
    }

    #[test]
    fn a_wasm_app_may_be_open_to_the_world() {
        for (text, host, port) in [("0.0.0.0:80", "0.0.0.0", 80), ("[::]:81", "::", 81), ("8080", "127.0.0.1", 8080)] {
            let open = app(&format!("{{appID: a, wasm: a.wasm, httpListen: '{text}'}}"), "{}").expect(text);
            let Program::Wasm { ingress, .. } = open.program else { panic!("a Wasm app") };
            assert_eq!(ingress, Some(Address { flag: "http-listen", host: host.into(), port }));
        }
    }

    #[test]
    fn what_cannot_be_is_named_with_the_app() {
        for (own, shared, expect) in [
            ("{}", "{}", "an app needs an id; give it one with --app-id"),
            (
                "{appID: a.b}",
                "{}",
                "app a.b: app id \"a.b\" must not contain dots, slashes, colons or spaces; choose another with --app-id",
            ),
            ("{appID: a, appPort: 70000}", "{}", "app a: app-port: found 70000; ports go to 65535"),
            (
                "{appID: a, appPort: 1}",
                "{appProtocol: ftp}",
                "app a: app-protocol: found \"ftp\"; use http, https, h2c, grpc or grpcs",
            ),
            ("{appID: a}", "{maxBodySize: big}", "app a: max-body-size: found \"big\"; use a size such as 4Mi"),
            (
                "{appID: a, appPort: 5, daprGRPCPort: 5}",
                "{}",
                "app a: dapr-grpc-port and app-port are both 5; choose another for one of them",
            ),
            (
                "{appID: a, httpListen: '1'}",
                "{}",
                "app a: http-listen is for Wasm apps; an ordinary app listens by itself, on --app-port",
            ),
            (
                "{appID: a, wasm: a.wasm, httpListen: x}",
                "{}",
                "app a: http-listen: found \"x\"; use an address such as 0.0.0.0:8080",
            ),
        ] {
            assert_eq!(app(own, shared).expect_err(own), expect);
        }
    }

    #[test]
    fn a_program_gives_its_name() {
        for (source, expect) in
            [("dir/orders.wasm", Some("orders")), ("https://h/a.v1.wasm?x=1", Some("a-v1")), ("", None)]
        {
            assert_eq!(id_of_program(source).as_deref(), expect, "{source}");
        }
    }
}
