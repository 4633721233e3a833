//! Guests that misbehave: only their own call fails, with the reason named, and neighbours keep answering.

use std::time::{Duration, Instant};

use trilby_component::ErrorKind;
use trilby_door_wasm::{WasmApp, WasmAppOptions};

use crate::world::{World, call};

fn tight(options: &mut WasmAppOptions) {
    options.limits.memory_bytes = 32 << 20;
    options.limits.call_timeout = Duration::from_millis(500);
    options.max_body_bytes = 1 << 20;
}

async fn start(world: &World) -> Option<WasmApp> {
    world.start_with("hostile", "hostile", tight).await
}

async fn check_well(app: &WasmApp) {
    assert_eq!(call(app, "GET", "/x", "").await.expect("still there"), (200, "/x is well\n".to_owned()));
}

#[tokio::test]
async fn each_misdeed_fails_its_own_call_with_its_own_reason() {
    let world = World::new();
    let Some(hostile) = start(&world).await else { return };
    for (path, kind, expect) in [
        ("/alloc", ErrorKind::Internal, "guest ran out of memory"),
        ("/trap", ErrorKind::Internal, "guest trapped; see the log"),
        ("/recurse", ErrorKind::Internal, "guest ran out of stack"),
        ("/exit", ErrorKind::Internal, "guest exited with code 1 instead of answering"),
        ("/spin", ErrorKind::Timeout, "no answer within 500ms"),
        ("/stdout", ErrorKind::Timeout, "no answer within 500ms"),
        ("/logs", ErrorKind::Timeout, "no answer within 500ms"),
        ("/no-answer", ErrorKind::Internal, "guest's answer is invalid: it returned without one"),
        ("/fail", ErrorKind::Internal, "guest's answer is invalid: an error instead of a response"),
        ("/short-body", ErrorKind::Internal, "guest's answer is invalid: its body broke off"),
        ("/trap-in-body", ErrorKind::Internal, "guest trapped; see the log"),
        ("/big-body", ErrorKind::Internal, "body is larger than the limit of 1048576 bytes"),
        ("/endless-body", ErrorKind::Internal, "body is larger than the limit of 1048576 bytes"),
    ] {
        let error = call(&hostile, "GET", path, "").await.expect_err(path);
        assert!(error.message.contains(expect), "{path}: {error}");
        assert_eq!(error.kind, kind, "{path}: {error}");
        check_well(&hostile).await;
    }
}

#[tokio::test]
async fn headers_and_statuses_that_are_none_are_refused_one_by_one() {
    let world = World::new();
    let Some(hostile) = start(&world).await else { return };
    let (_, report) = call(&hostile, "GET", "/bad-headers", "").await.expect("answers");
    assert_eq!(report.lines().count(), 5);
    for line in report.lines() {
        assert!(line.contains("Some(HeaderError::"), "{line}");
    }
    assert_eq!(call(&hostile, "GET", "/bad-status", "").await.expect("answers").1, "refused\n");
}

#[tokio::test]
async fn what_a_guest_leaks_in_the_host_ends_with_its_instance() {
    let world = World::new();
    let start = world.start_with("hostile", "hostile", |options| options.limits.resources = 2500);
    let Some(hostile) = start.await else { return };
    assert_eq!(call(&hostile, "GET", "/leak", "").await.expect("there is room").0, 200);
    assert_eq!(call(&hostile, "GET", "/leak", "").await.expect("there is room").0, 200);
    let error = call(&hostile, "GET", "/leak", "").await.expect_err("it is full");
    assert_eq!(error.message, "guest failed; see the log");
    assert_eq!(call(&hostile, "GET", "/leak", "").await.expect("a new instance").0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_hurt_nobody_else() {
    let world = World::new();
    let Some(hostile) = start(&world).await else { return };
    let Some(hello) = world.start("hello", "hello").await else { return };
    // Either the host has no more room for it, or all were taken and dropped: both are fine.
    let _ = call(&hostile, "GET", "/requests?hello", "").await;
    assert_eq!(call(&hello, "GET", "/", "").await.expect("answers").0, 200);
    check_well(&hostile).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_and_timers_go_on_while_guests_spin() {
    let world = World::new();
    let start = world.start_with("hostile", "hostile", |options| {
        options.limits.call_timeout = Duration::from_secs(3);
    });
    let Some(hostile) = start.await else { return };
    let Some(hello) = world.start("hello", "hello").await else { return };
    let spinning: Vec<_> = (0..8)
        .map(|_| {
            let hostile = hostile.clone();
            tokio::spawn(async move { call(&hostile, "GET", "/spin", "").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;

    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        call(&hello, "GET", "/", "").await.expect("a neighbour answers");
        slowest = slowest.max(began.elapsed());
    }
    // A stalled worker would cost the whole three seconds. The rest is left to machines that have other things to do.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    for call in spinning {
        let error = call.await.expect("no panic").expect_err("it spins");
        assert_eq!(error.kind, ErrorKind::Timeout);
    }
}

#[tokio::test]
async fn endless_output_is_bounded() {
    let world = World::new();
    let Some(hostile) = start(&world).await else { return };
    for path in ["/stdout", "/logs"] {
        call(&hostile, "GET", path, "").await.expect_err("it never ends");
        let lines = world.lines.take().len();
        assert!((1..10_000).contains(&lines), "{path}: {lines}");
    }
}

#[tokio::test]
async fn too_many_calls_at_once_are_turned_away() {
    let world = World::new();
    let start = world.start_with("hostile", "hostile", |options| {
        tight(options);
        options.limits.max_concurrency = 1;
        options.limits.max_queue = 0;
    });
    let Some(hostile) = start.await else { return };
    let (first, second) = tokio::join!(call(&hostile, "GET", "/spin", ""), async {
        tokio::task::yield_now().await;
        call(&hostile, "GET", "/x", "").await
    });
    assert_eq!(first.expect_err("it spins").kind, ErrorKind::Timeout);
    let error = second.expect_err("there is no room");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.starts_with("too many concurrent calls: 1 are running"), "{error}");
}
