//! The orders that were placed. Called by the storefront, through the typed `service` interface.
//!
//! - `POST /orders` with an order that has an `id`: keeps it, and tells everybody by the topic `order-placed`.
//! - `GET /orders/{id}`: one order.
//! - `GET /orders`: the ids of the latest orders, the newest last.

use exports::trilby::dapr::service::{Guest, Request, Response};
use serde::{Deserialize, Serialize};
use trilby::dapr::{
    pubsub::{self, PublishOptions},
    state::{self, Concurrency, Operation, Removal, Write, WriteOptions},
    types::{Error, ErrorKind},
};

wit_bindgen::generate!({ world: "service-app", path: "../../../wit", generate_all });

const STORE: &str = "statestore";
const PUBSUB: &str = "pubsub";
const PLACED: &str = "order-placed";
/// One item that lists the orders.
const INDEX: &str = "orders";
/// It lists no more than this, so that it stays quick to write.
const LISTED: usize = 1000;

struct Orders;

export!(Orders);

#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
    item: String,
    quantity: u32,
}

impl Guest for Orders {
    fn call(request: Request) -> Response {
        let answer = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/orders") => place(&request.body),
            ("GET", "/orders") => list(),
            ("GET", path) if let Some(id) = path.strip_prefix("/orders/") => get(id),
            _ => Ok(text(404, "no such method")),
        };
        answer.unwrap_or_else(|error| text(503, &error.message))
    }
}

/// Writes the order down and publishes it. What cannot be published is not kept: nobody would ever bill it.
fn place(body: &[u8]) -> Result<Response, Error> {
    let Ok(order) = serde_json::from_slice::<Order>(body) else {
        return Ok(text(400, r#"the body must be {"id": ID, "item": NAME, "quantity": NUMBER}"#));
    };
    change_index(|ids| {
        ids.push(order.id.clone());
        upsert(key(&order.id), &order, None)
    })?;
    // What is left is a crash right here. A store with an outbox knows none: see `billing`.
    if let Err(error) = publish(&order) {
        change_index(|ids| {
            ids.retain(|id| *id != order.id);
            Operation::Delete(Removal { key: key(&order.id), options: None })
        })?;
        return Err(error);
    }
    Ok(json(201, &order))
}

/// Does something to an order and to the index, both or none. When two come at once the slower one finds the index
/// changed, and begins again with what is there now.
fn change_index(change: impl Fn(&mut Vec<String>) -> Operation) -> Result<(), Error> {
    loop {
        let (mut ids, etag) = index()?;
        let operation = change(&mut ids);
        ids.drain(..ids.len().saturating_sub(LISTED));
        let together = [operation, upsert(INDEX.into(), &ids, Some(Unchanged(etag)))];
        match state::transact(STORE, &together, &[]) {
            Err(error) if error.kind == ErrorKind::Conflict => continue,
            done => return done,
        }
    }
}

fn publish(order: &Order) -> Result<(), Error> {
    let options = PublishOptions {
        content_type: Some("application/json".into()),
        metadata: vec![("cloudevent.subject".into(), order.item.clone())],
    };
    pubsub::publish(PUBSUB, PLACED, &to_json(order), Some(&options))
}

fn get(id: &str) -> Result<Response, Error> {
    Ok(match state::get(STORE, &key(id), None)? {
        Some(found) => json_text(200, found.value),
        None => text(404, &format!("no order {id}")),
    })
}

fn list() -> Result<Response, Error> {
    Ok(json(200, &index()?.0))
}

/// The ids that are listed, and the version of the list.
fn index() -> Result<(Vec<String>, Option<String>), Error> {
    let Some(found) = state::get(STORE, INDEX, None)? else {
        return Ok((Vec::new(), None));
    };
    let ids = serde_json::from_slice(&found.value).map_err(|error| Error {
        kind: ErrorKind::Internal,
        code: "INDEX_UNREADABLE".into(),
        message: format!("the list of orders is not what this app wrote: {error}"),
    })?;
    Ok((ids, found.etag))
}

/// The version that an item must still have; none if it must not be there yet.
struct Unchanged(Option<String>);

fn upsert(key: String, value: &impl Serialize, condition: Option<Unchanged>) -> Operation {
    let concurrency = condition.is_some().then_some(Concurrency::FirstWrite);
    let options = WriteOptions {
        etag: condition.and_then(|Unchanged(etag)| etag),
        concurrency,
        consistency: None,
        ttl_seconds: None,
        content_type: Some("application/json".into()),
        metadata: Vec::new(),
    };
    Operation::Upsert(Write { key, value: to_json(value), options: Some(options) })
}

fn key(id: &str) -> String {
    format!("order-{id}")
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data is JSON")
}

fn json(status: u16, value: &impl Serialize) -> Response {
    json_text(status, to_json(value))
}

fn json_text(status: u16, body: Vec<u8>) -> Response {
    Response { status, headers: vec![("content-type".into(), "application/json".into())], body }
}

fn text(status: u16, message: &str) -> Response {
    Response { status, headers: Vec::new(), body: message.into() }
}
