//! The example: a storefront that calls two other guests.

use futures_util::future::join_all;
use serde_json::Value;
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
