//! Bills the orders that are placed. Nobody calls it for that: it handles the messages of the topic `order-placed`.
//!
//! - A bill that cannot be written now, or whose price makes no sense, is a `retry`, by the policy in
//!   `resources/resiliency.yaml`. What fails for good, and what is too much for a machine to decide, goes to the topic
//!   `order-unbilled`, which it keeps for people to look at.
//! - An invoice is written through the outbox of the store `ledger`, so that it is there if, and only if,
//!   `order-billed` says so. The totals are made of those messages, many at a time.
//! - Prices and the discount are configuration: they may change while this runs, and it is told when the discount does.
//! - Every night a clock asks for the report.
//!
//! `GET /invoices/{id}`, `GET /unbilled/{id}`, `GET /discount` and `GET /report` are for the storefront.

mod handlers;
mod invoices;
mod store;
mod totals;

use exports::trilby::dapr::service::{Guest, Request, Response};
use trilby::dapr::types::Error;

wit_bindgen::generate!({
    inline: "
        package example:orders;

        world billing {
            include trilby:dapr/service-app@0.2.0;
            include trilby:dapr/subscriber-app@0.2.0;
            include trilby:dapr/bulk-subscriber-app@0.2.0;
            include trilby:dapr/input-binding-app@0.2.0;
            include trilby:dapr/configuration-watcher-app@0.2.0;
        }
    ",
    world: "example:orders/billing",
    path: "../../../wit",
    generate_all,
});

struct Billing;

export!(Billing);

impl Guest for Billing {
    fn call(request: Request) -> Response {
        let found = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/discount") => invoices::announced_discount(),
            ("GET", "/report") => totals::report(),
            ("GET", path) if let Some(id) = path.strip_prefix("/invoices/") => invoices::get(id),
            ("GET", path) if let Some(id) = path.strip_prefix("/unbilled/") => invoices::get_unbilled(id),
            _ => Ok(None),
        };
        answer(found)
    }
}

fn answer(found: Result<Option<Vec<u8>>, Error>) -> Response {
    let (status, content_type, body) = match found {
        Ok(Some(json)) => (200, "application/json", json),
        Ok(None) => (404, "text/plain", b"there is nothing here\n".to_vec()),
        Err(error) => (503, "text/plain", error.message.into_bytes()),
    };
    Response { status, headers: vec![("content-type".into(), content_type.into())], body }
}
