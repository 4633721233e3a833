//! What cannot be run: each is answered with what it is, where it is, and what would help.

mod support;

#[path = "support/running.rs"]
mod running;

use running::Site;
use support::{Daprd, DaprdOptions, free_port, guest, http};

fn component(name: &str, spec: &str) -> String {
    format!("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

/// What `trilby run` says to a file of resources.
async fn resource(text: &str) -> String {
    let site = Site::new(&[("res/bad.yaml", text)]);
    site.trilby("run -a app -d res").failed().await
}

/// What `trilby run` says to a multi-app file.
async fn file(text: &str) -> String {
    Site::new(&[("dapr.yaml", text)]).trilby("run -f dapr.yaml").failed().await
}

/// What `trilby run` says to a program.
async fn program(content: impl AsRef<[u8]>) -> String {
    let site = Site::new(&[]);
    site.write("app.wasm", content);
    site.trilby("run app.wasm").failed().await
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[tokio::test]
async fn yaml_that_does_not_parse_is_named_with_its_line() {
    let text = format!("{}---\nkind: [\n", component("ok", "type: state.in-memory, version: v1"));
    has(&resource(&text).await, &["error: res/bad.yaml: document 2, line "]);
}

#[tokio::test]
async fn an_unknown_kind_is_answered_with_the_kinds() {
    let said = resource("apiVersion: dapr.io/v1alpha1\nkind: Componet\nmetadata: {name: x}\nspec: {}").await;
    has(&said, &["res/bad.yaml: document 1", "unknown kind \"Componet\"", "Component, Configuration"]);
}

#[tokio::test]
async fn an_unknown_type_is_answered_with_the_types() {
    let said = resource(&component("store", "type: state.msql, version: v1")).await;
    has(
        &said,
        &["component store (state.msql/v1)", "unknown type state.msql/v1; this build has", "state.in-memory/v1"],
    );
}

#[tokio::test]
async fn missing_and_malformed_metadata_are_named() {
    let said = resource(&component("files", "type: secretstores.local.file, version: v1")).await;
    has(&said, &["component files", "secretsFile"]);
    let metadata = "type: state.sqlite, version: v1, metadata: [{name: connectionString, value: ':memory:'}, {name: busyTimeout, value: soon}]";
    has(&resource(&component("lite", metadata)).await, &["component lite", "busyTimeout", "soon"]);
}

#[tokio::test]
async fn a_name_that_is_there_twice_is_named_with_both_places() {
    let one = component("store", "type: state.in-memory, version: v1");
    let site = Site::new(&[("res/a.yaml", &one), ("res/b.yaml", &one)]);
    let said = site.trilby("run -a app -d res").failed().await;
    has(&said, &["duplicate Component store", "res/a.yaml", "res/b.yaml"]);
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_named() {
    let metadata =
        "type: state.sqlite, version: v1, metadata: [{name: connectionString, secretKeyRef: {name: db, key: db}}]";
    has(&resource(&component("lite", metadata)).await, &["component lite", "connectionString", "db"]);
    let with_store = format!(
        "{}auth: {{secretStore: files}}\n---\n{}",
        component("lite", metadata),
        component("files", "type: secretstores.local.env, version: v1")
    );
    has(&resource(&with_store).await, &["component lite", "db"]);
}

#[tokio::test]
async fn a_folder_or_a_configuration_that_is_not_there_is_named() {
    let site = Site::new(&[]);
    has(&site.trilby("run -a app -d nowhere").failed().await, &["nowhere", "No such file"]);
    has(&site.trilby("run -a app -c nowhere.yaml").failed().await, &["app app", "nowhere.yaml", "No such file"]);
}

#[tokio::test]
async fn a_store_that_is_down_stops_the_start_unless_errors_are_ignored() {
    let down = free_port().await;
    let spec = format!(
        "type: state.redis, version: v1, initTimeout: 2s, metadata: [{{name: redisHost, value: '127.0.0.1:{down}'}}]"
    );
    let said = resource(&component("down", &spec)).await;
    has(&said, &["component down (state.redis/v1)"]);

    let ignored = component("down", &format!("ignoreErrors: true, {spec}"));
    let options = DaprdOptions { components: ignored, ..DaprdOptions::default() };
    let daprd = Daprd::start(options).await;
    assert_eq!(daprd.http("GET", "/v1.0/state/down/k", "").await.status, 500);
    has(&daprd.log(), &["level=warning", "component down"]);
    daprd.stop().await;
}

#[tokio::test]
async fn two_apps_of_one_id_are_named() {
    let said = file("version: 1\napps: [{appID: a, appPort: 1}, {appID: a, appPort: 2}]").await;
    has(&said, &["dapr.yaml: apps[0] and apps[1] have the same appID a"]);
}

#[tokio::test]
async fn a_key_that_nobody_knows_is_answered_with_the_nearest() {
    has(
        &file("version: 1\napps: [{appID: a, aapPort: 1}]").await,
        &["dapr.yaml: apps[0] (a): unknown key aapPort; did you mean appPort?"],
    );
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let site = Site::new(&[]);
    for flag in ["dapr-http-port", "dapr-grpc-port", "metrics-port"] {
        let said = site.trilby(&format!("run -a app --{flag} {port}")).failed().await;
        has(&said, &[&format!("port {port} is in use"), &format!("--{flag}")]);
    }
    if let Some(hello) = guest("hello") {
        let said = site.trilby(&format!("run {} --app-port {port}", hello.display())).failed().await;
        has(&said, &[&format!("port {port} is in use"), "--app-port"]);
    }
    let line = format!(
        "--app-id x --dapr-listen-addresses 127.0.0.1 --enable-metrics=false --dapr-http-port {port} --dapr-grpc-port 0"
    );
    let said = site.daprd(&line).failed().await;
    has(&said, &["level=fatal", &format!("port {port} is in use"), "--dapr-http-port"]);
}

#[tokio::test]
async fn one_port_for_the_app_and_an_api_is_refused() {
    let site = Site::new(&[]);
    let said = site.daprd("--app-id x --app-port 3500").failed().await;
    has(&said, &["level=fatal", "the 'dapr-http-port' argument value 3500 conflicts with 'app-port'"]);
    has(&site.trilby("run -a x -p 3600 -G 3600").failed().await, &["dapr-grpc-port and app-port are both 3600"]);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() {
    let site = Site::new(&[]);
    has(&site.trilby("run -a app -- no-such-program x").failed().await, &["app app: cannot run no-such-program"]);
    has(&site.trilby("run server.py").failed().await, &["put a command behind two dashes: trilby run -- server.py"]);
}

#[tokio::test]
async fn files_that_are_no_program_say_what_they_are() {
    let site = Site::new(&[]);
    has(&site.trilby("run nowhere.wasm").failed().await, &["nowhere.wasm: no such file"]);
    has(&program("").await, &["app.wasm: is empty, not WebAssembly"]);
    has(&program("hello").await, &["app.wasm: is not WebAssembly: it starts with"]);
    has(&program("(component)").await, &["app.wasm: is WebAssembly text"]);
    has(&program(b"\0asm\x0e\0\x01\0").await, &["app.wasm: is a component of binary version 14", "update the runtime"]);
    if let Some(hello) = guest("hello") {
        let whole = std::fs::read(hello).expect("a file");
        has(&program(&whole[..whole.len() / 2]).await, &["app.wasm: is truncated"]);
    }
}

#[tokio::test]
async fn imports_that_are_unknown_or_not_granted_are_named() {
    let importing =
        |name: &str| wat::parse_str(format!("(component (import \"{name}\" (instance)))")).expect("a component");
    has(
        &program(importing("acme:blocks/horoscope@1.0.0")).await,
        &["acme:blocks/horoscope@1.0.0, which this build does not have"],
    );
    has(
        &program(importing("trilby:dapr/state@0.9.0")).await,
        &["trilby:dapr/state@0.9.0, which this build has only as 0.2.x"],
    );
    has(&program(importing("wasi:sockets/tcp@0.2.3")).await, &["wasi:sockets/tcp@0.2.3, which needs a grant"]);
    has(&program(wat::parse_str("(component)").expect("a component")).await, &["app.wasm: is no app"]);
}

#[tokio::test]
async fn limits_that_are_none_are_usage_errors() {
    let site = Site::new(&[]);
    for (option, expect) in [
        ("--max-memory lots", "expected a size such as 64Mi"),
        ("--call-timeout soon", "expected a duration such as 10s"),
        ("--isolation maybe", "expected reuse or request"),
        ("--env X", "expected NAME=VALUE"),
        ("--ap-port 1", "--app-port"),
    ] {
        let mut trilby = site.trilby(&format!("run app.wasm {option}"));
        assert_eq!(trilby.ended().await, Some(2), "{option}");
        has(&trilby.log(), &[expect]);
    }
}

/// daprd warns of a document that it cannot read, and goes on with the others.
#[tokio::test]
async fn a_daprd_skips_what_it_cannot_read() {
    let text = format!(
        "{}---\nkind: [\n---\n{}",
        component("one", "type: state.in-memory, version: v1"),
        component("two", "type: state.in-memory, version: v1")
    );
    let daprd = Daprd::start(DaprdOptions { components: text, ..DaprdOptions::default() }).await;
    for store in ["one", "two"] {
        assert_eq!(daprd.http("GET", &format!("/v1.0/state/{store}/k"), "").await.status, 204, "{store}");
    }
    has(&daprd.log(), &["level=warning", "components.yaml: document 2, line"]);
    daprd.stop().await;
}

/// What was acknowledged is there after the worst end.
#[tokio::test]
async fn an_acknowledged_write_survives_kill_9() {
    let site = Site::new(&[]);
    let port = free_port().await;
    let line = format!("run -a app -H {port}");
    let mut trilby = site.trilby(&line);
    trilby.logged("1 app is running").await;
    let json = [("content-type", "application/json")];
    let writing = async {
        for number in 0.. {
            let item = format!(r#"[{{"key": "k{number}", "value": {number}}}]"#);
            let answer = http(port, "POST", "/v1.0/state/statestore", &json, item.as_bytes()).await;
            if answer.is_none_or(|answer| answer.status != 204) {
                return number;
            }
        }
        0
    };
    let killing = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        trilby.kill().await;
    };
    let (acknowledged, ()) = tokio::join!(writing, killing);
    assert!(acknowledged > 0);

    let mut trilby = site.trilby(&line);
    trilby.logged("1 app is running").await;
    for number in 0..acknowledged {
        let answer =
            http(port, "GET", &format!("/v1.0/state/statestore/k{number}"), &[], b"").await.expect("an answer");
        assert_eq!(
            (answer.status, &answer.body[..]),
            (200, number.to_string().as_bytes()),
            "k{number} of {acknowledged}"
        );
    }
    trilby.stop().await;
}
