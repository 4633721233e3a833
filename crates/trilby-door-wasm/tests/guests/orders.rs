//! The example: a storefront that calls two other guests, and one that is called by what they publish.

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use trilby_component::{Metadata, pubsub::Message};
use trilby_core::{
    AppChannel as _, Ctx,
    app::BindingEvent,
    pubsub::{BulkDelivery, BulkEntry, Delivery, Event, Outcome},
};
use trilby_door_wasm::WasmApp;

use crate::world::{World, call};

async fn shop(world: &World) -> Option<WasmApp> {
    world.start("inventory", "inventory").await?;
    world.start("orders", "orders").await?;
    world.start("storefront", "storefront").await
}

async fn order(storefront: &WasmApp, item: &str, quantity: u32) -> (u16, String) {
    let body = format!(r#"{{"item":"{item}","quantity":{quantity}}}"#);
    call(storefront, "POST", "/orders", body).await.expect("the storefront answers")
}

#[tokio::test]
async fn an_order_is_placed_and_found_again() {
    let world = World::new();
    let Some(storefront) = shop(&world).await else { return };
    let set = call(&storefront, "PUT", "/stock/tea", r#"{"quantity":3}"#).await.expect("answers");
    assert_eq!(set, (200, r#"{"quantity":3}"#.to_owned()));

    let (status, placed) = order(&storefront, "tea", 2).await;
    assert_eq!(status, 201, "{placed}");
    let placed: Value = serde_json::from_str(&placed).expect("JSON");
    let id = placed["id"].as_str().expect("an id").to_owned();

    let (status, found) = call(&storefront, "GET", &format!("/orders/{id}"), "").await.expect("answers");
    assert_eq!((status, serde_json::from_str(&found).ok()), (200, Some(placed)));
    let list = call(&storefront, "GET", "/orders", "").await.expect("answers");
    assert_eq!(list, (200, format!(r#"["{id}"]"#)));
    let left = call(&storefront, "GET", "/stock/tea", "").await.expect("answers");
    assert_eq!(left, (200, r#"{"quantity":1}"#.to_owned()));
}

#[tokio::test]
async fn what_is_not_in_stock_is_refused() {
    let world = World::new();
    let Some(storefront) = shop(&world).await else { return };
    assert_eq!(order(&storefront, "tea", 1).await, (409, "1 tea asked for and 0 left".to_owned()));
    assert_eq!(call(&storefront, "GET", "/orders", "").await.expect("answers"), (200, "[]".to_owned()));
}

#[tokio::test]
async fn a_made_up_order_id_is_refused() {
    let world = World::new();
    let Some(storefront) = shop(&world).await else { return };
    let (status, text) =
        call(&storefront, "GET", "/orders/0123456789abcdef-0123456789abcdef", "").await.expect("answers");
    assert_eq!((status, text.as_str()), (404, "this is not one of our order ids\n"));
    let (status, _) = call(&storefront, "POST", "/orders", "no JSON").await.expect("answers");
    assert_eq!(status, 400);
}

fn message(data: Bytes) -> Event {
    Event::from_message(&Message { data, ..Message::default() }, "pubsub", "t", false).expect("an event")
}

async fn deliver(billing: &WasmApp, event: &Event) -> Outcome {
    let metadata = Metadata::new();
    let delivery = Delivery { event, pubsub: "pubsub", topic: "order-placed", path: "", metadata: &metadata };
    billing.deliver(&Ctx::default(), &delivery).await.expect("handled")
}

#[tokio::test]
async fn an_order_is_billed_once_and_reported() {
    let world = World::new();
    let Some(storefront) = shop(&world).await else { return };
    let Some(billing) = world.start("billing", "billing").await else { return };
    call(&storefront, "PUT", "/stock/tea", r#"{"quantity":3}"#).await.expect("answers");
    let (_, placed) = order(&storefront, "tea", 2).await;
    let placed: Value = serde_json::from_str(&placed).expect("JSON");
    let path = format!("/invoices/{}", placed["id"].as_str().expect("an id"));
    assert_eq!(call(&storefront, "GET", &path, "").await.expect("answers").0, 404);

    let published = world.fakes.broker.take().remove(0);
    let event = message(published.data);
    assert_eq!((published.topic.as_str(), event.attribute("subject")), ("order-placed", Some("tea")));
    for _ in 0..2 {
        assert_eq!(deliver(&billing, &event).await, Outcome::Ack);
    }
    let (status, invoice) = call(&storefront, "GET", &path, "").await.expect("answers");
    let expect = json!({ "id": placed["id"], "item": "tea", "quantity": 2, "discount": 10, "cents": 180 });
    assert_eq!((status, serde_json::from_str(&invoice).ok()), (200, Some(expect)));

    report(&billing, &invoice).await;
    let (_, report) = call(&storefront, "GET", "/report", "").await.expect("answers");
    let expect = json!({ "time": "now", "invoices": 1, "cents": 180 });
    assert_eq!(serde_json::from_str::<Value>(&report).expect("JSON"), expect);
}

/// Tells billing twice of its invoice, then lets it be night.
async fn report(billing: &WasmApp, invoice: &str) {
    let data = json!({ "specversion": "1.0", "id": "1", "datacontenttype": "application/json",
        "data": serde_json::from_str::<Value>(invoice).expect("JSON") });
    let entry = |id: &str| BulkEntry {
        entry_id: id.into(),
        event: Ok(message(data.to_string().into())),
        content_type: "application/cloudevents+json".into(),
        metadata: Metadata::new(),
    };
    let (ctx, metadata) = (Ctx::default(), Metadata::new());
    let entries = [&entry("1"), &entry("2")];
    let delivery = BulkDelivery {
        id: "d",
        entries: &entries,
        pubsub: "pubsub",
        topic: "order-billed",
        path: "",
        metadata: &metadata,
    };
    assert_eq!(billing.deliver_bulk(&ctx, &delivery).await.expect("handled"), [Outcome::Ack; 2]);
    let metadata = [("readTimeUTC".to_owned(), "now".to_owned())].into();
    let night = BindingEvent {
        binding: "nightly-report",
        path: "/nightly-report",
        data: &Bytes::new(),
        content_type: None,
        metadata: &metadata,
    };
    billing.binding_event(&ctx, &night).await.expect("handled");
}

#[tokio::test]
async fn what_cannot_be_billed_is_dropped_to_the_dead_letters() {
    let world = World::new();
    let Some(billing) = world.start("billing", "billing").await else { return };
    for data in [json!("no order"), json!({ "id": "x", "item": "yacht", "quantity": 1_000_000 })] {
        let envelope = json!({ "specversion": "1.0", "id": "1", "datacontenttype": "application/json", "data": data });
        assert_eq!(deliver(&billing, &message(envelope.to_string().into())).await, Outcome::Drop, "{data}");
    }
}

#[tokio::test]
async fn an_order_that_cannot_be_published_is_not_kept() {
    let world = World::new();
    let Some(storefront) = shop(&world).await else { return };
    call(&storefront, "PUT", "/stock/tea", r#"{"quantity":3}"#).await.expect("answers");
    world.fakes.broker.fail(true);
    assert_eq!(order(&storefront, "tea", 2).await.0, 503);
    let list = call(&storefront, "GET", "/orders", "").await.expect("answers");
    assert_eq!(list, (200, "[]".to_owned()));
    let left = call(&storefront, "GET", "/stock/tea", "").await.expect("answers");
    assert_eq!(left, (200, r#"{"quantity":3}"#.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_orders_at_once_exactly_as_many_succeed_as_there_are_goods() {
    let world = World::new();
    let Some(storefront) = shop(&world).await else { return };
    call(&storefront, "PUT", "/stock/tea", r#"{"quantity":50}"#).await.expect("answers");
    let orders = (0..64).map(|_| {
        let storefront = storefront.clone();
        tokio::spawn(async move { order(&storefront, "tea", 1).await.0 })
    });
    let statuses: Vec<u16> = join_all(orders).await.into_iter().map(|status| status.expect("no panic")).collect();
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(409)), (50, 14), "{statuses:?}");
    let (_, list) = call(&storefront, "GET", "/orders", "").await.expect("answers");
    assert_eq!(serde_json::from_str::<Vec<String>>(&list).expect("a list").len(), 50);
}
