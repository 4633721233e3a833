//! Programs that run to their end: output, input, exit codes, and what they are not given.

#![cfg(feature = "compiler")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use trilby_wasm::{
    CallError, Capture, Command, Directory, Engine, Exceeded, Finished, Grants, Invocation, Limits, LogSink, Logs,
    Options, Stream,
};

/// A module with the parts of preview 1 that the tests use, and `$start` to be filled in.
fn module(start: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 100) "hello\n")
          ;; A vector of one buffer at 0: address 100, length 6. Counts go to 16 and 20.
          (data (i32.const 0) "\64\00\00\00\06\00\00\00")
          (func (export "_start") {start}))"#
    )
}

const HELLO: &str = "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))";
const HELLO_FOREVER: &str =
    "(loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))) (br 0))";

fn engine() -> Engine {
    Engine::new(Options { max_instances: 10, ..Options::default() })
}

async fn command(engine: &Engine, text: &str, limits: Limits) -> Command {
    let wasm = wat::parse_str(text).expect("the test's own text is valid");
    let program = engine.load_bytes("tool", wasm.into()).await.expect("loads");
    Command::new(engine, &program, limits).expect("a command")
}

async fn run(start: &str, invocation: Invocation) -> Result<Finished, CallError> {
    command(&engine(), &module(start), Limits::default()).await.run(invocation).await
}

#[tokio::test]
async fn output_is_kept() {
    let finished = run(HELLO, Invocation::default()).await.expect("runs");
    assert_eq!(finished, Finished { stdout: "hello\n".into(), ..Finished::default() });
}

#[tokio::test]
async fn input_is_read() {
    let echo = "
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
        (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 16)))";
    let invocation = Invocation { stdin: "input!".into(), ..Invocation::default() };
    assert_eq!(run(echo, invocation).await.expect("runs").stderr, "input!");
}

#[tokio::test]
async fn the_exit_code_is_told() {
    let finished = run("(call $exit (i32.const 7))", Invocation::default()).await.expect("runs");
    assert_eq!(finished.code, 7);
}

#[tokio::test]
async fn an_exit_code_out_of_range_is_an_error() {
    let error = run("(call $exit (i32.const 200))", Invocation::default()).await.expect_err("out of range");
    assert_eq!(error.to_string(), "exit with invalid exit status outside of [0..126)");
    assert!(error.backtrace().is_some());
}

#[tokio::test]
async fn a_trap_is_no_exit_code() {
    let error = run("unreachable", Invocation::default()).await.expect_err("traps");
    assert!(matches!(error, CallError::Trap { .. }), "{error:?}");
}

/// Exits with the number of variables, plus ten times that of arguments, plus 40 if there is a folder.
const COUNT_GRANTS: &str = "
    (drop (call $environ (i32.const 16) (i32.const 20)))
    (drop (call $args (i32.const 24) (i32.const 28)))
    (call $exit (i32.add
      (i32.add (i32.load (i32.const 16)) (i32.mul (i32.const 10) (i32.load (i32.const 24))))
      (i32.mul (i32.const 40) (i32.eqz (call $prestat (i32.const 3) (i32.const 32))))))";

#[tokio::test]
async fn nothing_is_granted_by_default() {
    assert_eq!(run(COUNT_GRANTS, Invocation::default()).await.expect("runs").code, 0);
}

#[tokio::test]
async fn what_is_granted_is_there() {
    let dir = TempDir::new().expect("a folder");
    let grants = Grants {
        env: vec![("A".into(), "1".into()), ("B".into(), "2".into())],
        args: vec!["tool".into(), "x".into(), "y".into()],
        dirs: vec![Directory { host: dir.path().into(), guest: "/data".into(), writable: false }],
        ..Grants::default()
    };
    let invocation = Invocation { grants, ..Invocation::default() };
    assert_eq!(run(COUNT_GRANTS, invocation).await.expect("runs").code, 72);
}

#[tokio::test]
async fn a_granted_folder_that_is_missing_is_named() {
    let missing = Directory { host: "no/such".into(), guest: "/data".into(), writable: false };
    let grants = Grants { dirs: vec![missing], ..Grants::default() };
    let error = run(HELLO, Invocation { grants, ..Invocation::default() }).await.expect_err("missing");
    assert!(error.to_string().starts_with("cannot open the granted folder no/such: "), "{error}");
}

#[tokio::test]
async fn endless_output_is_cut() {
    let limits = Limits { call_timeout: Duration::from_millis(200), ..Limits::default() };
    let endless = command(&engine(), &module(HELLO_FOREVER), limits).await;
    let error = endless.run(Invocation { capture: Capture::Bytes(10), ..Invocation::default() }).await;
    assert!(matches!(error, Err(CallError::Deadline(_))), "{error:?}");

    let ten_times = format!("{}(call $exit (i32.const 0))", HELLO.repeat(10));
    let finished = run(&ten_times, Invocation { capture: Capture::Bytes(10), ..Invocation::default() }).await;
    let finished = finished.expect("runs");
    assert_eq!((&finished.stdout[..], finished.is_cut), (&b"hello\nhell"[..], true));
}

#[tokio::test]
async fn too_much_output_can_end_a_program() {
    let limits = Limits { call_timeout: Duration::from_secs(30), ..Limits::default() };
    for start in [HELLO_FOREVER, &HELLO.repeat(2)] {
        let command = command(&engine(), &module(start), limits.clone()).await;
        let error = command.run(Invocation { capture: Capture::AtMost(10), ..Invocation::default() }).await;
        assert!(matches!(error, Err(CallError::Limit(Exceeded::Output { limit: 10 }))), "{error:?}");
    }
    let finished = run(HELLO, Invocation { capture: Capture::AtMost(6), ..Invocation::default() }).await;
    assert_eq!(finished.expect("fits").stdout, "hello\n");
}

#[tokio::test]
async fn runs_beyond_the_limit_wait_their_turn() {
    let limits = Limits {
        max_concurrency: 1,
        max_queue: 1,
        max_wait: Duration::from_millis(50),
        call_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let spin = command(&engine(), &module("(loop (br 0))"), limits).await;
    let run = || spin.run(Invocation::default());
    let (spun, waited, refused) = tokio::join!(run(), run(), run());
    assert!(matches!(spun, Err(CallError::Deadline(_))), "{spun:?}");
    assert!(matches!(waited, Err(CallError::Busy { running: 1, .. })), "{waited:?}");
    assert!(matches!(refused, Err(CallError::QueueFull { running: 1, queued: 1 })), "{refused:?}");
}

/// Writes the wall clock, the monotonic clock and eight random bytes.
const MEASURE: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\68\00\00\00\18\00\00\00")
    (func (export "_start")
      (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 104)))
      (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 112)))
      (drop (call $random (i32.const 120) (i32.const 8)))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"#;

#[tokio::test]
async fn nothing_can_be_measured_in_a_deterministic_world() {
    let command = command(&engine(), MEASURE, Limits::default()).await;
    let grants = Grants { deterministic: true, ..Grants::default() };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let invocation = Invocation { grants: grants.clone(), ..Invocation::default() };
        seen.push(command.run(invocation).await.expect("runs").stdout);
    }
    let wall = u64::from_le_bytes(seen[0][..8].try_into().expect("eight bytes"));
    assert_eq!(wall % 1_000_000_000, 0, "the clock starts at a whole second");
    assert_eq!(seen[0][8..], seen[1][8..], "each run sees the same");
    let open = command.run(Invocation::default()).await.expect("runs").stdout;
    assert_ne!(open[16..], seen[0][16..], "random numbers are random");
}

#[derive(Clone, Default)]
struct Collect(Arc<Mutex<Vec<(Stream, String)>>>);

impl LogSink for Collect {
    fn line(&self, stream: Stream, line: &str) {
        self.0.lock().expect("not poisoned").push((stream, line.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_output_fills_no_log_and_stalls_nobody() {
    let engine = engine();
    let lines = Collect::default();
    let capture = Capture::Logs(Logs::new(lines.clone()));
    let limits = Limits { call_timeout: Duration::from_secs(1), ..Limits::default() };
    let endless = command(&engine, &module(HELLO_FOREVER), limits).await;
    let neighbour = command(&engine, &module(HELLO), Limits::default()).await;

    let endless = endless.run(Invocation { capture, ..Invocation::default() });
    let neighbour = async {
        for _ in 0..20 {
            neighbour.run(Invocation::default()).await.expect("runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (endless, ()) = tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(endless, neighbour) })
        .await
        .expect("nothing hangs");
    assert!(matches!(endless, Err(CallError::Deadline(_))), "{endless:?}");

    let lines = lines.0.lock().expect("not poisoned");
    assert_eq!(lines[0], (Stream::Stdout, "hello".to_owned()));
    assert!((2000..5000).contains(&lines.len()), "{} lines in a second", lines.len());
    assert!(lines.iter().any(|(_, line)| line.ends_with("lines dropped: more than 1000 lines a second)")));
}

#[tokio::test]
async fn limits_hold_for_commands_too() {
    let limits = Limits { memory_bytes: 1 << 20, ..Limits::default() };
    let eat = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    let error = command(&engine(), &module(eat), limits).await.run(Invocation::default()).await;
    assert!(matches!(error, Err(CallError::Limit(Exceeded::Memory { limit: 1_048_576, .. }))), "{error:?}");
}

fn component(answer: u32) -> String {
    format!(
        r#"(component
          (core module $m (func (export "run") (result i32) (i32.const {answer})))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $out (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $out)))"#
    )
}

#[tokio::test]
async fn components_are_commands_too() {
    let engine = engine();
    for (answer, code) in [(0, 0), (1, 1)] {
        let command = command(&engine, &component(answer), Limits::default()).await;
        assert_eq!(command.run(Invocation::default()).await.expect("runs").code, code);
    }
}

#[tokio::test]
async fn what_is_no_command_says_why() {
    let engine = engine();
    let refuse = async |text: &str| {
        let program = engine.load_bytes("tool", wat::parse_str(text).expect("valid").into()).await.expect("loads");
        Command::new(&engine, &program, Limits::default()).expect_err("no command").to_string()
    };
    let library = refuse("(module)").await;
    assert_eq!(library, "tool: cannot be linked: it exports no _start, so it is a library and not a command");
    let needy = refuse(r#"(module (import "env" "magic" (func)) (func (export "_start")))"#).await;
    assert!(needy.contains("env::magic"), "{needy}");
    let needy = refuse(r#"(component (import "magic:wand/wave@1.0.0" (instance (export "wave" (func)))))"#).await;
    assert!(needy.contains("magic:wand/wave@1.0.0"), "{needy}");
    let silent = refuse("(component)").await;
    assert!(silent.contains("wasi:cli/run"), "{silent}");
}
