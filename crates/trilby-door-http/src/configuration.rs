//! The configuration API.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Serialize;
use trilby_component::{
    Metadata,
    configuration::{Item, Items},
};
use trilby_core::{Code, Response, Result};

use crate::codec::{self, Call};

#[derive(Serialize)]
struct Shown<'a> {
    value: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a Metadata,
}

impl<'a> From<&'a Item> for Shown<'a> {
    fn from(item: &'a Item) -> Self {
        Self { value: &item.value, version: &item.version, metadata: &item.metadata }
    }
}

#[derive(Serialize)]
struct Subscribed<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct Unsubscribed<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ok: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

/// `GET v1.0/configuration/{store}?key=…`
pub(crate) async fn get(call: &Call<'_>) -> Result<Response> {
    let (keys, metadata) = (keys(call), call.query.metadata());

    let items: Items = call.door.api.configuration.get(call.ctx, &call.store, &keys, &metadata).await?;

    if items.is_empty() {
        return Ok(codec::no_content());
    }
    let shown: BTreeMap<_, Shown<'_>> = items.iter().map(|(key, item)| (key, item.into())).collect();
    Ok(codec::json_line(&shown))
}

/// `GET v1.0/configuration/{store}/subscribe?key=…`
pub(crate) async fn subscribe(call: &Call<'_>) -> Result<Response> {
    let (keys, metadata) = (keys(call), call.query.metadata());

    let id = call.door.api.configuration.subscribe(call.ctx, &call.store, &keys, &metadata).await?;

    Ok(codec::json_line(&Subscribed { id: &id }))
}

/// `GET v1.0/configuration/{store}/{id}/unsubscribe`. Its failure has a shape of its own.
pub(crate) fn unsubscribe(call: &Call<'_>) -> Result<Response> {
    match call.door.api.configuration.unsubscribe(&call.store, &call.key) {
        Ok(()) => Ok(codec::json_line(&Unsubscribed { ok: true, message: "" })),
        Err(error) if error.code() == Code::ConfigurationUnsubscribe => {
            call.door.api.errors.record(error.code());
            let mut response = codec::json_line(&Unsubscribed { ok: false, message: error.message() });
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            Ok(response)
        }
        Err(error) => Err(error),
    }
}

fn keys(call: &Call<'_>) -> Vec<String> {
    call.query.all("key").map(std::borrow::Cow::into_owned).collect()
}
