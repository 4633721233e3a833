//! Guests of WASI 0.3.

use trilby_component::ErrorKind;
use trilby_core::Body;
use trilby_door_wasm::Entry;

use crate::world::{World, call};

#[tokio::test]
async fn an_async_guest_is_an_app_like_any_other() {
    let world = World::new();
    let Some(guest) = world.start("http-async", "http-async").await else { return };
    assert_eq!(guest.report().entry, Some(Entry::HttpAsync));
    for _ in 0..50 {
        assert_eq!(call(&guest, "GET", "/x", "").await.expect("answers"), (200, "/x is well\n".to_owned()));
    }
    assert_eq!(guest.stats().started, 2, "one sees whether it starts, one serves them all");
}

#[tokio::test]
async fn an_async_guest_uses_the_blocks() {
    let world = World::new();
    let Some(guest) = world.start("http-async", "http-async").await else { return };
    for expect in ["1", "2", "3"] {
        assert_eq!(call(&guest, "GET", "/visits", "").await.expect("answers"), (200, expect.to_owned()));
    }
}

#[tokio::test]
async fn an_async_guest_streams() {
    let world = World::new();
    let Some(guest) = world.start("http-async", "http-async").await else { return };
    let body = vec![b'x'; 3 << 20];
    let (status, echoed) =
        call(&guest, "POST", "/echo", Body::stream(Body::from(body.clone()))).await.expect("answers");
    assert_eq!((status, echoed.len()), (200, body.len()));
}

#[tokio::test]
async fn an_async_guest_that_traps_fails_its_own_call() {
    let world = World::new();
    let Some(guest) = world.start("http-async", "http-async").await else { return };
    let error = call(&guest, "GET", "/trap", "").await.expect_err("it traps");
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Internal, "guest trapped; see the log"));
    assert_eq!(call(&guest, "GET", "/x", "").await.expect("answers").0, 200);
}
