//! From orders to invoices.

use serde::{Deserialize, Serialize};

use crate::{
    store,
    trilby::dapr::{
        configuration,
        state::{self, Operation, Write},
        types::Error,
    },
};

pub const CONFIGURATION: &str = "configstore";
/// Percent.
pub const DISCOUNT: &str = "discount";

/// A store with an outbox: what is written to it in a transaction is published too.
const LEDGER: &str = "ledger";
/// Cents for a piece of what has no price of its own (configuration `price-ITEM`).
const PRICE: u64 = 100;
/// Cents from which on a person has to look at it.
const TOO_MUCH: u64 = 1_000_000;

#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
    item: String,
    quantity: u32,
}

#[derive(Serialize, Deserialize)]
pub struct Invoice {
    pub id: String,
    item: String,
    quantity: u32,
    discount: u64,
    pub cents: u64,
}

/// What became of an order.
pub enum Verdict {
    Billed,
    /// Its price makes no sense; it may later.
    NotNow,
    /// Whatever happens, this app will not bill it.
    NotForUs,
}

/// Writes the invoice of an order, once, however often the order comes.
///
/// # Errors
/// A store failed.
pub fn bill(order: &[u8]) -> Result<Verdict, Error> {
    let Ok(order) = serde_json::from_slice::<Order>(order) else { return Ok(Verdict::NotForUs) };
    if get(&order.id)?.is_some() {
        return Ok(Verdict::Billed);
    }
    let Some((price, discount)) = price_and_discount(&order.item)? else { return Ok(Verdict::NotNow) };
    let cents = price.saturating_mul(order.quantity.into()) * (100 - discount) / 100;
    if cents >= TOO_MUCH {
        return Ok(Verdict::NotForUs);
    }
    let Order { id, item, quantity } = order;
    let key = key(&id);
    let value = store::to_json(&Invoice { id, item, quantity, discount, cents });
    let write = Write { key, value, options: Some(store::json_options()) };
    state::transact(LEDGER, &[Operation::Upsert(write)], &[])?;
    Ok(Verdict::Billed)
}

pub fn get(id: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(state::get(LEDGER, &key(id), None)?.map(|item| item.value))
}

/// Keeps what was not billed where people find it.
pub fn keep_unbilled(order: &[u8]) -> Result<(), Error> {
    match serde_json::from_slice::<Order>(order) {
        Ok(order) => store::save(&unbilled_key(&order.id), &order),
        Err(_) => store::save(&unbilled_key("unreadable"), &String::from_utf8_lossy(order)),
    }
}

pub fn get_unbilled(id: &str) -> Result<Option<Vec<u8>>, Error> {
    store::read(&unbilled_key(id))
}

/// Keeps the discount that was announced last.
pub fn note_discount(percent: &str) -> Result<(), Error> {
    store::save(DISCOUNT, &percent)
}

pub fn announced_discount() -> Result<Option<Vec<u8>>, Error> {
    store::read(DISCOUNT)
}

/// Cents for a piece, and percent, as configured at this moment; `None` if somebody configured what is no number.
fn price_and_discount(item: &str) -> Result<Option<(u64, u64)>, Error> {
    let price_key = format!("price-{item}");
    let found = configuration::get(CONFIGURATION, &[price_key.clone(), DISCOUNT.into()], &[])?;
    let number = |key: &str, default: u64| {
        found.iter().find(|setting| setting.key == key).map_or(Some(default), |setting| setting.value.parse().ok())
    };
    let discount = number(DISCOUNT, 0).filter(|percent| *percent <= 100);
    Ok(number(&price_key, PRICE).zip(discount))
}

fn key(id: &str) -> String {
    format!("invoice-{id}")
}

fn unbilled_key(id: &str) -> String {
    format!("unbilled-{id}")
}
