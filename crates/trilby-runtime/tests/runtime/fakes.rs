//! Components that tell what they were opened with, in place of real ones.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use trilby_component::{
    CancellationToken, Catalog, ComponentError, ErrorKind, Metadata, OpenRequest, Properties, Result,
    catalog::Entry,
    pubsub::{self, PubSub, PublishRequest, Sink, SubscribeRequest, Subscription},
    secret::{Secret, SecretStore},
    state::{DeleteRequest, Feature, GetRequest, Item, SetRequest, StateStore},
};

/// How many stores were opened and closed.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) opened: AtomicUsize,
    pub(crate) closed: AtomicUsize,
}

impl Counts {
    pub(crate) fn get(&self) -> (usize, usize) {
        (self.opened.load(Ordering::SeqCst), self.closed.load(Ordering::SeqCst))
    }
}

/// A state store whose items are its own properties: reading `appid||host` gives the property `host`.
struct Mirror {
    properties: Properties,
    counts: Arc<Counts>,
}

#[async_trait]
impl StateStore for Mirror {
    fn features(&self) -> &[Feature] {
        &[Feature::Etag, Feature::Transactional]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        let name = request.key.rsplit("||").next().unwrap_or_default();
        let value = self.properties.get(name).map(str::to_owned);
        Ok(value.map(|value| Item { value: value.into(), etag: None, metadata: Metadata::new() }))
    }

    async fn set(&self, _: &SetRequest) -> Result<()> {
        Ok(())
    }

    async fn delete(&self, _: &DeleteRequest) -> Result<()> {
        Ok(())
    }

    async fn close(&self) {
        self.counts.closed.fetch_add(1, Ordering::SeqCst);
    }
}

/// Has one secret, `db`, with the keys `password`, `key` (of AES) and `empty`; needs the property `token` if it is
/// called `guarded`.
struct Vault;

#[async_trait]
impl SecretStore for Vault {
    async fn get(&self, name: &str, _: &Metadata) -> Result<Secret> {
        if name != "db" {
            return Err(ComponentError::new(ErrorKind::NotFound, format!("secret {name} not found")));
        }
        let pairs = [("password", "hunter2"), ("key", "00112233445566778899aabbccddeeff"), ("empty", "")];
        Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
    }

    async fn bulk_get(&self, _: &Metadata) -> Result<BTreeMap<String, Secret>> {
        Ok(BTreeMap::new())
    }
}

/// A broker that knows the consumer id that it was opened with: publishing to any other topic fails.
struct Post {
    properties: Properties,
    is_broadcast: bool,
}

#[async_trait]
impl PubSub for Post {
    fn features(&self) -> &[pubsub::Feature] {
        &[]
    }

    fn is_broadcast(&self) -> bool {
        self.is_broadcast
    }

    async fn publish(&self, request: &PublishRequest) -> Result<()> {
        match self.properties.get("consumerID") {
            Some(id) if id == request.topic => Ok(()),
            other => Err(ComponentError::new(ErrorKind::Internal, format!("consumer {other:?}"))),
        }
    }

    async fn subscribe(&self, _: &SubscribeRequest, _: Arc<dyn Sink>, _: CancellationToken) -> Result<Subscription> {
        Err(ComponentError::unsupported("nothing ever comes"))
    }
}

pub(crate) fn catalog(counts: &Arc<Counts>) -> Catalog {
    let entry = |type_name| Entry { type_name, version: "v1", about: "A fake" };
    let mut catalog = Catalog::new();
    let counts = Arc::clone(counts);
    catalog.state(entry("state.mirror"), move |request: OpenRequest| {
        let counts = Arc::clone(&counts);
        async move {
            counts.opened.fetch_add(1, Ordering::SeqCst);
            Ok(Arc::new(Mirror { properties: request.properties, counts }) as Arc<dyn StateStore>)
        }
    });
    catalog.state(entry("state.down"), async |_| {
        Err(ComponentError::new(ErrorKind::Unavailable, "cannot connect to 10.0.0.1:6379"))
    });
    catalog.state(entry("state.slow"), async |_| {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Err(ComponentError::new(ErrorKind::Internal, "nobody waits this long"))
    });
    for (type_name, is_broadcast) in [("pubsub.post", false), ("pubsub.broadcast", true)] {
        catalog.pubsub(entry(type_name), move |request: OpenRequest| async move {
            Ok(Arc::new(Post { properties: request.properties, is_broadcast }) as Arc<dyn PubSub>)
        });
    }
    catalog.secret(entry("secretstores.vault"), async |request: OpenRequest| match request.properties.get("token") {
        Some("hunter2") | None => Ok(Arc::new(Vault) as Arc<dyn SecretStore>),
        Some(_) => Err(ComponentError::metadata("metadata token: not accepted")),
    });
    catalog
}
