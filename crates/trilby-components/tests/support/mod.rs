//! What the tests of stores with a server share: opening, requests in short, and a proxy that can fail.
#![allow(dead_code, reason = "each test file is a crate of its own and uses a part of this")]

pub(crate) mod broker;
pub(crate) mod changes;
// TLS for servers comes with this feature.
#[cfg(feature = "mqtt")]
pub(crate) mod https;
pub(crate) mod inbox;
pub(crate) mod proxy;
#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::time::sleep;
use trilby_component::{
    Metadata, OpenRequest, Result,
    state::{
        Concurrency, DeleteRequest, GetRequest, Item, Operation, SetRequest, StateStore, TTL_IN_SECONDS, Value,
        WriteOptions,
    },
};
use uuid::Uuid;

/// The server to test against, or a line that says what was not run.
pub(crate) fn server(component: &str, variable: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "whoever runs the tests says in this way where the servers are")]
    let found = std::env::var(variable).ok();
    if found.is_none() {
        eprintln!("NOT RUN {component}: {variable} is not set");
    }
    found
}

/// Opens a component as the runtime does.
pub(crate) async fn open(type_name: &str, version: &str, properties: &[(&str, &str)]) -> Result<Arc<dyn StateStore>> {
    trilby_components::builtins().open_state(type_name, version, request(properties)).await
}

/// What the runtime opens a component with.
pub(crate) fn request(properties: &[(&str, &str)]) -> OpenRequest {
    OpenRequest { name: "test".to_owned(), properties: properties.iter().copied().collect() }
}

/// A text that no other test uses, for names of keys and tables.
pub(crate) fn unique() -> String {
    format!("t{}", Uuid::new_v4().simple())
}

/// Tries until it works.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn json(text: &str) -> Value {
    Value::Json(Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn raw(bytes: &[u8]) -> Value {
    Value::Bytes(Bytes::copy_from_slice(bytes))
}

pub(crate) fn get(key: &str) -> GetRequest {
    GetRequest { key: key.to_owned(), ..GetRequest::default() }
}

pub(crate) fn set(key: &str, value: Value) -> SetRequest {
    SetRequest { key: key.to_owned(), value, etag: None, options: WriteOptions::default(), metadata: Metadata::new() }
}

pub(crate) fn delete(key: &str) -> DeleteRequest {
    DeleteRequest { key: key.to_owned(), ..DeleteRequest::default() }
}

/// The etag, mode and life of a write, added to it one by one.
pub(crate) trait With: Sized {
    fn parts(&mut self) -> (&mut Option<String>, &mut WriteOptions, &mut Metadata);

    #[must_use]
    fn etag(mut self, etag: &str) -> Self {
        *self.parts().0 = Some(etag.to_owned());
        self
    }

    #[must_use]
    fn first_write(mut self) -> Self {
        self.parts().1.concurrency = Concurrency::FirstWrite;
        self
    }

    #[must_use]
    fn last_write(mut self) -> Self {
        self.parts().1.concurrency = Concurrency::LastWrite;
        self
    }

    #[must_use]
    fn ttl(self, seconds: &str) -> Self {
        self.metadata(TTL_IN_SECONDS, seconds)
    }

    #[must_use]
    fn metadata(mut self, name: &str, value: &str) -> Self {
        self.parts().2.insert(name.to_owned(), value.to_owned());
        self
    }
}

impl With for SetRequest {
    fn parts(&mut self) -> (&mut Option<String>, &mut WriteOptions, &mut Metadata) {
        (&mut self.etag, &mut self.options, &mut self.metadata)
    }
}

impl With for DeleteRequest {
    fn parts(&mut self) -> (&mut Option<String>, &mut WriteOptions, &mut Metadata) {
        (&mut self.etag, &mut self.options, &mut self.metadata)
    }
}

/// A transaction without metadata.
pub(crate) async fn transact(store: &dyn StateStore, operations: Vec<Operation>) -> Result<()> {
    store.transact(&operations, &Metadata::new()).await
}

pub(crate) async fn read(store: &dyn StateStore, key: &str) -> Option<Item> {
    store.get(&get(key)).await.unwrap_or_else(|error| panic!("reading {key}: {error}"))
}

/// The item's value as text, for items that must be there.
pub(crate) async fn text(store: &dyn StateStore, key: &str) -> String {
    let item = read(store, key).await.unwrap_or_else(|| panic!("{key} is missing"));
    String::from_utf8_lossy(&item.value).into_owned()
}

pub(crate) async fn etag(store: &dyn StateStore, key: &str) -> String {
    let item = read(store, key).await.unwrap_or_else(|| panic!("{key} is missing"));
    item.etag.unwrap_or_else(|| panic!("{key} has no etag"))
}
