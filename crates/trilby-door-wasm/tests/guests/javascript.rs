//! A guest in a second language: `fixtures/guests-js/counter`.

use futures_util::future::join_all;

use trilby_core::{AppChannel as _, Ctx, pubsub::Outcome};

use crate::{
    handlers::deliver,
    world::{World, call},
};

#[tokio::test]
async fn a_javascript_guest_keeps_state() {
    let world = World::new();
    let Some(counter) = world.start("counter", "counter").await else { return };
    for expect in 1..=3 {
        let answer = call(&counter, "POST", "/visits", "").await.expect("answers");
        assert_eq!(answer, (200, format!("counter has counted {expect}\n")));
    }
    let answer = call(&counter, "GET", "/visits", "").await.expect("answers");
    assert_eq!(answer, (200, "counter has counted 3\n".to_owned()));
    assert_eq!(call(&counter, "PUT", "/visits", "").await.expect("answers").0, 405);
}

#[tokio::test]
async fn a_javascript_guest_handles_messages() {
    let world = World::new();
    let Some(counter) = world.start("counter", "counter").await else { return };
    let asked = counter.subscriptions(&Ctx::default()).await.expect("answers");
    assert_eq!((asked.len(), asked[0].topic.as_str()), (1, "count"));
    assert_eq!(deliver(&counter, "1", "visits").await.expect("handled"), Outcome::Ack);
    assert_eq!(deliver(&counter, "2", "").await.expect("handled"), Outcome::Drop);
    let answer = call(&counter, "GET", "/visits", "").await.expect("answers");
    assert_eq!(answer, (200, "counter has counted 1\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_javascript_guest_sees_conflicts_as_such() {
    let world = World::new();
    let Some(counter) = world.start("counter", "counter").await else { return };
    let calls = (0..8).map(|_| {
        let counter = counter.clone();
        tokio::spawn(async move { call(&counter, "POST", "/visits", "").await })
    });
    for answer in join_all(calls).await {
        assert_eq!(answer.expect("no panic").expect("answers").0, 200);
    }
    let (_, text) = call(&counter, "GET", "/visits", "").await.expect("answers");
    assert_eq!(text, "counter has counted 8\n");
}
