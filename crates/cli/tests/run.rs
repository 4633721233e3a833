//! `trilby run`: apps of every kind in one process.

mod support;

#[path = "support/running.rs"]
mod running;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use running::{Running, Site};
use support::{HttpReply, HttpServer, free_port, guest, http};

async fn get(port: u16, path: &str) -> (u16, String) {
    call(port, "GET", path, "").await
}

async fn call(port: u16, method: &str, path: &str, body: &str) -> (u16, String) {
    let answer = http(port, method, path, &[("content-type", "application/json")], body.as_bytes()).await;
    let answer = answer.unwrap_or_else(|| panic!("nobody answers at {port} {path}"));
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

/// The three services of the example, with the storefront on a port of the test's.
async fn orders() -> Option<(Site, u16)> {
    let port = free_port().await;
    let mut apps = String::from("version: 1\napps:\n");
    for (id, more) in
        [("storefront", format!("appPort: {port}")), ("inventory", String::new()), ("orders", String::new())]
    {
        apps += &format!("- appID: {id}\n  wasm: {}\n  {more}\n", guest(id)?.display());
    }
    Some((Site::new(&[("dapr.yaml", &apps), (".trilby/secrets.json", r#"{"order-key": "k"}"#)]), port))
}

/// How many sockets of a process listen.
fn listening(pid: u32) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    let links = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    let sockets: HashSet<_> =
        links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let tables =
        ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    let rows =
        tables.iter().flat_map(|table| table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>()));
    // Column 3 is the state, of which 0A is listening; column 9 is the socket.
    rows.filter(|row| row[3] == "0A" && sockets.contains(row[9])).count()
}

#[tokio::test]
async fn a_wasm_app_answers_where_it_was_asked_to_and_nowhere_else() {
    let Some(hello) = guest("hello") else { return };
    let site = Site::new(&[]);
    let port = free_port().await;
    let mut trilby = site.trilby(&format!("run {} --app-port {port}", hello.display()));
    trilby.logged("1 app is running").await;
    assert_eq!(get(port, "/").await.0, 200);
    assert_eq!(listening(trilby.pid()), 1);
    assert!(site.path(".trilby/secrets.json").exists(), "the embedded set is in ./.trilby");
    assert_eq!(trilby.stop().await, Some(0));

    let mut trilby = site.trilby(&format!("run {}", hello.display()));
    trilby.logged("app has no port; add --app-port").await;
    assert_eq!(listening(trilby.pid()), 0);
    assert_eq!(trilby.stop().await, Some(0));
}

#[tokio::test]
async fn services_of_a_file_call_each_other_and_survive_a_crash() {
    let Some((site, port)) = orders().await else { return };
    let mut trilby = site.trilby("run -f dapr.yaml");
    trilby.logged("3 apps are running").await;
    assert_eq!(call(port, "PUT", "/stock/tea", r#"{"quantity": 3}"#).await.0, 200);
    let (status, order) = call(port, "POST", "/orders", r#"{"item": "tea", "quantity": 2}"#).await;
    assert_eq!(status, 201, "{order}");
    assert_eq!(call(port, "POST", "/orders", r#"{"item": "tea", "quantity": 2}"#).await.0, 409);
    assert_eq!(listening(trilby.pid()), 1, "only the storefront's own");
    trilby.kill().await;

    let mut trilby = site.trilby("run -f .");
    trilby.logged("3 apps are running").await;
    let id = order.split('"').nth(3).expect("an id").to_owned();
    assert_eq!(get(port, &format!("/orders/{id}")).await.0, 200);
    assert!(get(port, "/stock/tea").await.1.contains('1'));
    assert_eq!(trilby.stop().await, Some(0));
}

#[tokio::test]
async fn apps_of_every_kind_live_in_one_process_with_one_log() {
    let Some(hello) = guest("hello") else { return };
    let outside = HttpServer::start(|request| HttpReply::new(200, format!("outside {}", request.path))).await;
    let dapr = free_port().await;
    let apps = format!(
        "
version: 1
apps:
- appID: guest
  wasm: {}
- appID: outside
  appPort: {}
  daprHTTPPort: {dapr}
- appID: script
  command: [sh, -c, 'echo my port is $DAPR_HTTP_PORT; sleep 100']
",
        hello.display(),
        outside.port
    );
    let site = Site::new(&[("dapr.yaml", &apps)]);
    let mut trilby = site.trilby("run -f dapr.yaml");
    let line = trilby.logged("script | my port is ").await;
    let port: u16 = line.rsplit(' ').next().and_then(|port| port.parse().ok()).expect("a port");
    assert_eq!(get(port, "/v1.0/invoke/guest/method/").await.0, 200);
    assert_eq!(get(port, "/v1.0/invoke/outside/method/x").await, (200, "outside /x".to_owned()));
    assert_eq!(get(dapr, "/v1.0/invoke/guest/method/").await.0, 200);
    for line in trilby.log().lines() {
        let app = line.split(" | ").next().and_then(|start| start.split_whitespace().last()).unwrap_or_default();
        assert!(["guest", "outside", "script", "trilby"].contains(&app), "no app on the line {line:?}");
    }
    assert_eq!(trilby.stop().await, Some(0));
}

#[tokio::test]
async fn a_command_is_told_its_surroundings_and_ends_with_the_runtime() {
    let site = Site::new(&[]);
    let app_port = free_port().await.to_string();
    let script = "echo id=$APP_ID port=$APP_PORT protocol=$APP_PROTOCOL own=$OWN; sleep 1000 & echo child=$!; wait";
    let words = ["run", "-a", "shop", "-p", &app_port, "--env", "OWN=mine", "--log-as-json", "--", "sh", "-c", script];
    let mut trilby = site.run_words(env!("CARGO_BIN_EXE_trilby"), &words, &[]);
    let line = trilby.logged("id=shop").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["msg"], format!("id=shop port={app_port} protocol=http own=mine"));
    assert_eq!((&line["app_id"], &line["scope"]), (&"shop".into(), &"app.stdout".into()));
    let line: serde_json::Value = serde_json::from_str(&trilby.logged(r#""msg":"child="#).await).expect("JSON");
    let child = line["msg"].as_str().and_then(|text| text.strip_prefix("child=")).expect("a process").to_owned();

    assert_eq!(trilby.stop().await, Some(0));
    let started = Instant::now();
    while is_alive(&child) {
        assert!(started.elapsed() < Duration::from_secs(10), "what the command started outlived it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a process runs; one that nobody has buried yet does not.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn the_end_of_a_single_command_is_the_end_of_all() {
    let site = Site::new(&[]);
    let words = ["run", "-a", "shop", "--", "sh", "-c", "exit 7"];
    let mut trilby = site.run_words(env!("CARGO_BIN_EXE_trilby"), &words, &[]);
    assert_eq!(trilby.ended().await, Some(7));
    assert!(trilby.log().contains("command ended with exit status: 7"), "{}", trilby.log());
}

#[tokio::test]
async fn apps_with_folders_of_their_own_do_not_see_each_others_components() {
    let component = |name: &str| {
        format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: state.in-memory, version: v1}}"
        )
    };
    let ports = [free_port().await, free_port().await, free_port().await, free_port().await];
    let apps = format!(
        "version: 1
apps:
- {{appID: a, daprHTTPPort: {}, resourcesPath: one}}
- {{appID: b, daprHTTPPort: {}, resourcesPaths: [two]}}
- {{appID: c, daprHTTPPort: {}, resourcesPath: two}}
- {{appID: d, daprHTTPPort: {}}}",
        ports[0], ports[1], ports[2], ports[3]
    );
    let site =
        Site::new(&[("dapr.yaml", &apps), ("one/s.yaml", &component("store")), ("two/s.yaml", &component("store"))]);
    let mut trilby = site.trilby("run -f dapr.yaml");
    trilby.logged("4 apps are running").await;
    let items = r#"[{"key": "k", "value": "v"}]"#;
    assert_eq!(call(ports[1], "POST", "/v1.0/state/store", items).await.0, 204);
    assert_eq!(get(ports[0], "/v1.0/state/store/k").await.0, 204, "a has a store of its own");
    assert_eq!(get(ports[1], "/v1.0/state/store/k").await, (200, r#""v""#.to_owned()));
    let (status, text) = get(ports[3], "/v1.0/state/statestore/k").await;
    assert_eq!(status, 204, "d names no folder and has the embedded set: {text}");
    assert_eq!(get(ports[0], "/v1.0/state/statestore/k").await.0, 400, "the others do not see it");
    let opened = trilby.log().matches("component loaded").count();
    assert_eq!(opened, 7, "b and c share one, d has the embedded five; the log: {}", trilby.log());
    assert_eq!(trilby.stop().await, Some(0));
}

#[tokio::test]
async fn limits_hold_and_only_the_call_that_breaks_them_fails() {
    let (Some(hostile), Some(hello)) = (guest("hostile"), guest("hello")) else { return };
    let (bad, good) = (free_port().await, free_port().await);
    let apps = format!(
        "version: 1
apps:
- {{appID: bad, wasm: {}, appPort: {bad}, wasmOptions: {{callTimeout: 300ms, memory: 16Mi}}}}
- {{appID: good, wasm: {}, appPort: {good}}}",
        hostile.display(),
        hello.display()
    );
    let site = Site::new(&[("dapr.yaml", &apps)]);
    let mut trilby = site.trilby("run -f dapr.yaml");
    trilby.logged("2 apps are running").await;
    for path in ["/spin", "/alloc", "/trap"] {
        assert!(get(bad, path).await.0 >= 500, "{path}");
        assert_eq!(get(good, "/").await.0, 200, "after {path}");
    }
    for reason in ["no answer within 300ms", "guest ran out of memory", "guest trapped"] {
        trilby.logged(reason).await;
    }
    assert_eq!(trilby.stop().await, Some(0));
}

/// A preview 1 command that ends with code 3.
const TOOL: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "done\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 5))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $exit (i32.const 3))))"#;

#[tokio::test]
async fn a_program_that_is_a_command_runs_once() {
    let site = Site::new(&[]);
    site.write("tool.wasm", wat::parse_str(TOOL).expect("a module"));
    let mut trilby: Running = site.trilby("run tool.wasm -- some arguments");
    assert_eq!(trilby.ended().await, Some(3));
    assert_eq!(trilby.log(), "done\n");
}

#[tokio::test]
async fn compiled_ahead_of_time_a_program_runs_as_it_did() {
    let site = Site::new(&[]);
    site.write("tool.wasm", wat::parse_str(TOOL).expect("a module"));
    let mut compiling = site.trilby("compile tool.wasm -o fast.cwasm");
    assert_eq!(compiling.ended().await, Some(0), "{}", compiling.log());
    let mut trilby = site.trilby("run fast.cwasm");
    assert_eq!(trilby.ended().await, Some(3), "{}", trilby.log());
}

#[tokio::test]
async fn inspect_shows_what_a_program_needs_and_what_it_would_be_refused() {
    let site = Site::new(&[]);
    let needy = r#"(component (import "trilby:dapr/state@0.2.0" (instance (export "get" (func)))) (import "wasi:sockets/tcp@0.2.3" (instance)))"#;
    site.write("needy.wasm", wat::parse_str(needy).expect("a component"));
    let mut inspecting = site.trilby("inspect needy.wasm");
    assert_eq!(inspecting.ended().await, Some(1));
    let text = inspecting.log();
    for part in [
        "needy.wasm: component",
        "blocks   state",
        "wasi:sockets/tcp@0.2.3, which needs a grant: give the app hosts to connect to",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let mut granted = site.trilby("inspect needy.wasm --allow-host a.b --json");
    assert_eq!(granted.ended().await, Some(0));
    let report: serde_json::Value = serde_json::from_str(&granted.log()).expect("JSON");
    assert_eq!((&report["blocks"][0], &report["refused"]), (&"state".into(), &serde_json::json!([])));
}

#[tokio::test]
async fn components_are_those_of_the_catalog() {
    let site = Site::new(&[]);
    let mut listing = site.trilby("components --json");
    assert_eq!(listing.ended().await, Some(0));
    let list: serde_json::Value = serde_json::from_str(&listing.log()).expect("JSON");
    let types: Vec<_> = list.as_array().expect("a list").iter().filter_map(|entry| entry["type"].as_str()).collect();
    assert!(types.contains(&"state.in-memory") && types.contains(&"secretstores.local.file"), "{types:?}");
}
