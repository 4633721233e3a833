//! What may be said of an app: options of `dapr run`, and keys of its multi-app file. One list for both, so that they
//! cannot drift apart.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use serde::Deserialize;
use trilby::WasmSettings;

/// What all apps of a file may have in common.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Shared {
    /// Folder of resource files (components and so on); may be repeated. Without one: a state store `statestore` and a
    /// secret store `secretstore`, both in files under ./.trilby
    #[arg(long = "resources-path", short = 'd', value_name = "FOLDER", alias = "components-path")]
    pub resources_paths: Vec<PathBuf>,
    /// The older spelling in files.
    #[arg(skip)]
    pub resources_path: Option<PathBuf>,
    /// Configuration file
    #[arg(long = "config", short = 'c', value_name = "FILE")]
    pub config_file_path: Option<PathBuf>,
    /// What the app speaks: http, https, h2c, grpc or grpcs
    #[arg(long, short = 'P', value_name = "PROTOCOL")]
    pub app_protocol: Option<String>,
    /// Most calls to the app at once; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub app_max_concurrency: Option<i64>,
    /// Addresses for Dapr's APIs, separated by commas [default: 127.0.0.1]
    #[arg(long = "dapr-listen-addresses", value_name = "ADDRESSES")]
    pub api_listen_addresses: Option<String>,
    /// Longest request body of Dapr's APIs and of Wasm apps, such as 16Mi [default: 4Mi]
    #[arg(long, value_name = "SIZE")]
    pub max_body_size: Option<String>,
    /// Longest request header of Dapr's APIs [default: 4Ki]
    #[arg(long, value_name = "SIZE")]
    pub read_buffer_size: Option<String>,
    /// Least important lines that are logged: debug, info, warn or error [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Variable for the command or the Wasm guest; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    #[serde(deserialize_with = "variables")]
    pub env: Vec<(String, String)>,
    #[arg(long = "app-ssl", hide = true)]
    #[serde(rename = "appSSL")]
    pub app_ssl: bool,
    #[arg(long, hide = true)]
    pub enable_profiling: bool,
    #[arg(long, hide = true)]
    pub enable_api_logging: bool,
    /// Ask the app whether it is healthy, and call it only while it is
    #[arg(long)]
    pub enable_app_health_check: bool,
    /// Where an app with routes is asked for its health [default: /healthz]
    #[arg(long, value_name = "PATH")]
    pub app_health_check_path: Option<String>,
    /// Seconds from one question to the next [default: 5]
    #[arg(long, value_name = "SECONDS")]
    pub app_health_probe_interval: Option<i64>,
    /// Milliseconds that an answer may take [default: 500]
    #[arg(long, value_name = "MILLISECONDS")]
    pub app_health_probe_timeout: Option<i64>,
    /// Bad answers in a row after which the app is unhealthy [default: 3]
    #[arg(long, value_name = "COUNT")]
    pub app_health_threshold: Option<i64>,
    #[arg(long, hide = true)]
    pub placement_host_address: Option<String>,
    #[arg(long, hide = true)]
    pub scheduler_host_address: Option<String>,
    #[arg(long, hide = true)]
    pub runtime_path: Option<PathBuf>,
    #[arg(skip)]
    pub daprd_log_destination: Option<LogDestination>,
    #[arg(skip)]
    pub app_log_destination: Option<LogDestination>,
}

/// What is one app's own.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Own {
    /// Id of the app, by which others call it [default: the name of the Wasm file, or of the folder]
    #[arg(long, short = 'a', value_name = "ID")]
    #[serde(rename = "appID")]
    pub app_id: Option<String>,
    /// Port of the app: where an ordinary app listens, or where a Wasm app is to be found
    #[arg(long, short = 'p', value_name = "PORT", allow_negative_numbers = true)]
    pub app_port: Option<i64>,
    /// Host that an ordinary app listens on [default: 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    pub app_channel_address: Option<String>,
    /// Address where a Wasm app is to be found, in place of --app-port, such as 0.0.0.0:8080
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// Port of Dapr's HTTP API [default: a free one, or none for a Wasm app]
    #[arg(long, short = 'H', value_name = "PORT", allow_negative_numbers = true)]
    #[serde(rename = "daprHTTPPort")]
    pub dapr_http_port: Option<i64>,
    /// Port of Dapr's gRPC API [default: a free one, or none for a Wasm app]
    #[arg(long, short = 'G', value_name = "PORT", allow_negative_numbers = true)]
    #[serde(rename = "daprGRPCPort")]
    pub dapr_grpc_port: Option<i64>,
    /// Folder for Unix sockets in place of the ports of Dapr's APIs
    #[arg(long, short = 'u', value_name = "FOLDER")]
    pub unix_domain_socket: Option<PathBuf>,
    /// Port of the metrics [default: none]
    #[arg(long, short = 'M', value_name = "PORT", allow_negative_numbers = true)]
    pub metrics_port: Option<i64>,
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pub profile_port: Option<i64>,
    #[arg(long, short = 'I', hide = true, allow_negative_numbers = true)]
    #[serde(rename = "daprInternalGRPCPort")]
    pub dapr_internal_grpc_port: Option<i64>,
    #[arg(skip)]
    pub app_dir_path: Option<PathBuf>,
    #[arg(skip)]
    pub command: Vec<String>,
    #[arg(skip)]
    pub wasm: Option<String>,
    #[arg(skip)]
    #[serde(alias = "limits")]
    pub wasm_options: WasmSettings,
    #[arg(skip)]
    pub container_image: Option<String>,
    #[arg(skip)]
    pub container_image_pull_policy: Option<String>,
    #[arg(skip)]
    pub create_service: Option<bool>,
}

/// Where Dapr's command writes logs. Here all goes to the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogDestination {
    Console,
    File,
    FileAndConsole,
}

impl Shared {
    /// These settings where they say something, else `below`'s. Variables add up.
    #[must_use]
    pub fn over(self, below: &Self) -> Self {
        let below = below.clone();
        let mut env = below.env;
        env.extend(self.env);
        Self {
            // The paths are one setting, whose two spellings were joined before.
            resources_paths: if self.resources_paths.is_empty() { below.resources_paths } else { self.resources_paths },
            resources_path: None,
            config_file_path: self.config_file_path.or(below.config_file_path),
            app_protocol: self.app_protocol.or(below.app_protocol),
            app_max_concurrency: self.app_max_concurrency.or(below.app_max_concurrency),
            api_listen_addresses: self.api_listen_addresses.or(below.api_listen_addresses),
            max_body_size: self.max_body_size.or(below.max_body_size),
            read_buffer_size: self.read_buffer_size.or(below.read_buffer_size),
            log_level: self.log_level.or(below.log_level),
            env,
            app_ssl: self.app_ssl || below.app_ssl,
            enable_profiling: self.enable_profiling || below.enable_profiling,
            enable_api_logging: self.enable_api_logging || below.enable_api_logging,
            enable_app_health_check: self.enable_app_health_check || below.enable_app_health_check,
            app_health_check_path: self.app_health_check_path.or(below.app_health_check_path),
            app_health_probe_interval: self.app_health_probe_interval.or(below.app_health_probe_interval),
            app_health_probe_timeout: self.app_health_probe_timeout.or(below.app_health_probe_timeout),
            app_health_threshold: self.app_health_threshold.or(below.app_health_threshold),
            placement_host_address: self.placement_host_address.or(below.placement_host_address),
            scheduler_host_address: self.scheduler_host_address.or(below.scheduler_host_address),
            runtime_path: self.runtime_path.or(below.runtime_path),
            daprd_log_destination: self.daprd_log_destination.or(below.daprd_log_destination),
            app_log_destination: self.app_log_destination.or(below.app_log_destination),
        }
    }

    /// What is asked for that this version does not have, as warnings.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.trim().is_empty());
        let to_file = |destination| matches!(destination, Some(LogDestination::File | LogDestination::FileAndConsole));
        let asked = [
            (self.enable_profiling, "enable-profiling", "profiling"),
            (self.enable_api_logging, "enable-api-logging", "logging of API calls"),
            (is_set(&self.placement_host_address), "placement-host-address", "actors and workflows"),
            (is_set(&self.scheduler_host_address), "scheduler-host-address", "jobs and reminders"),
            (self.runtime_path.is_some(), "runtime-path", "a daprd beside it: the runtime is this program"),
            (
                to_file(self.daprd_log_destination),
                "daprdLogDestination",
                "log files per app: all lines go to the console",
            ),
            (to_file(self.app_log_destination), "appLogDestination", "log files per app: all lines go to the console"),
        ];
        let asked = asked.into_iter().filter(|(is_asked, ..)| *is_asked);
        asked.map(|(_, name, what)| format!("{name} has no effect: this version does not have {what}")).collect()
    }
}

/// A variable as a command line has it.
fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

/// Variables as a file has them; a value may be any scalar.
fn variables<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    use serde::de::Error as _;
    use serde_norway::Value;

    let map = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
    let text = |(name, value)| match value {
        Value::Null => Ok((name, String::new())),
        Value::Bool(flag) => Ok((name, flag.to_string())),
        Value::Number(number) => Ok((name, number.to_string())),
        Value::String(text) => Ok((name, text)),
        _ => Err(D::Error::custom(format!("{name} must be a text, a number, true or false"))),
    };
    map.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apps_own_word_goes_before_the_common_one() {
        let common: Shared =
            serde_norway::from_str("logLevel: debug\nappProtocol: grpc\nenv: {A: 1, B: x}").expect("valid");
        let own: Shared = serde_norway::from_str("appProtocol: http\nenv: {B: true}").expect("valid");
        let merged = own.over(&common);
        assert_eq!((merged.log_level.as_deref(), merged.app_protocol.as_deref()), (Some("debug"), Some("http")));
        let env: BTreeMap<_, _> = merged.env.into_iter().collect();
        assert_eq!(env, [("A".into(), "1".into()), ("B".into(), "true".into())].into());
    }
}
