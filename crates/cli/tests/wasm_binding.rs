//! The example of Dapr's page on the Wasm binding, as it stands there: a component, a program, and `curl`.

mod support;

use std::time::{Duration, Instant};

use support::{Daprd, DaprdOptions, HttpAnswer};
use tempfile::TempDir;

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
      value: \"file://PROGRAMS/uppercase.wasm\"
";

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
";

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
    for (name, text) in [("uppercase", ECHO), ("fails", FAILS), ("loud", LOUD)] {
        let wasm = wat::parse_str(text).expect("the test's own text is valid");
        std::fs::write(programs.path().join(name).with_extension("wasm"), wasm).expect("a file");
    }
    std::fs::write(programs.path().join("text.wasm"), "this is no program").expect("a file");
    let components = format!("{COMPONENT}{OTHERS}").replace("PROGRAMS", &programs.path().to_string_lossy());
    (Daprd::start(DaprdOptions { components, ..DaprdOptions::default() }).await, programs)
}

async fn execute(daprd: &Daprd, name: &str) -> HttpAnswer {
    let body = r#"{
      "operation": "execute",
      "metadata": {
        "args": "hello"
      },
      "data": "world"
    }"#;
    daprd.http("POST", &format!("/v1.0/bindings/{name}"), body).await
}

fn text(answer: &HttpAnswer) -> (u16, String) {
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

#[tokio::test]
async fn the_example_of_daprs_page_runs() {
    let (daprd, _programs) = start().await;
    assert_eq!(text(&execute(&daprd, "wasm").await), (200, "uppercase\0hello\0\"world\"".to_owned()));
    daprd.stop().await;
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
        assert_eq!(execute(&daprd, "wasm").await.status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "a gigabyte is not written to its end");
    let grown = resident_bytes(&daprd).saturating_sub(memory);
    assert!(grown < 100 << 20, "memory grew by {grown} bytes");
    assert!(daprd.log().contains("wasm: error compiling binary"), "{}", daprd.log());
    daprd.stop().await;
}

fn resident_bytes(daprd: &Daprd) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daprd.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}
