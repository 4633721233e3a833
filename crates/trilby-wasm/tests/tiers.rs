//! Big modules: run soon, optimised behind.

#![cfg(feature = "compiler")]

use std::fs;

use tempfile::TempDir;
use trilby_wasm::{Command, Engine, Invocation, Limits, LoadReason, Options, Source};

fn file(dir: &TempDir, content: &[u8]) -> Source {
    let path = dir.path().join("guest.wasm");
    fs::write(&path, content).expect("written");
    Source::File(path)
}

/// A module that is big enough to be worth baseline code: functions that add up constants, and one more.
fn big_module(more: &str) -> Vec<u8> {
    let add = "(i32.add (i32.const 1234567) (local.get 0)) (local.set 0) ".repeat(30);
    let functions: String = (0..5000)
        .map(|n| format!("(func $f{n} (param i32) (result i32) {add} (i32.add (i32.const {n}) (local.get 0)))"))
        .collect();
    let text = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          {functions}
          {more}
          (memory (export "memory") 1)
          (func (export "_start") (call $exit (i32.const 7))))"#
    );
    wat::parse_str(text).expect("valid")
}

#[tokio::test]
async fn a_big_module_runs_before_its_code_is_optimised() {
    let dir = TempDir::new().expect("a folder");
    let source = file(&dir, &big_module(""));
    let cache = dir.path().join("cache");
    let options = Options { cache_dir: Some(cache), max_instances: 10, ..Options::default() };
    let engine = Engine::new(options.clone());

    let early = engine.load_tiered(&source).await.expect("loads");
    let command = Command::new(&engine, &early.program, Limits::default()).expect("a command");
    assert_eq!(command.run(Invocation::default()).await.expect("runs").code, 7);

    let better = early.better.expect("it is big").load().await.expect("compiles");
    command.replace(&better).expect("links");
    assert_eq!(command.run(Invocation::default()).await.expect("runs").code, 7);

    let again = engine.load_tiered(&source).await.expect("loads");
    assert!(again.better.is_none(), "it is in use");
    let second = Engine::new(options).load_tiered(&source).await.expect("loads");
    assert!(second.better.is_none(), "it is in the cache");
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
