//! Programs that run to their end: output, input, exit codes, and what they are not given.

#![cfg(feature = "compiler")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use trilby_wasm::{
    AllowedHosts, CallError, Capture, Command, Directory, Engine, Exceeded, Finished, Grants, Invocation, Limits,
    LogSink, Logs, Options, Stream,
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
async fn any_exit_code_is_told() {
    for code in [7, 125, 126, 200, 255, -1] {
        let finished = run(&format!("(call $exit (i32.const {code}))"), Invocation::default()).await.expect("runs");
        assert_eq!(finished.code, code);
    }
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
    assert_eq!(wall % 1_000_000_000, 1_000_000, "the clock starts at a whole second, and moves when it is read");
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

/// Posts `ping` in the way of the draft that preview 1 programs speak, and prints the answer's status and body.
fn posts(authority: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $print (param i32 i32 i32 i32) (result i32)))
          (import "types" "new-fields" (func $fields (param i32 i32) (result i32)))
          (import "types" "new-outgoing-request"
            (func $request (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
          (import "types" "outgoing-request-write" (func $body (param i32 i32)))
          (import "types" "future-incoming-response-get" (func $get (param i32 i32)))
          (import "types" "incoming-response-status" (func $status (param i32) (result i32)))
          (import "types" "incoming-response-headers" (func $headers (param i32) (result i32)))
          (import "types" "fields-entries" (func $entries (param i32 i32)))
          (import "types" "incoming-response-consume" (func $consume (param i32 i32)))
          (import "types" "drop-incoming-response" (func $drop (param i32)))
          (import "streams" "write" (func $write (param i32 i32 i32 i32)))
          (import "streams" "read" (func $read (param i32 i64 i32)))
          (import "default-outgoing-HTTP" "handle"
            (func $handle (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 2)
          (global $free (mut i32) (i32.const 65536))
          (data (i32.const 1000) "/path?query{authority}x-askedyesping")
          (data (i32.const 1200) "\28\04\00\00\07\00\00\00\2f\04\00\00\03\00\00\00")
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (global.get $free)
            (global.set $free (i32.add (global.get $free) (local.get 3))))
          (func $out (param $at i32) (param $len i32)
            (i32.store (i32.const 0) (local.get $at))
            (i32.store (i32.const 4) (local.get $len))
            (drop (call $print (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
          (func (export "_start") (local $request i32) (local $response i32)
            (memory.copy (i32.const 1064) (i32.add (i32.const 1011) (i32.const {len})) (i32.const 14))
            (local.set $request (call $request
              (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 5) (i32.const 1005) (i32.const 6)
              (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1011) (i32.const {len})
              (call $fields (i32.const 1200) (i32.const 1))))
            (call $body (local.get $request) (i32.const 16))
            (call $write (i32.load (i32.const 20)) (i32.const 1074) (i32.const 4) (i32.const 16))
            (call $get (call $handle (local.get $request) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
              (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 16))
            (local.set $response (i32.load (i32.const 24)))
            (i32.store8 (i32.const 32) (i32.div_u (call $status (local.get $response)) (i32.const 2)))
            (call $out (i32.const 32) (i32.const 1))
            (call $entries (call $headers (local.get $response)) (i32.const 16))
            (i32.store8 (i32.const 32) (i32.load (i32.const 20)))
            (call $out (i32.const 32) (i32.const 1))
            (call $consume (local.get $response) (i32.const 16))
            (if (i32.load (i32.const 16)) (then (return)))
            (local.set $request (i32.load (i32.const 20)))
            (call $drop (local.get $response))
            (loop $more
              (call $read (local.get $request) (i64.const 3) (i32.const 16))
              (call $out (i32.load (i32.const 20)) (i32.load (i32.const 24)))
              (br_if $more (i32.load (i32.const 28))))))"#,
        len = authority.len()
    )
}

/// Answers one request with itself: the first line, the header that the test sends, and the body.
async fn mirror() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.expect("a caller");
        let mut request = String::new();
        while !request.ends_with("ping") {
            let mut bytes = [0; 1024];
            let len = connection.read(&mut bytes).await.expect("a request");
            request.push_str(&String::from_utf8_lossy(&bytes[..len]));
        }
        let first = request.lines().next().unwrap_or_default();
        let asked = request.lines().find(|line| line.starts_with("x-asked")).unwrap_or_default();
        let body = format!("{first}; {asked}; ping");
        let head = format!("HTTP/1.1 202 Accepted\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        connection.write_all((head + &body).as_bytes()).await.expect("a caller that waits");
    });
    address
}

#[tokio::test]
async fn the_draft_of_http_reaches_hosts_that_are_granted() {
    let address = mirror().await;
    let engine = engine();
    let posts = command(&engine, &posts(&address), Limits::default()).await;
    assert!(posts.speaks_http());
    let run = |hosts: &[&str]| {
        let hosts = hosts.iter().map(|host| host.parse().expect("a host")).collect::<AllowedHosts>();
        let grants = Grants { hosts: Arc::new(hosts), ..Grants::default() };
        posts.run(Invocation { grants, ..Invocation::default() })
    };
    let denied = run(&["http://example.com"]).await.expect("runs");
    assert_eq!(denied.stdout, "\0\0", "no status and no header");
    let answered = run(&["http://127.0.0.1"]).await.expect("runs");
    assert_eq!(answered.stdout, "\x65\x02POST /path?query HTTP/1.1; x-asked: yes; ping");
}

#[tokio::test]
async fn nonsense_in_the_draft_of_http_is_a_trap_of_the_program() {
    for start in [
        "(drop (call $fields (i32.const 70000) (i32.const 1)))",
        "(drop (call $fields (i32.const 0) (i32.const -1)))",
        "(call $write (i32.const 7) (i32.const 0) (i32.const 1) (i32.const 16))",
        "(call $read (i32.const 7) (i64.const -1) (i32.const 16))",
        "(call $get (i32.const 0) (i32.const -1))",
    ] {
        let text = format!(
            r#"(module
              (import "types" "new-fields" (func $fields (param i32 i32) (result i32)))
              (import "types" "future-incoming-response-get" (func $get (param i32 i32)))
              (import "streams" "write" (func $write (param i32 i32 i32 i32)))
              (import "streams" "read" (func $read (param i32 i64 i32)))
              (import "default-outgoing-HTTP" "handle"
                (func $handle (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
              (memory (export "memory") 1)
              (func (export "_start") {start}))"#
        );
        let error = command(&engine(), &text, Limits::default()).await.run(Invocation::default()).await;
        assert!(matches!(error, Err(CallError::Host { .. })), "{start}: {error:?}");
    }
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
