//! Guests behind `wasi:http`: bodies, headers, and requests of their own.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;
use trilby_core::{AppChannel as _, Body, Ctx, Response, app};

use crate::world::{World, call, get};

#[tokio::test]
async fn a_small_answer_comes_in_one_piece() {
    let world = World::new();
    let Some(hello) = world.start("hello", "hello").await else { return };
    let response = hello.invoke(&Ctx::default(), get("/")).await.expect("answers");
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert!(matches!(response.body(), Body::Full(body) if body == "hello from a guest\n"));
    for _ in 0..100 {
        call(&hello, "GET", "/", "").await.expect("answers");
    }
    assert_eq!(hello.stats().started, 2, "one sees whether it starts, one serves them all");
}

#[tokio::test]
async fn bodies_are_streamed_both_ways() {
    let world = World::new();
    let Some(hostile) = world.start("hostile", "hostile").await else { return };
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let frames = futures_util::StreamExt::map(stream, |bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let request = http::Request::post("/echo").header("x-mark", "1").body(Body::stream(StreamBody::new(frames)));

    let ctx = Ctx::default();
    let calling = hostile.invoke(&ctx, request.expect("a request"));
    let mut response =
        tokio::time::timeout(Duration::from_secs(10), calling).await.expect("headers first").expect("ok");
    assert_eq!(response.headers()["x-mark"], "1");
    for part in ["one", "two", "three"] {
        sender.send(Bytes::from(part)).await.expect("the guest reads");
        let frame = response.body_mut().frame().await.expect("not over").expect("not broken");
        assert_eq!(frame.into_data().ok().as_deref(), Some(part.as_bytes()));
    }
    drop(sender);
    assert!(response.body_mut().frame().await.is_none());
    assert_eq!(hostile.stats().idle, 1, "its instance is well and can be used again");
}

#[tokio::test]
async fn a_large_body_passes_up_to_the_limit() {
    let world = World::new();
    let Some(hostile) = world.start_with("hostile", "hostile", |options| options.max_body_bytes = 3 << 20).await else {
        return;
    };
    let body = vec![b'x'; 3 << 20];
    let (status, echoed) = call(&hostile, "POST", "/echo", body.clone()).await.expect("fits");
    assert_eq!((status, echoed.len()), (200, body.len()));
    let error = call(&hostile, "GET", "/big-body", "").await.expect_err("64 MiB do not fit");
    assert!(error.message.contains("body is larger than the limit of 3145728 bytes"), "{error}");
    assert_eq!(call(&hostile, "GET", "/x", "").await.expect("still there").0, 200);
}

#[tokio::test]
async fn a_request_to_an_app_id_stays_in_the_process() {
    let world = World::new();
    let Some(hostile) = world.start("hostile", "hostile").await else { return };
    world.register(
        "closure",
        app::from_fn(|request| async move {
            let caller = request.headers()["dapr-caller-app-id"].to_str().expect("text").to_owned();
            Response::new(Body::from(format!("{} for {caller}", request.uri())))
        }),
    );
    for address in ["http://closure/a?b=c", "https://closure/a?b=c", "http://closure.dapr/a?b=c"] {
        let answer = call(&hostile, "GET", &format!("/fetch?{address}"), "").await.expect("answers");
        assert_eq!(answer, (200, "/a?b=c for hostile".to_owned()), "{address}");
    }
}

#[tokio::test]
async fn a_guest_may_call_itself_and_other_guests() {
    let world = World::new();
    let Some(hostile) = world.start("hostile", "hostile").await else { return };
    let Some(_) = world.start("hello", "hello").await else { return };
    let answer = call(&hostile, "GET", "/fetch?http://hello/", "").await.expect("answers");
    assert_eq!(answer, (200, "hello from a guest\n".to_owned()));
    let answer = call(&hostile, "GET", "/fetch?http://hostile/deep", "").await.expect("answers");
    assert_eq!(answer, (200, "/deep is well\n".to_owned()));
}

#[tokio::test]
async fn hosts_that_were_not_granted_are_denied() {
    let world = World::new();
    let Some(hostile) = world.start("hostile", "hostile").await else { return };
    for (address, expect) in [
        ("http://127.0.0.1:1/", "ErrorCode::HttpRequestDenied"),
        ("https://example.com/", "ErrorCode::HttpRequestDenied"),
        ("http://nobody/", "ErrorCode::DestinationNotFound"),
    ] {
        let (status, text) = call(&hostile, "GET", &format!("/fetch?{address}"), "").await.expect("answers");
        assert_eq!(status, 502);
        assert!(text.starts_with(expect), "{address}: {text}");
    }
}
