//! What is in stock. Called by other apps only, so it speaks no HTTP: it exports the typed `service` interface.
//!
//! - `GET /stock/{item}`: how many there are.
//! - `PUT /stock/{item}` with `{"quantity": 50}`: sets it.
//! - `POST /reserve` and `POST /release` with `{"item": "tea", "quantity": 2}`: takes some out, puts them back.

use exports::trilby::dapr::service::{Guest, Request, Response};
use serde::{Deserialize, Serialize};
use trilby::dapr::{
    state::{self, Concurrency, WriteOptions},
    types::{Error, ErrorKind},
};

wit_bindgen::generate!({ world: "service-app", path: "../../../wit", generate_all });

const STORE: &str = "statestore";

struct Inventory;

export!(Inventory);

#[derive(Serialize, Deserialize)]
struct Stock {
    quantity: u32,
}

#[derive(Deserialize)]
struct Order {
    item: String,
    quantity: u32,
}

impl Guest for Inventory {
    fn call(request: Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/reserve") => change(&request.body, |stock, quantity| stock.checked_sub(quantity)),
            ("POST", "/release") => change(&request.body, |stock, quantity| stock.checked_add(quantity)),
            ("PUT", path) if let Some(item) = path.strip_prefix("/stock/") => set(item, &request.body),
            ("GET", path) if let Some(item) = path.strip_prefix("/stock/") => get(item),
            _ => text(404, "no such method"),
        }
    }
}

fn get(item: &str) -> Response {
    match read(item) {
        Ok((stock, _)) => json(200, &stock),
        Err(error) => failed(&error),
    }
}

fn set(item: &str, body: &[u8]) -> Response {
    let Ok(stock) = serde_json::from_slice::<Stock>(body) else {
        return text(400, r#"the body must be {"quantity": NUMBER}"#);
    };
    match write(item, &stock, None) {
        Ok(()) => json(200, &stock),
        Err(error) => failed(&error),
    }
}

/// Reads the stock, changes it, and writes it back only if nobody else did meanwhile; else begins again. Somebody always
/// gets through, so this ends.
fn change(body: &[u8], by: fn(u32, u32) -> Option<u32>) -> Response {
    let Ok(order) = serde_json::from_slice::<Order>(body) else {
        return text(400, r#"the body must be {"item": NAME, "quantity": NUMBER}"#);
    };
    loop {
        let (stock, etag) = match read(&order.item) {
            Ok(found) => found,
            Err(error) => return failed(&error),
        };
        let Some(quantity) = by(stock.quantity, order.quantity) else {
            return text(409, &format!("{} {} asked for and {} left", order.quantity, order.item, stock.quantity));
        };
        let changed = Stock { quantity };
        let only_unchanged = WriteOptions { etag, concurrency: Some(Concurrency::FirstWrite), ..write_options() };
        match write(&order.item, &changed, Some(only_unchanged)) {
            Ok(()) => return json(200, &changed),
            Err(error) if error.kind == ErrorKind::Conflict => continue,
            Err(error) => return failed(&error),
        }
    }
}

/// The stock of an item and its version. What was never set has none.
fn read(item: &str) -> Result<(Stock, Option<String>), Error> {
    let Some(found) = state::get(STORE, &key(item), None)? else {
        return Ok((Stock { quantity: 0 }, None));
    };
    let stock = serde_json::from_slice(&found.value).map_err(|error| Error {
        kind: ErrorKind::Internal,
        code: "STOCK_UNREADABLE".into(),
        message: format!("the stock of {item} is not what this app wrote: {error}"),
    })?;
    Ok((stock, found.etag))
}

fn write(item: &str, stock: &Stock, options: Option<WriteOptions>) -> Result<(), Error> {
    let value = serde_json::to_vec(stock).expect("a number is JSON");
    state::save(STORE, &key(item), &value, Some(&options.unwrap_or_else(write_options)))
}

fn write_options() -> WriteOptions {
    WriteOptions {
        etag: None,
        concurrency: None,
        consistency: None,
        ttl_seconds: None,
        content_type: Some("application/json".into()),
        metadata: Vec::new(),
    }
}

fn key(item: &str) -> String {
    format!("stock-{item}")
}

fn json(status: u16, value: &impl Serialize) -> Response {
    let headers = vec![("content-type".into(), "application/json".into())];
    Response { status, headers, body: serde_json::to_vec(value).expect("plain data is JSON") }
}

fn text(status: u16, message: &str) -> Response {
    Response { status, headers: Vec::new(), body: message.into() }
}

fn failed(error: &Error) -> Response {
    text(if error.kind == ErrorKind::Invalid { 400 } else { 503 }, &error.message)
}
