//! What a daprd command line and its environment ask for, checked.

use std::{path::PathBuf, time::Duration};

use trilby::{Env, HealthCheck, runtime::quantity};

use crate::{
    apps::{HealthFlags, Protocol, Server},
    go_flags::Given,
    listen::Address,
    log::{self, Level},
};

/// Everything that one daprd needs to know.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub app_id: String,
    /// `NAMESPACE`.
    pub namespace: Option<String>,
    /// Where the app listens, if it does.
    pub app: Option<Server>,
    pub resources: Vec<PathBuf>,
    pub configurations: Vec<PathBuf>,
    pub http: Ports,
    pub grpc: Ports,
    pub public: Option<Address>,
    /// Folder for sockets in place of the ports of both APIs.
    pub socket_folder: Option<PathBuf>,
    pub metrics: Option<Address>,
    pub max_body_bytes: usize,
    pub max_header_bytes: usize,
    pub allowed_origins: Vec<String>,
    pub h2c: bool,
    /// `DAPR_API_TOKEN`.
    pub api_token: Option<String>,
    pub grace: Duration,
    /// Whether and how the app is asked for its health.
    pub health_check: Option<HealthCheck>,
    /// Whether the app is asked what it subscribes to.
    pub asks_subscriptions: bool,
    pub binding_probe_timeout: Option<Duration>,
    /// How long to go on serving when told to end.
    pub block_shutdown: Option<Duration>,
    pub log: log::Options,
}

/// A port on one or more addresses.
#[derive(Debug, PartialEq)]
pub(super) struct Ports {
    pub flag: &'static str,
    pub hosts: Vec<String>,
    pub port: u16,
}

impl Ports {
    /// Each address with the port.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        self.hosts.iter().map(|host| Address { flag: self.flag, host: host.clone(), port: self.port })
    }
}

const MAX_BODY_BYTES: usize = 4 << 20;
const MAX_HEADER_BYTES: usize = 4 << 10;
const GRACE_SECONDS: u64 = 5;

impl Options {
    /// Reads the flags that were given and the variables that daprd knows.
    ///
    /// # Errors
    /// A text for people that names the flag and what it may be.
    pub(super) fn read(given: &Given, env: &Env) -> Result<Self, String> {
        let log = log_options(given)?;
        let app_id = app_id(given.text("app-id").unwrap_or_default())?;
        let hosts = hosts(given.text("dapr-listen-addresses").unwrap_or_default());
        let max_body_bytes = size(given, "max-body-size", "dapr-http-max-request-size", 20)?.unwrap_or(MAX_BODY_BYTES);
        let options = Self {
            namespace: env.get("NAMESPACE").map(str::to_owned),
            app: app(given, env, max_body_bytes)?,
            resources: resources(given),
            configurations: given.list("config").into_iter().map(PathBuf::from).collect(),
            http: Ports {
                flag: "dapr-http-port",
                hosts: hosts.clone(),
                port: port(given, "dapr-http-port")?.unwrap_or(3500),
            },
            grpc: Ports { flag: "dapr-grpc-port", hosts, port: port(given, "dapr-grpc-port")?.unwrap_or(50001) },
            public: port(given, "dapr-public-port")?.map(|port| Address {
                flag: "dapr-public-port",
                host: given.text("dapr-public-listen-address").unwrap_or_default().to_owned(),
                port,
            }),
            socket_folder: given.text("unix-domain-socket").filter(|path| !path.is_empty()).map(PathBuf::from),
            metrics: metrics(given)?,
            max_body_bytes,
            max_header_bytes: size(given, "read-buffer-size", "dapr-http-read-buffer-size", 10)?
                .unwrap_or(MAX_HEADER_BYTES),
            allowed_origins: split(given.text("allowed-origins").unwrap_or_default()),
            h2c: !is_truthy(env.get("DAPR_HTTP_DISABLE_H2C").unwrap_or_default()),
            api_token: env.get("DAPR_API_TOKEN").map(str::to_owned),
            // As in Dapr, a negative number means the default.
            grace: Duration::from_secs(
                given
                    .int("dapr-graceful-shutdown-seconds")
                    .and_then(|n| u64::try_from(n).ok())
                    .unwrap_or(GRACE_SECONDS),
            ),
            health_check: health_check(given)?,
            asks_subscriptions: !given.list("disable-init-endpoints").iter().any(|name| name == "subscribe"),
            binding_probe_timeout: duration(given, "app-binding-options-timeout")?,
            block_shutdown: duration(given, "dapr-block-shutdown-duration")?,
            app_id,
            log,
        };
        options.check_conflicts()?;
        Ok(options)
    }

    fn check_conflicts(&self) -> Result<(), String> {
        let Some(app) = &self.app else { return Ok(()) };
        for api in [&self.http, &self.grpc] {
            if api.port == app.port {
                let (flag, port) = (api.flag, api.port);
                return Err(format!(
                    "the '{flag}' argument value {port} conflicts with 'app-port'; choose another for one of them"
                ));
            }
        }
        Ok(())
    }
}

/// How lines are logged, by the flags.
///
/// # Errors
/// If there is no such level.
pub(super) fn log_options(given: &Given) -> Result<log::Options, String> {
    let level = given.text("log-level").unwrap_or("info");
    Ok(log::Options {
        level: Level::parse(level)
            .ok_or_else(|| format!("invalid value for --log-level: {level}; use debug, info, warn, error or fatal"))?,
        format: if given.bool("log-as-json") == Some(true) { log::Format::Json } else { log::Format::Text },
        file: given.text("log-file").filter(|path| !path.is_empty()).map(PathBuf::from),
        app_id: given.text("app-id").unwrap_or_default().to_owned(),
    })
}

/// An app id that may stand in an address.
///
/// # Errors
/// If it is empty or has a dot.
pub(super) fn app_id(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("parameter app-id cannot be empty; give the app an id with --app-id".into());
    }
    if text.contains('.') {
        return Err(format!("parameter app-id cannot contain dots: {text:?}"));
    }
    Ok(text.to_owned())
}

fn app(given: &Given, env: &Env, max_body_bytes: usize) -> Result<Option<Server>, String> {
    let text = given.text("app-protocol").unwrap_or("http");
    let protocol = Protocol::parse(text, given.bool("app-ssl") == Some(true))
        .ok_or_else(|| format!("invalid value for 'app-protocol': {text}; use {}", Protocol::NAMES))?;
    let Some(port) = port(given, "app-port")?.filter(|port| *port != 0) else { return Ok(None) };
    Ok(Some(Server {
        address: given.text("app-channel-address").filter(|host| !host.is_empty()).unwrap_or("127.0.0.1").to_owned(),
        port,
        protocol,
        max_concurrency: given.int("app-max-concurrency").and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
        api_token: env.get("APP_API_TOKEN").map(str::to_owned),
        max_body_bytes,
    }))
}

fn health_check(given: &Given) -> Result<Option<HealthCheck>, String> {
    let flags = HealthFlags {
        is_enabled: given.bool("enable-app-health-check") == Some(true),
        path: given.text("app-health-check-path"),
        interval_seconds: given.int("app-health-probe-interval"),
        timeout_millis: given.int("app-health-probe-timeout"),
        threshold: given.int("app-health-threshold"),
    };
    flags.check()
}

/// A duration that is more than none.
fn duration(given: &Given, flag: &str) -> Result<Option<Duration>, String> {
    let Some(text) = given.text(flag).filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed = trilby::component::properties::duration::parse(text);
    let parsed =
        parsed.ok_or_else(|| format!("invalid value for '{flag}' option: {text:?} is no duration such as 3s"))?;
    Ok(Some(parsed).filter(|duration| !duration.is_zero()))
}

fn resources(given: &Given) -> Vec<PathBuf> {
    let folders = given.list("resources-path");
    let folders = if folders.is_empty() { given.list("components-path") } else { folders };
    folders.into_iter().map(PathBuf::from).collect()
}

fn metrics(given: &Given) -> Result<Option<Address>, String> {
    if given.bool("enable-metrics") == Some(false) {
        return Ok(None);
    }
    Ok(Some(Address {
        flag: "metrics-port",
        host: given.text("metrics-listen-address").unwrap_or("0.0.0.0").to_owned(),
        port: port(given, "metrics-port")?.unwrap_or(9090),
    }))
}

/// The port that a flag gives; empty is as good as absent.
fn port(given: &Given, flag: &str) -> Result<Option<u16>, String> {
    let text = given.text(flag).filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|_| format!("error parsing {flag} flag: {text:?} is not a port, 0 to 65535")))
        .transpose()
}

/// A size by its flag, or by its older flag in units of `1 << shift` bytes. `-1` means the default.
fn size(given: &Given, flag: &str, older: &str, shift: u32) -> Result<Option<usize>, String> {
    match given.text(flag) {
        Some("-1") => Ok(None),
        Some(text) => {
            let bytes = quantity::parse(text).and_then(|bytes| usize::try_from(bytes).ok());
            let invalid = || format!("invalid value for '{flag}' option: {text:?} is not a quantity such as 4Mi");
            bytes.map(Some).ok_or_else(invalid)
        }
        None => Ok(given.int(older).and_then(|number| usize::try_from(number).ok()).map(|number| number << shift)),
    }
}

/// Hosts of a comma list. An empty entry stands for all interfaces, as an empty list does.
fn hosts(text: &str) -> Vec<String> {
    text.split(',').map(|host| host.trim().to_owned()).collect()
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Dapr's idea of a variable that is switched on.
fn is_truthy(text: &str) -> bool {
    matches!(text.trim().to_ascii_lowercase().as_str(), "1" | "y" | "yes" | "t" | "true" | "on")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{go_flags::parse, sidecar::flags::flags};

    fn read_with(line: &str, env: &[(&str, &str)]) -> Result<Options, String> {
        let given = parse(&flags(), line.split_whitespace().map(str::to_owned)).expect(line);
        Options::read(&given, &env.iter().copied().collect())
    }

    fn read(line: &str) -> Result<Options, String> {
        read_with(&format!("--app-id x {line}"), &[])
    }

    #[test]
    fn defaults_are_daprds() {
        let options = read("").expect("valid");
        assert_eq!(options.http.addresses().map(|address| address.port).collect::<Vec<_>>(), [3500]);
        assert_eq!((options.grpc.port, options.max_body_bytes, options.max_header_bytes), (50001, 4 << 20, 4 << 10));
        assert_eq!(options.metrics.map(|metrics| metrics.port), Some(9090));
        assert_eq!((options.app, options.public, options.socket_folder, options.api_token), (None, None, None, None));
        assert_eq!(options.grace, Duration::from_secs(5));
        assert!(options.h2c);
    }

    #[test]
    fn an_app_is_looked_after_as_the_flags_say() {
        let options = read("").expect("valid");
        assert_eq!((options.health_check, options.asks_subscriptions), (None, true));
        assert_eq!((options.binding_probe_timeout, options.block_shutdown), (None, None));
        let options = read(
            "--enable-app-health-check --app-health-check-path ok --app-health-threshold 1 --disable-init-endpoints \
             config,subscribe --app-binding-options-timeout 100ms --dapr-block-shutdown-duration 1m",
        );
        let options = options.expect("valid");
        let check = HealthCheck { path: "/ok".into(), threshold: 1, ..HealthCheck::default() };
        assert_eq!((options.health_check, options.asks_subscriptions), (Some(check), false));
        assert_eq!(options.binding_probe_timeout, Some(Duration::from_millis(100)));
        assert_eq!(options.block_shutdown, Some(Duration::from_secs(60)));
    }

    #[test]
    fn sizes_have_a_new_flag_and_an_old_one() {
        for (line, bytes) in [
            ("", 4 << 20),
            ("--max-body-size 400", 400),
            ("--max-body-size 2Mi", 2 << 20),
            ("--max-body-size -1", 4 << 20),
            ("--dapr-http-max-request-size 2", 2 << 20),
            ("--dapr-http-max-request-size=-1", 4 << 20),
            ("--max-body-size 1Mi --dapr-http-max-request-size 2", 1 << 20),
        ] {
            assert_eq!(read(line).expect(line).max_body_bytes, bytes, "{line}");
        }
        assert_eq!(read("--dapr-http-read-buffer-size 8").expect("valid").max_header_bytes, 8 << 10);
    }

    #[test]
    fn the_environment_gives_tokens_and_the_namespace() {
        let env =
            [("DAPR_API_TOKEN", "a"), ("APP_API_TOKEN", "b"), ("NAMESPACE", "prod"), ("DAPR_HTTP_DISABLE_H2C", "true")];
        let options = read_with("--app-id x --app-port 1", &env).expect("valid");
        assert_eq!(options.api_token.as_deref(), Some("a"));
        assert_eq!(options.app.and_then(|app| app.api_token).as_deref(), Some("b"));
        assert_eq!(options.namespace.as_deref(), Some("prod"));
        assert!(!options.h2c);
    }

    #[test]
    fn an_app_speaks_what_was_said() {
        let protocol = |line| read(line).map(|options| options.app.expect("a port").protocol);
        for (line, expect) in [
            ("--app-port 1", Protocol::Http),
            ("--app-port 1 --app-protocol GRPC", Protocol::Grpc),
            ("--app-port 1 --app-ssl", Protocol::Https),
            ("--app-port 1 --app-protocol grpc --app-ssl", Protocol::Grpcs),
            ("--app-port 1 --app-protocol h2c", Protocol::H2c),
        ] {
            assert_eq!(protocol(line), Ok(expect), "{line}");
        }
        let limit = |line| read(line).expect(line).app.expect("a port").max_concurrency;
        assert_eq!(limit("--app-port 1 --app-max-concurrency -1"), None);
        assert_eq!(limit("--app-port 1 --app-max-concurrency 7"), Some(7));
    }

    #[test]
    fn errors_name_the_flag_and_the_fix() {
        for (line, expect) in [
            ("", "parameter app-id cannot be empty; give the app an id with --app-id"),
            ("--app-id a.b", "parameter app-id cannot contain dots: \"a.b\""),
            ("--app-id x --dapr-http-port no", "error parsing dapr-http-port flag: \"no\" is not a port, 0 to 65535"),
            ("--app-id x --metrics-port 70000", "error parsing metrics-port flag: \"70000\" is not a port, 0 to 65535"),
            (
                "--app-id x --app-port 3500",
                "the 'dapr-http-port' argument value 3500 conflicts with 'app-port'; choose another for one of them",
            ),
            (
                "--app-id x --app-port 7 --dapr-grpc-port 7",
                "the 'dapr-grpc-port' argument value 7 conflicts with 'app-port'; choose another for one of them",
            ),
            (
                "--app-id x --app-protocol ftp",
                "invalid value for 'app-protocol': ftp; use http, https, h2c, grpc or grpcs",
            ),
            (
                "--app-id x --max-body-size 4MB",
                "invalid value for 'max-body-size' option: \"4MB\" is not a quantity such as 4Mi",
            ),
            (
                "--app-id x --log-level loud",
                "invalid value for --log-level: loud; use debug, info, warn, error or fatal",
            ),
        ] {
            assert_eq!(read_with(line, &[]).expect_err(line), expect);
        }
    }
}
