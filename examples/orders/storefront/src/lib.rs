//! The shop's front door: plain HTTP for the world, calls to the other apps behind it.
//!
//! - `PUT /stock/{item}` with `{"quantity": 50}`, `GET /stock/{item}`
//! - `POST /orders` with `{"item": "tea", "quantity": 2}`: 201 with the order, or 409 when there is not enough left
//! - `GET /orders/{id}`, `GET /orders`
//! - `GET /invoices/{id}`, `GET /unbilled/{id}`, `GET /discount`, `GET /report`: what billing made of it

mod order_id;

use serde::{Deserialize, Serialize};
use trilby::dapr::{
    invoke,
    types::{self, ErrorKind},
};
use wstd::http::{Body, Error, Method, Request, Response, StatusCode, body::Bytes};

wit_bindgen::generate!({ world: "imports", path: "../../../wit", generate_all });

const INVENTORY: &str = "inventory";
const ORDERS: &str = "orders";
const BILLING: &str = "billing";

#[derive(Deserialize, Serialize)]
struct Wish {
    item: String,
    quantity: u32,
}

#[derive(Serialize)]
struct Order<'a> {
    id: &'a str,
    #[serde(flatten)]
    wish: &'a Wish,
}

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>, Error> {
    let body = request.body_mut().bytes_contents().await?;
    let path = request.uri().path().to_owned();
    let answer = match (request.method(), path.as_str()) {
        (&Method::POST, "/orders") => place(&body),
        (&Method::GET, "/orders") => call(ORDERS, "GET", "/orders", &[]).map(pass_on),
        (&Method::GET, path) if let Some(id) = path.strip_prefix("/orders/") => find(id),
        (&Method::GET, path) if path.starts_with("/stock/") => call(INVENTORY, "GET", path, &[]).map(pass_on),
        (&Method::GET, path) if is_for_billing(path) => call(BILLING, "GET", path, &[]).map(pass_on),
        (&Method::PUT, path) if path.starts_with("/stock/") => call(INVENTORY, "PUT", path, &body).map(pass_on),
        _ => Ok(answer(StatusCode::NOT_FOUND, "there is nothing here\n")),
    };
    Ok(answer.unwrap_or_else(|error| failed(&error)))
}

/// Takes the goods out of stock, then writes the order down. If that fails the goods go back.
fn place(body: &Bytes) -> Result<Response<Body>, types::Error> {
    let Ok(wish) = serde_json::from_slice::<Wish>(body) else {
        return Ok(answer(StatusCode::BAD_REQUEST, "the body must be {\"item\": NAME, \"quantity\": NUMBER}\n"));
    };
    let id = order_id::new()?;

    let reserved = call(INVENTORY, "POST", "/reserve", &json(&wish))?;
    if reserved.status != 200 {
        return Ok(pass_on(reserved));
    }
    match call(ORDERS, "POST", "/orders", &json(&Order { id: &id, wish: &wish })) {
        Ok(placed) if placed.status == 201 => Ok(pass_on(placed)),
        not_placed => {
            call(INVENTORY, "POST", "/release", &json(&wish))?;
            not_placed.map(pass_on)
        }
    }
}

fn is_for_billing(path: &str) -> bool {
    matches!(path, "/discount" | "/report") || path.starts_with("/invoices/") || path.starts_with("/unbilled/")
}

/// An order, if the id is one that this shop gave out: no other is even looked for.
fn find(id: &str) -> Result<Response<Body>, types::Error> {
    if !order_id::is_ours(id)? {
        return Ok(answer(StatusCode::NOT_FOUND, "this is not one of our order ids\n"));
    }
    call(ORDERS, "GET", &format!("/orders/{id}"), &[]).map(pass_on)
}

/// Calls an app that runs beside this one; the call does not leave the process.
fn call(app_id: &str, method: &str, path: &str, body: &[u8]) -> Result<types::Response, types::Error> {
    invoke::call(
        app_id,
        &types::Request {
            method: method.into(),
            path: path.into(),
            query: String::new(),
            headers: Vec::new(),
            body: body.to_vec(),
        },
    )
}

/// Gives the caller what another app answered.
fn pass_on(from: types::Response) -> Response<Body> {
    let mut response = Response::new(from.body.into());
    *response.status_mut() = StatusCode::from_u16(from.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in from.headers.iter().filter(|(name, _)| name == "content-type") {
        if let (Ok(name), Ok(value)) = (name.parse::<wstd::http::HeaderName>(), value.parse()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn answer(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(message.into());
    *response.status_mut() = status;
    response
}

fn failed(error: &types::Error) -> Response<Body> {
    let status = match error.kind {
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    answer(status, &format!("{}: {}\n", error.code, error.message))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data is JSON")
}
