//! The example of Dapr's page on the Wasm binding, word for word: a component, a program, and `curl`; and what programs
//! do that nobody wants.

mod support;

#[path = "support/running.rs"]
mod running;

use std::{
    process::Output,
    time::{Duration, Instant},
};

use running::Site;
use support::{Daprd, DaprdOptions, HttpAnswer, HttpReply, HttpServer, free_port, guest};
use tempfile::TempDir;
use tokio::process::Command;

/// Prints its arguments, each with a zero behind it, and its input.
const ECHO: &str = include_str!("../../../fixtures/programs/echo.wat");

const COMPONENT: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: wasm
spec:
  type: bindings.wasm
  version: v1
  metadata:
  - name: url
    value: \"file://uppercase.wasm\"
  - name: direction
    value: \"output\"
";

/// As it stands on the page, but for the port.
const CURL: &str = r#"curl -X POST http://localhost:3500/v1.0/bindings/wasm -d'
{
  "operation": "execute",
  "metadata": {
    "args": "-ne,print \"Hello \"; print"
  },
  "data": "salaboy"
}'"#;

/// What goes wrong, each in its way.
const OTHERS: &str = "
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: fails }
spec: { type: bindings.wasm, version: v1, metadata: [{ name: url, value: 'file://PROGRAMS/fails.wasm' }] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: loud }
spec: { type: bindings.wasm, version: v1, metadata: [{ name: url, value: 'file://PROGRAMS/loud.wasm' }] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: text }
spec: { type: bindings.wasm, version: v1, ignoreErrors: true, metadata: [{ name: url, value: 'file://PROGRAMS/text.wasm' }] }
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: endless }
spec:
  type: bindings.wasm
  version: v1
  metadata: [{ name: url, value: 'file://PROGRAMS/endless.wasm' }, { name: callTimeout, value: 300ms }]
";

const ENDLESS: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#;

const FAILS: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\08\00\00\00\05\00\00\00boom\n")
  (func (export "_start")
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 32)))
    (call $exit (i32.const 1))))"#;

/// Writes a gigabyte.
const LOUD: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\00\10\00\00\00\00\01\00")
  (func (export "_start") (local $left i32)
    (local.set $left (i32.const 16384))
    (loop $more
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#;

/// A daprd, and the folder of its programs.
async fn start() -> (Daprd, TempDir) {
    let programs = TempDir::new().expect("a temporary folder");
    for (name, text) in [("uppercase", ECHO), ("fails", FAILS), ("loud", LOUD), ("endless", ENDLESS)] {
        let wasm = wat::parse_str(text).expect("the test's own text is valid");
        std::fs::write(programs.path().join(name).with_extension("wasm"), wasm).expect("a file");
    }
    std::fs::write(programs.path().join("text.wasm"), "this is no program").expect("a file");
    let components = format!("{}{OTHERS}", COMPONENT.replace("uppercase.wasm", "PROGRAMS/uppercase.wasm"))
        .replace("PROGRAMS", &programs.path().to_string_lossy());
    (Daprd::start(DaprdOptions { components, ..DaprdOptions::default() }).await, programs)
}

async fn execute(daprd: &Daprd, name: &str) -> HttpAnswer {
    let body = r#"{"operation": "execute", "metadata": {"args": "hello"}, "data": "world"}"#;
    daprd.http("POST", &format!("/v1.0/bindings/{name}"), body).await
}

fn text(answer: &HttpAnswer) -> (u16, String) {
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

async fn curl(port: u16) -> Output {
    let line = CURL.replace("3500", &port.to_string());
    Command::new("sh").args(["-c", &line]).output().await.expect("a shell")
}

/// Runs the page's example with one of our binaries; `-p1` is what a stock daprd runs too, the other a WASI 0.2 command.
async fn page(binary: &str, line: &str, ready: &str, program: &str) {
    let Some(program) = guest(program) else { return };
    let site = Site::new(&[("components/wasm.yaml", COMPONENT)]);
    std::fs::copy(program, site.path("uppercase.wasm")).expect("copied");
    let port = free_port().await;
    let mut running = site.run(binary, &line.replace("3500", &port.to_string()), &[]);
    running.logged(ready).await;
    let answered = curl(port).await;
    if answered.status.code() == Some(127) {
        println!("NOT RUN curl: it is not installed");
        return;
    }
    assert_eq!(String::from_utf8_lossy(&answered.stdout), "Hello \"salaboy\"", "the log: {}", running.log());
    assert_eq!(running.stop().await, Some(0));
}

#[tokio::test]
async fn the_example_of_daprs_page_runs() {
    let line = "run --app-id wasm --dapr-http-port 3500 --resources-path components";
    page(env!("CARGO_BIN_EXE_trilby"), line, "1 app is running", "one-liner-p1").await;
    let grpc = free_port().await;
    let line = format!(
        "--app-id wasm --dapr-http-port 3500 --dapr-grpc-port {grpc} --resources-path components --enable-metrics=false"
    );
    for program in ["one-liner-p1", "one-liner"] {
        page(env!("CARGO_BIN_EXE_daprd"), &line, "dapr initialized. Status: Running", program).await;
    }
}

#[tokio::test]
async fn programs_that_fail_disturb_nobody() {
    let (daprd, _programs) = start().await;
    let error = |name: &str, cause: &str| {
        let message = format!("error invoking output binding {name}: {cause}");
        (500, serde_json::json!({ "errorCode": "ERR_INVOKE_OUTPUT_BINDING", "message": message }).to_string())
    };
    let memory = resident_bytes(&daprd);
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(text(&execute(&daprd, "fails").await), error("fails", "module closed with exit_code(1): boom"));
        let too_much = "program wrote more than 16777216 bytes, the limit, to its standard output";
        assert_eq!(text(&execute(&daprd, "loud").await), error("loud", too_much));
        assert_eq!(text(&execute(&daprd, "text").await), error("text", "couldn't find output binding text"));
        let too_long = "no answer within 300ms, the limit for one call (call_timeout)";
        let (late, answer) = tokio::join!(execute(&daprd, "endless"), execute(&daprd, "wasm"));
        assert_eq!(text(&late), error("endless", too_long));
        assert_eq!(text(&answer), (200, "uppercase\0hello\0\"world\"".to_owned()));
    }
    assert!(began.elapsed() < Duration::from_secs(20), "a gigabyte is not written to its end");
    let grown = resident_bytes(&daprd).saturating_sub(memory);
    assert!(grown < 100 << 20, "memory grew by {grown} bytes");
    assert!(daprd.log().contains("wasm: error compiling binary"), "{}", daprd.log());
    daprd.stop().await;
}

#[tokio::test]
async fn programs_call_hosts_by_http_as_far_as_they_may() {
    let Some(program) = guest("fetch") else { return };
    let server = HttpServer::start(|request| HttpReply::new(200, request.path)).await;
    let component = |name: &str, more: &str| {
        format!(
            "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: {name} }}\nspec:\n  \
             type: bindings.wasm\n  version: v1\n  ignoreErrors: true\n  metadata:\n  \
             - {{ name: url, value: 'file://{}' }}\n{more}",
            program.display()
        )
    };
    let components = [
        component("fetch", ""),
        component("narrow", "  - { name: allowedHosts, value: 'https://example.com,10.0.0.1' }\n"),
        component("strict", "  - { name: strictSandbox, value: 'true' }\n"),
    ]
    .concat();
    let daprd = Daprd::start(DaprdOptions { components, ..DaprdOptions::default() }).await;
    let body = format!(r#"{{"operation": "execute", "metadata": {{"args": "127.0.0.1:{}/path?query"}}}}"#, server.port);
    let execute = async |name: &str| text(&daprd.http("POST", &format!("/v1.0/bindings/{name}"), &body).await);

    assert_eq!(execute("fetch").await, (200, "Status: 200\n/path?query".to_owned()));
    let (status, denied) = execute("narrow").await;
    assert_eq!(status, 500);
    assert!(denied.contains("no answer: ErrorCode::HttpRequestDenied"), "{denied}");
    assert_eq!(execute("strict").await.0, 500);
    assert!(daprd.log().contains("can not instantiate wasi-http with strict sandbox"), "{}", daprd.log());
    daprd.stop().await;
}

fn resident_bytes(daprd: &Daprd) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daprd.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}
