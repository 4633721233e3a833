//! Big programs: run soon, optimised behind.

#![cfg(feature = "compiler")]

use std::fs;

use tempfile::TempDir;
use trilby_wasm::{Command, Engine, Invocation, Limits, LoadReason, Options, Source};

fn file(dir: &TempDir, content: &[u8]) -> Source {
    let path = dir.path().join("guest.wasm");
    fs::write(&path, content).expect("written");
    Source::File(path)
}

/// Functions that add up constants: enough of them that their code is worth compiling in a hurry.
fn many_functions() -> String {
    let add = "(i32.add (i32.const 1234567) (local.get 0)) (local.set 0) ".repeat(30);
    (0..5000)
        .map(|n| format!("(func $f{n} (param i32) (result i32) {add} (i32.add (i32.const {n}) (local.get 0)))"))
        .collect()
}

/// A big module of preview 1 that exits with 7, and whatever else.
fn big_module(more: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          {}
          {more}
          (memory (export "memory") 1)
          (func (export "_start") (call $exit (i32.const 7))))"#,
        many_functions()
    );
    wat::parse_str(text).expect("valid")
}

/// A big component of WASI 0.2 that fails, which is the exit code 1.
fn big_component() -> Vec<u8> {
    let text = format!(
        r#"(component
          (core module $m
            {}
            (func (export "run") (result i32) (i32.const 1)))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $out (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $out)))"#,
        many_functions()
    );
    wat::parse_str(text).expect("valid")
}

#[tokio::test]
async fn a_big_program_runs_before_its_code_is_optimised() {
    for (wasm, code) in [(big_module(""), 7), (big_component(), 1)] {
        let dir = TempDir::new().expect("a folder");
        let source = file(&dir, &wasm);
        let cache = dir.path().join("cache");
        let options = Options { cache_dir: Some(cache), max_instances: 10, ..Options::default() };
        let engine = Engine::new(options.clone());

        let early = engine.load_tiered(&source).await.expect("loads");
        let command = Command::new(&engine, &early.program, Limits::default()).expect("a command");
        assert_eq!(command.run(Invocation::default()).await.expect("runs").code, code);

        let better = early.better.expect("it is big").load().await.expect("compiles");
        command.replace(&better).expect("links");
        assert_eq!(command.run(Invocation::default()).await.expect("runs").code, code);

        let again = engine.load_tiered(&source).await.expect("loads");
        assert!(again.better.is_none(), "it is in use");
        let second = Engine::new(options.clone()).load_tiered(&source).await.expect("loads");
        assert!(second.better.is_none(), "it is in the cache");

        for entry in fs::read_dir(dir.path().join("cache")).expect("a cache") {
            fs::write(entry.expect("an entry").path(), "damaged").expect("written");
        }
        let third = Engine::new(options).load_tiered(&source).await.expect("loads");
        assert!(third.better.is_some(), "what is in the cache is no use");
    }
}

#[tokio::test]
async fn a_small_module_and_nonsense_are_not_compiled_twice() {
    let dir = TempDir::new().expect("a folder");
    let engine = Engine::new(Options::default());
    let small = engine.load_tiered(&file(&dir, &wat::parse_str("(module)").expect("valid"))).await;
    assert!(small.expect("loads").better.is_none());
    let broken = big_module("(func (result i32) (i64.const 0))");
    let error = engine.load_tiered(&file(&dir, &broken)).await.expect_err("is not valid");
    assert!(matches!(error.reason, LoadReason::Invalid(_)), "{error}");
}
