//! Handlers that misbehave: only their own message fails, in a way that it can be delivered again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use trilby_component::ErrorKind;
use trilby_core::pubsub::Outcome;
use trilby_door_wasm::WasmApp;

use crate::{
    handlers::deliver,
    world::{World, call},
};

async fn start(world: &World) -> Option<WasmApp> {
    let start = world.start_with("messages", "messages", |options| {
        options.limits.memory_bytes = 16 << 20;
        options.limits.call_timeout = Duration::from_millis(300);
        options.limits.max_concurrency = 2;
        options.limits.max_queue = 4;
    });
    start.await
}

#[tokio::test]
async fn each_misdeed_is_a_failed_delivery_and_the_next_message_is_handled() {
    let world = World::new();
    let Some(app) = start(&world).await else { return };
    let huge = "x".repeat(20 << 20);
    for (data, kind, expect) in [
        ("trap", ErrorKind::Internal, "guest trapped; see the log"),
        ("spin", ErrorKind::Timeout, "no answer within 300ms"),
        ("wait", ErrorKind::Timeout, "no answer within 300ms"),
        (huge.as_str(), ErrorKind::Internal, "guest ran out of memory"),
    ] {
        let name = &data[..4];
        let error = deliver(&app, "1", data).await.expect_err(name);
        assert!(error.kind == kind && error.message.contains(expect), "{name}: {error:?}");
        assert_eq!(deliver(&app, "2", "ack").await.expect("still there"), Outcome::Ack, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_is_served_while_handlers_spin_and_wait() {
    let world = World::new();
    let Some(app) = start(&world).await else { return };
    let Some(hello) = world.start("hello", "hello").await else { return };
    let stuck = ["spin", "wait"].map(|data| {
        let app = app.clone();
        tokio::spawn(async move { deliver(&app, data, data).await })
    });
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(call(&hello, "GET", "/", "").await.expect("answers").0, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    for delivery in stuck {
        delivery.await.expect("no panic").expect_err("too late");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_guest_can_take_is_refused_to_come_again() {
    let world = World::new();
    let Some(app) = start(&world).await else { return };
    let deliveries = (0..20).map(|number| {
        let app = app.clone();
        tokio::spawn(async move { deliver(&app, &number.to_string(), "wait").await })
    });
    let errors: Vec<_> =
        join_all(deliveries).await.into_iter().map(|done| done.expect("no panic").expect_err("waits")).collect();
    let refused = errors.iter().filter(|error| error.kind == ErrorKind::Unavailable).count();
    assert!(refused >= 14, "{errors:?}");
    assert_eq!(deliver(&app, "x", "ack").await.expect("still there"), Outcome::Ack);
}
