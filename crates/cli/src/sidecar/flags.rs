//! The flags of a stock daprd, every one of them.

use crate::go_flags::{Flag, Given, Takes};

/// What this version does with a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    /// What daprd does.
    Full,
    /// What daprd does; it has a newer name.
    Deprecated(&'static str),
    /// Taken, and nothing comes of it. Asking for something gets a warning that says what is missing.
    Missing(&'static str),
    /// Taken, and nothing comes of it, which nobody notices: it only tunes something that is not there.
    Ignored,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub flag: Flag,
    /// As the help shows it; empty for none.
    pub default: &'static str,
    pub about: &'static str,
    pub support: Support,
}

const fn row(name: &'static str, takes: Takes, default: &'static str, about: &'static str) -> Row {
    Row { flag: Flag { name, takes }, default, about, support: Support::Full }
}

impl Row {
    const fn is(self, support: Support) -> Self {
        Self { support, ..self }
    }
}

/// In the order of the help: what most people set first.
pub(super) const ROWS: &[Row] = &[
    row("app-id", Takes::Text, "", "Id of the app, by which others call it and under which its state is kept"),
    row("app-port", Takes::Text, "", "Port that the app listens on; none if it only calls"),
    row("app-protocol", Takes::Text, "http", "What the app speaks: http, https, h2c, grpc or grpcs"),
    row("app-channel-address", Takes::Text, "127.0.0.1", "Host that the app listens on"),
    row("app-max-concurrency", Takes::Int, "-1", "Most calls to the app at once; -1 for no limit"),
    row("app-ssl", Takes::Bool, "false", "Speak TLS to the app").is(Support::Deprecated("app-protocol https or grpcs")),
    row("resources-path", Takes::List, "", "Folder of resource files; may be repeated"),
    row("components-path", Takes::Text, "", "Folder of resource files").is(Support::Deprecated("resources-path")),
    row("config", Takes::List, "", "Configuration file; may be repeated, later ones over earlier ones"),
    row("dapr-http-port", Takes::Text, "3500", "Port of the HTTP API"),
    row("dapr-grpc-port", Takes::Text, "50001", "Port of the gRPC API"),
    row("dapr-listen-addresses", Takes::Text, "", "Addresses for both APIs, separated by commas; empty for all"),
    row("dapr-public-port", Takes::Text, "", "Port for health and metadata only, for probes"),
    row("dapr-public-listen-address", Takes::Text, "", "Address for the public port; empty for all"),
    row("unix-domain-socket", Takes::Text, "", "Folder for Unix sockets, which then take the place of both ports"),
    row("max-body-size", Takes::Text, "4Mi", "Longest request body, as a quantity"),
    row("dapr-http-max-request-size", Takes::Int, "4", "Longest request body in MiB")
        .is(Support::Deprecated("max-body-size")),
    row("read-buffer-size", Takes::Text, "4Ki", "Longest request header, as a quantity"),
    row("dapr-http-read-buffer-size", Takes::Int, "4", "Longest request header in KiB")
        .is(Support::Deprecated("read-buffer-size")),
    row("allowed-origins", Takes::Text, "", "Origins that browsers may call from, separated by commas; * for any"),
    row("dapr-graceful-shutdown-seconds", Takes::Int, "5", "How long requests under way may take when it ends"),
    row("enable-metrics", Takes::Bool, "true", "Whether metrics are served"),
    row("metrics-port", Takes::Text, "9090", "Port of the metrics"),
    row("metrics-listen-address", Takes::Text, "0.0.0.0", "Address of the metrics"),
    row("log-level", Takes::Text, "info", "Least important lines that are logged: debug, info, warn, error or fatal"),
    row("log-as-json", Takes::Bool, "false", "Log a JSON object a line"),
    row("log-file", Takes::Text, "", "File to log to in place of standard output"),
    row("version", Takes::Bool, "false", "Print the version and exit"),
    row("build-info", Takes::Bool, "false", "Print the version and the commit, and exit"),
    row("wait", Takes::Bool, "false", "Wait until the daprd on the HTTP port can be called, and exit"),
    row("mode", Takes::Text, "standalone", "standalone, or kubernetes")
        .is(Support::Missing("Kubernetes mode; resources are read from folders")),
    row("enable-app-health-check", Takes::Bool, "false", "Probe the app, and call it only while it is healthy"),
    row("app-health-check-path", Takes::Text, "/healthz", "Path of the probe"),
    row("app-health-probe-interval", Takes::Int, "5", "Seconds between probes"),
    row("app-health-probe-timeout", Takes::Int, "500", "Milliseconds that a probe may take"),
    row("app-health-threshold", Takes::Int, "3", "Failed probes after which the app is unhealthy"),
    row("enable-api-logging", Takes::Bool, "", "Log each call of the APIs")
        .is(Support::Missing("logging of API calls")),
    row("dapr-block-shutdown-duration", Takes::Duration, "", "How long to go on serving when told to end"),
    row("enable-mtls", Takes::Bool, "false", "Encrypt what goes between daprds")
        .is(Support::Missing("calls between daprds, encrypted or not")),
    row("sentry-address", Takes::Text, "", "Address of the Sentry service").is(Support::Missing("mTLS")),
    row("sentry-request-jwt-audiences", Takes::List, "", "Audiences of tokens for Sentry").is(Support::Missing("mTLS")),
    row("control-plane-address", Takes::Text, "", "Address of the operator").is(Support::Missing("Kubernetes mode")),
    row("control-plane-trust-domain", Takes::Text, "localhost", "Trust domain of the control plane")
        .is(Support::Ignored),
    row("control-plane-namespace", Takes::Text, "default", "Namespace of the control plane").is(Support::Ignored),
    row("placement-host-address", Takes::Text, "", "Addresses of the Placement service")
        .is(Support::Missing("actors and workflows")),
    row("scheduler-host-address", Takes::List, "", "Addresses of the Scheduler service")
        .is(Support::Missing("jobs and reminders")),
    row("scheduler-job-streams", Takes::Int, "3", "Streams to the Scheduler service").is(Support::Ignored),
    row("actors-service", Takes::Text, "", "Address of the actors' service").is(Support::Ignored),
    row("reminders-service", Takes::Text, "", "Address of the reminders' service").is(Support::Ignored),
    row("actors-disseminate-timeout", Takes::Duration, "30s", "Longest round of placement").is(Support::Ignored),
    row("dapr-internal-grpc-port", Takes::Text, "", "Port for other daprds").is(Support::Ignored),
    row("dapr-internal-grpc-listen-address", Takes::Text, "", "Address for other daprds").is(Support::Ignored),
    row("disable-init-endpoints", Takes::List, "", "What the app is not asked at start: config, subscribe"),
    row("app-binding-options-timeout", Takes::Duration, "3s", "How long the app is asked for its bindings"),
    row("hot-reload-reconcile-interval", Takes::Duration, "0", "How often resource files are read again")
        .is(Support::Ignored),
    row("disable-builtin-k8s-secret-store", Takes::Bool, "false", "Do without Kubernetes' own secrets")
        .is(Support::Ignored),
    row("enable-profiling", Takes::Bool, "false", "Serve profiles").is(Support::Missing("profiling")),
    row("profile-port", Takes::Text, "7777", "Port of the profiles").is(Support::Ignored),
];

/// The flags alone, for parsing.
#[must_use]
pub(super) fn flags() -> Vec<Flag> {
    ROWS.iter().map(|row| row.flag).collect()
}

/// What deserves a warning in a command line.
#[must_use]
pub(super) fn warnings(given: &Given) -> Vec<String> {
    ROWS.iter().filter(|row| asks_for_something(row, given)).filter_map(warning).collect()
}

fn asks_for_something(row: &Row, given: &Given) -> bool {
    match given.text(row.flag.name) {
        None | Some("") => false,
        Some(_) if row.flag.takes == Takes::Bool => given.bool(row.flag.name) == Some(true),
        Some(value) => value != row.default,
    }
}

fn warning(row: &Row) -> Option<String> {
    let name = row.flag.name;
    match row.support {
        Support::Full | Support::Ignored => None,
        Support::Deprecated(instead) => Some(format!("flag --{name} has been deprecated, use --{instead}")),
        Support::Missing(what) => Some(format!("flag --{name} has no effect: this version does not have {what}")),
    }
}

/// The text of `--help`.
#[must_use]
pub(super) fn help() -> String {
    let mut text = String::from(
        "daprd runs Dapr's building blocks beside one app.\n\n\
         Usage: daprd --app-id ID [--app-port PORT] [--resources-path FOLDER] [flags]\n\n\
         Flags may have one dash or two. Those that this version takes without effect come last.\n\n",
    );
    let (ours, others): (Vec<&Row>, _) =
        ROWS.iter().partition(|row| matches!(row.support, Support::Full | Support::Deprecated(_)));
    for row in ours.into_iter().chain(others) {
        let value = match row.flag.takes {
            Takes::Bool => "",
            Takes::Text => " TEXT",
            Takes::List => " LIST",
            Takes::Int => " NUMBER",
            Takes::Duration => " DURATION",
        };
        let default = if row.default.is_empty() { String::new() } else { format!(" (default {})", row.default) };
        let note = match row.support {
            Support::Full => String::new(),
            Support::Deprecated(instead) => format!(" (deprecated: use --{instead})"),
            Support::Missing(_) | Support::Ignored => " (no effect)".to_owned(),
        };
        let flag = format!("--{}{value}", row.flag.name);
        text.push_str(&format!("  {flag:<46} {}{default}{note}\n", row.about));
    }
    text.push_str(
        "\nEnvironment: DAPR_API_TOKEN, APP_API_TOKEN, NAMESPACE, POD_NAME, DAPR_ENV_KEYS, DAPR_HTTP_DISABLE_H2C.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go_flags::parse;

    fn warned(line: &str) -> Vec<String> {
        warnings(&parse(&flags(), line.split_whitespace().map(str::to_owned)).expect(line))
    }

    #[test]
    fn no_flag_is_listed_twice() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.flag.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_is_missing_is_said_only_if_it_was_asked_for() {
        let missing =
            |name: &str, what: &str| vec![format!("flag --{name} has no effect: this version does not have {what}")];
        assert_eq!(warned("--placement-host-address="), Vec::<String>::new());
        assert_eq!(
            warned("--mode standalone --enable-mtls=false --profile-port 1 --dapr-http-port 1"),
            Vec::<String>::new()
        );
        assert_eq!(warned("--placement-host-address a:1"), missing("placement-host-address", "actors and workflows"));
        assert_eq!(warned("--enable-profiling"), missing("enable-profiling", "profiling"));
        assert_eq!(warned("--components-path x"), ["flag --components-path has been deprecated, use --resources-path"]);
    }

    #[test]
    fn help_lists_every_flag() {
        let help = help();
        for row in ROWS {
            assert!(help.contains(&format!("--{}", row.flag.name)), "{}", row.flag.name);
        }
    }
}
