//! JSON in this app's own state.

use serde::{Serialize, de::DeserializeOwned};

use crate::trilby::dapr::{
    state::{self, Concurrency, WriteOptions},
    types::Error,
};

const STORE: &str = "statestore";

pub fn read(key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(state::get(STORE, key, None)?.map(|item| item.value))
}

/// A value and its version; the default, and none, if there is no such value.
pub fn read_versioned<T: Default + DeserializeOwned>(key: &str) -> Result<(T, Option<String>), Error> {
    let Some(item) = state::get(STORE, key, None)? else { return Ok((T::default(), None)) };
    Ok((serde_json::from_slice(&item.value).unwrap_or_default(), item.etag))
}

pub fn save(key: &str, value: &impl Serialize) -> Result<(), Error> {
    state::save(STORE, key, &to_json(value), Some(&json_options()))
}

/// Writes only if the value still has this version; if there is none, only if nobody wrote it meanwhile.
pub fn save_unchanged(key: &str, value: &impl Serialize, etag: Option<String>) -> Result<(), Error> {
    let options = WriteOptions { etag, concurrency: Some(Concurrency::FirstWrite), ..json_options() };
    state::save(STORE, key, &to_json(value), Some(&options))
}

pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data is JSON")
}

pub fn json_options() -> WriteOptions {
    WriteOptions {
        etag: None,
        concurrency: None,
        consistency: None,
        ttl_seconds: None,
        content_type: Some("application/json".into()),
        metadata: Vec::new(),
    }
}
