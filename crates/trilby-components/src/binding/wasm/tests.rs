//! The binding with small programs of preview 1.

use std::fs;

use tempfile::TempDir;

use super::*;

/// What programs need to print text that lies in their memory.
const PRELUDE: &str = r#"
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (func $print (param $to i32) (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $write (local.get $to) (i32.const 0) (i32.const 1) (i32.const 8))))"#;

/// Prints its arguments, its variables and its input; the first two with zeros between them.
const ECHO: &str = r#"
  (func (export "_start")
    (drop (call $args_sizes (i32.const 16) (i32.const 20)))
    (drop (call $args (i32.const 1024) (i32.const 4096)))
    (call $print (i32.const 1) (i32.const 4096) (i32.load (i32.const 20)))
    (drop (call $environ_sizes (i32.const 16) (i32.const 20)))
    (drop (call $environ (i32.const 1024) (i32.const 4096)))
    (call $print (i32.const 1) (i32.const 4096) (i32.load (i32.const 20)))
    (i32.store (i32.const 32) (i32.const 16384))
    (i32.store (i32.const 36) (i32.const 4096))
    (loop $more
      (drop (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 40)))
      (call $print (i32.const 1) (i32.const 16384) (i32.load (i32.const 40)))
      (br_if $more (i32.load (i32.const 40)))))"#;

const FAIL: &str = r#"
  (data (i32.const 4096) "  Traceback: no such thing\n")
  (func (export "_start")
    (call $print (i32.const 2) (i32.const 4096) (i32.const 27))
    (call $exit (i32.const 3)))"#;

const LOUD: &str =
    r#"(func (export "_start") (loop (call $print (i32.const 1) (i32.const 4096) (i32.const 4096)) (br 0)))"#;

struct Program {
    binding: Arc<Binding>,
    _folder: TempDir,
}

async fn opened(wasm: &[u8], properties: &[(&str, &str)]) -> Result<Program> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tool.wasm");
    fs::write(&path, wasm).expect("written");
    let url = format!("file://{}", path.display());
    let properties = properties.iter().copied().chain([("url", url.as_str())]).collect();
    let binding = open(Engine::default(), OpenRequest { name: "tool".to_owned(), properties }).await?;
    Ok(Program { binding, _folder: folder })
}

async fn program(text: &str, properties: &[(&str, &str)]) -> Program {
    let wasm = wat::parse_str(format!("(module {PRELUDE} {text})")).expect("the test's own text is valid");
    opened(&wasm, properties).await.expect("opens")
}

impl Program {
    async fn run(&self, metadata: &[(&str, &str)], data: &'static str) -> Result<String, ComponentError> {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request = InvokeRequest { operation: "execute".to_owned(), data: data.into(), metadata };
        let answered = self.binding.output.as_ref().expect("an output").invoke(&request).await;
        let text = |answer: InvokeResponse| String::from_utf8(answer.data.expect("data").to_vec()).expect("UTF-8");
        answered.map(text).map_err(|failure| failure.error)
    }
}

#[tokio::test]
async fn a_program_gets_arguments_variables_and_input() {
    let echo = program(ECHO, &[("env", "A=1,B=2"), ("args", "own")]).await;
    let ran = echo.run(&[("args", "x,y z"), ("env", "B=3")], "input").await.expect("runs");
    assert_eq!(ran, "tool\0x\0y z\0A=1\0B=3\0input");
    assert_eq!(echo.run(&[], "").await.expect("runs"), "tool\0own\0A=1\0B=2\0");
    assert_eq!(echo.run(&[("args", "")], "").await.expect("runs"), "tool\0A=1\0B=2\0");
    let error = echo.run(&[("env", "B")], "").await.expect_err("no variable");
    assert_eq!(error.to_string(), "metadata env: \"B\" is not NAME=VALUE");
}

#[tokio::test]
async fn a_program_that_fails_says_why() {
    let error = program(FAIL, &[]).await.run(&[], "").await.expect_err("exits with 3");
    assert_eq!(error.to_string(), "module closed with exit_code(3): Traceback: no such thing");
    let trap = program(r#"(func (export "_start") unreachable)"#, &[]).await;
    let error = trap.run(&[], "").await.expect_err("traps");
    assert_eq!(error.to_string(), "guest trapped: wasm trap: wasm `unreachable` instruction executed");
}

#[tokio::test]
async fn a_program_that_takes_too_much_is_ended() {
    let error = program(LOUD, &[("maxOutput", "1Mi")]).await.run(&[], "").await.expect_err("writes on and on");
    assert_eq!(error.to_string(), "program wrote more than 1048576 bytes, the limit, to its standard output");
    let spin = program(r#"(func (export "_start") (loop (br 0)))"#, &[("callTimeout", "100ms")]).await;
    assert_eq!(spin.run(&[], "").await.expect_err("spins").kind(), ErrorKind::Timeout);
    let eat = r#"(func (export "_start") (drop (memory.grow (i32.const 1000))) unreachable)"#;
    let error = program(eat, &[("memory", "1Mi")]).await.run(&[], "").await.expect_err("eats");
    assert!(error.to_string().starts_with("guest ran out of memory"), "{error}");
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_and_then_are_refused() {
    let limits = [("maxConcurrency", "1"), ("maxQueue", "1"), ("maxWait", "20ms"), ("callTimeout", "1s")];
    let spin = program(r#"(func (export "_start") (loop (br 0)))"#, &limits).await;
    let (spun, waited, refused) = tokio::join!(spin.run(&[], ""), spin.run(&[], ""), spin.run(&[], ""));
    assert_eq!(spun.expect_err("spins").kind(), ErrorKind::Timeout);
    for late in [waited, refused] {
        let error = late.expect_err("no turn");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().starts_with("too many concurrent calls"), "{error}");
    }
}

#[tokio::test]
async fn a_component_of_wasi_0_2_is_a_program_too() {
    let text = r#"(component
      (core module $m (func (export "run") (result i32) (i32.const 1)))
      (core instance $i (instantiate $m))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $out (export "run" (func $run)))
      (export "wasi:cli/run@0.2.0" (instance $out)))"#;
    let component = opened(&wat::parse_str(text).expect("valid"), &[]).await.expect("opens");
    let error = component.run(&[], "").await.expect_err("it says that it failed");
    assert_eq!(error.to_string(), "module closed with exit_code(1)");
}

#[tokio::test]
async fn what_is_no_program_is_refused_when_it_is_opened() {
    let url = async |url: &str| {
        let properties = [("url", url)].into_iter().collect();
        let opened = open(Engine::default(), OpenRequest { name: "tool".to_owned(), properties }).await;
        opened.err().expect("refused").to_string()
    };
    assert_eq!(url("").await, "wasm: failed to parse metadata: missing url");
    assert_eq!(url("tool.wasm").await, "wasm: failed to parse metadata: invalid URL: tool.wasm");
    assert_eq!(
        url("ftp://host/tool.wasm").await,
        "wasm: failed to parse metadata: unsupported URL scheme: ftp; use file://, http://, https:// or oci://"
    );
    for bad in ["tool.wasm:", "file:tool.wasm", "http:/host"] {
        let error = url(bad).await;
        assert!(error.starts_with("wasm: failed to parse metadata: "), "{error}");
        assert!(error.contains(" URL"), "{error}");
    }
    assert_eq!(
        url("file://no/su%63h.wasm").await,
        "wasm: failed to parse metadata: no/su%63h.wasm: no such file; check the path"
    );
    for (content, expect) in [
        (&b"#!/bin/sh"[..], "wasm: error compiling binary: "),
        (b"", "wasm: error compiling binary: "),
        (b"\0asm\x01\0\0\0\x01\x05", "wasm: error compiling binary: "),
    ] {
        let error = opened(content, &[]).await.err().expect("no program");
        assert_eq!(error.kind(), ErrorKind::InvalidMetadata);
        assert!(error.to_string().starts_with(expect), "{error}");
    }
    let library = wat::parse_str("(module)").expect("valid");
    let error = opened(&library, &[]).await.err().expect("a library").to_string();
    assert!(error.ends_with("it exports no _start, so it is a library and not a command"), "{error}");
}
