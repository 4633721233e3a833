//! Every flag of a stock daprd is known here.

use std::process::Command;

/// Flags and a value that each may have; `true` stands for a boolean.
const STOCK: [(&str, &str); 62] = [
    ("mode", "standalone"),
    ("app-id", "myapp"),
    ("app-port", "3000"),
    ("app-protocol", "http"),
    ("app-channel-address", "127.0.0.1"),
    ("app-max-concurrency", "-1"),
    ("app-ssl", "true"),
    ("enable-app-health-check", "true"),
    ("app-health-check-path", "/healthz"),
    ("app-health-probe-interval", "5"),
    ("app-health-probe-timeout", "500"),
    ("app-health-threshold", "3"),
    ("app-binding-options-timeout", "3s"),
    ("disable-init-endpoints", "config,subscribe"),
    ("dapr-http-port", "3500"),
    ("dapr-grpc-port", "50001"),
    ("dapr-internal-grpc-port", "50002"),
    ("dapr-internal-grpc-listen-address", "127.0.0.1"),
    ("dapr-listen-addresses", "127.0.0.1"),
    ("dapr-public-port", "3501"),
    ("dapr-public-listen-address", "127.0.0.1"),
    ("unix-domain-socket", "/tmp"),
    ("max-body-size", "4Mi"),
    ("read-buffer-size", "4Ki"),
    ("dapr-http-max-request-size", "4"),
    ("dapr-http-read-buffer-size", "4"),
    ("allowed-origins", "*"),
    ("config", "config.yaml"),
    ("resources-path", "resources"),
    ("components-path", "components"),
    ("control-plane-address", "operator:6500"),
    ("sentry-address", "sentry:443"),
    ("control-plane-trust-domain", "localhost"),
    ("control-plane-namespace", "default"),
    ("sentry-request-jwt-audiences", "a,b"),
    ("enable-mtls", "true"),
    ("placement-host-address", "placement:50005"),
    ("scheduler-host-address", "scheduler:50006"),
    ("scheduler-job-streams", "3"),
    ("actors-disseminate-timeout", "30s"),
    ("actors-service", "placement:a"),
    ("reminders-service", "x"),
    ("hot-reload-reconcile-interval", "60s"),
    ("dapr-graceful-shutdown-seconds", "5"),
    ("dapr-block-shutdown-duration", "1s"),
    ("enable-api-logging", "true"),
    ("disable-builtin-k8s-secret-store", "true"),
    ("enable-profiling", "true"),
    ("profile-port", "7777"),
    ("enable-metrics", "true"),
    ("metrics-port", "9090"),
    ("metrics-listen-address", "0.0.0.0"),
    ("log-level", "info"),
    ("log-as-json", "true"),
    ("log-file", ""),
    ("build-info", "false"),
    ("wait", "false"),
    // Repeated, and once more with the other spellings of the same.
    ("config", "a.yaml,b.yaml"),
    ("resources-path", "more"),
    ("enable-mtls", "false"),
    ("enable-api-logging", "F"),
    ("version", "true"),
];

fn daprd(args: &[String]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_daprd")).args(args).output().expect("daprd starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn version(args: &[String]) {
    let (code, out, err) = daprd(args);
    assert_eq!(code, Some(0), "{err}");
    let parts: Vec<_> = out.trim().split(['.', '-']).collect();
    assert!(parts.len() >= 3 && parts[0] == "1" && parts[1] == "18", "a version like Dapr's, not {out:?}");
}

#[test]
fn every_stock_flag_is_known_with_one_dash_and_with_two() {
    version(&STOCK.map(|(name, value)| format!("--{name}={value}")));
    version(&STOCK.map(|(name, value)| format!("-{name}={value}")));
}

#[test]
fn a_value_may_follow_its_flag() {
    let is_bool = |value: &str| matches!(value, "true" | "false" | "F");
    let words = STOCK.iter().filter(|(_, value)| !is_bool(value));
    let words = words.flat_map(|(name, value)| [format!("--{name}"), (*value).to_owned()]);
    version(&words.chain(["--version".to_owned()]).collect::<Vec<_>>());
}

#[test]
fn a_flag_that_nobody_knows_is_a_usage_error() {
    let (code, _, err) = daprd(&["--app-idd=x".to_owned()]);
    assert_eq!(code, Some(2));
    assert!(err.starts_with("unknown flag: --app-idd; did you mean --app-id?"), "{err}");
}

#[test]
fn help_is_no_error() {
    let (code, out, _) = daprd(&["--help".to_owned()]);
    assert_eq!(code, Some(0));
    assert!(STOCK.iter().all(|(name, _)| out.contains(&format!("--{name}"))));
}
