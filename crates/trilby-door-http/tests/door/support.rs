//! An app's blocks over stores that live in these tests.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, Result,
    json::Style,
    secret::{Secret, SecretStore},
    state::{
        BulkError, Concurrency, DeleteRequest, Feature, GetRequest, Item, Operation, SetRequest, StateStore,
        TTL_EXPIRE_TIME, TTL_IN_SECONDS,
    },
};
use trilby_core::{
    Api, AppChannel, Blocks, Body, ChannelError, Identity, Request, Response, Wiring,
    health::Health,
    invoke::{HttpClient, InvokeApi, NameResolver},
    metadata::{AppConnection, Component, Facts, MetadataApi},
    metrics::Metrics,
    resiliency::Policies,
    secrets::{Scope, SecretComponent, SecretsApi},
    state::{KeyPrefix, StateApi, StateComponent},
};
use trilby_door_http::{HttpDoor, Options};

type Items = (u64, BTreeMap<String, Item>);

/// A state store in memory. Its etags count writes.
#[derive(Default)]
pub(crate) struct Store {
    items: Mutex<Items>,
    transactional: bool,
}

fn check(items: &Items, key: &str, etag: Option<&String>, concurrency: &Concurrency) -> Result<()> {
    let current = items.1.get(key).and_then(|item| item.etag.as_ref());
    match (etag.filter(|etag| !etag.is_empty()), current) {
        (Some(given), Some(current)) if given == current => Ok(()),
        (Some(_), _) => Err(ComponentError::etag_mismatch(format!("key={key}"))),
        (None, Some(_)) if *concurrency == Concurrency::FirstWrite => Err(ComponentError::etag_mismatch("exists")),
        _ => Ok(()),
    }
}

fn set(items: &mut Items, request: &SetRequest) -> Result<()> {
    check(items, &request.key, request.etag.as_ref(), &request.options.concurrency)?;
    items.0 += 1;
    let ttl = request.metadata.get(TTL_IN_SECONDS).map(|seconds| (TTL_EXPIRE_TIME.to_owned(), format!("in {seconds}")));
    let value = request.value.encode(Style::Standard)?;
    let item = Item { value, etag: Some(items.0.to_string()), metadata: ttl.into_iter().collect() };
    items.1.insert(request.key.clone(), item);
    Ok(())
}

fn delete(items: &mut Items, request: &DeleteRequest) -> Result<()> {
    check(items, &request.key, request.etag.as_ref(), &request.options.concurrency)?;
    items.1.remove(&request.key);
    Ok(())
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Items> {
        self.items.lock().expect("no test panics while it holds this")
    }

    /// Puts bytes into the store that no HTTP caller could have saved.
    pub(crate) fn put_raw(&self, key: &str, value: &'static [u8]) {
        let item = Item { value: Bytes::from_static(value), etag: Some("raw".into()), metadata: Metadata::new() };
        self.lock().1.insert(key.to_owned(), item);
    }
}

#[async_trait]
impl StateStore for Store {
    fn features(&self) -> &[Feature] {
        if self.transactional { &[Feature::Etag, Feature::Transactional, Feature::Ttl] } else { &[Feature::Etag] }
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        if request.key.ends_with("broken") {
            return Err(ComponentError::new(ErrorKind::Unavailable, "the store is <down>"));
        }
        Ok(self.lock().1.get(&request.key).cloned())
    }

    async fn set(&self, request: &SetRequest) -> Result<()> {
        set(&mut self.lock(), request)
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        delete(&mut self.lock(), request)
    }

    async fn bulk_set(&self, requests: &[SetRequest]) -> Result<(), BulkError> {
        for request in requests {
            self.set(request).await?;
        }
        Ok(())
    }

    async fn transact(&self, operations: &[Operation], _: &Metadata) -> Result<()> {
        let mut items = self.lock();
        let mut changed = items.clone();
        for operation in operations {
            match operation {
                Operation::Upsert(item) => set(&mut changed, item)?,
                Operation::Delete(request) => delete(&mut changed, request)?,
            }
        }
        *items = changed;
        Ok(())
    }
}

struct Secrets;

#[async_trait]
impl SecretStore for Secrets {
    async fn get(&self, name: &str, _: &Metadata) -> Result<Secret> {
        match name {
            "plain" => Ok([("plain".to_owned(), "p".to_owned())].into()),
            _ => Err(ComponentError::new(ErrorKind::NotFound, format!("secret {name} not found"))),
        }
    }

    async fn bulk_get(&self, _: &Metadata) -> Result<BTreeMap<String, Secret>> {
        let secret = |name: &str, value: &str| (name.to_owned(), [(name.to_owned(), value.to_owned())].into());
        Ok([secret("enc", "<&>"), secret("plain", "p")].into())
    }
}

struct Apps(HashMap<String, Arc<dyn AppChannel>>);

#[async_trait]
impl NameResolver for Apps {
    async fn resolve(&self, id: &str, _: Option<&str>) -> Result<Option<Arc<dyn AppChannel>>, ChannelError> {
        Ok(self.0.get(id).cloned())
    }
}

/// What a test may want to be different.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) options: Options,
    /// Reached by every app id but `noapp`.
    pub(crate) app: Option<Arc<dyn AppChannel>>,
    pub(crate) client: Option<Arc<dyn HttpClient>>,
    pub(crate) no_stores: bool,
}

/// A door to the blocks of app `myapp`: state stores `mem` and `plain` (without transactions), secret store `sec`.
pub(crate) fn door(setup: Setup) -> (HttpDoor, Arc<Store>) {
    let (api, store) = api(setup.app, setup.client, !setup.no_stores);
    (HttpDoor::new(api, setup.options), store)
}

pub(crate) fn api(
    app: Option<Arc<dyn AppChannel>>,
    client: Option<Arc<dyn HttpClient>>,
    stores: bool,
) -> (Api, Arc<Store>) {
    let identity = Identity::new("myapp");
    let metrics = Metrics::default();
    let store = Arc::new(Store { transactional: true, ..Store::default() });
    let state = |name: &str, store: Arc<Store>| StateComponent {
        name: name.to_owned(),
        store,
        key_prefix: KeyPrefix::AppId,
        encryption: None,
    };
    let states = [state("mem", Arc::clone(&store)), state("plain", Arc::default())];
    let scope = Scope { denied: vec!["enc".to_owned()], ..Scope::default() };
    let secrets = SecretComponent { name: "sec".to_owned(), store: Arc::new(Secrets), scope };
    let apps = app.map(|app| ["myapp", "other"].map(|id| (id.to_owned(), Arc::clone(&app)))).into_iter().flatten();
    let health = Health::default();
    health.set_outbound_ready(true);
    let wiring = Wiring { app: &identity, metrics: &metrics, policies: &Policies::default() };
    let api = Api::new(Blocks {
        state: StateApi::new(&wiring, states.into_iter().filter(|_| stores)),
        secrets: SecretsApi::new(&wiring, Some(secrets).filter(|_| stores)),
        invoke: InvokeApi::new(identity.clone(), Arc::new(Apps(apps.collect())), HashMap::new(), client),
        metadata: MetadataApi::new(facts(stores)),
        health,
        ..Blocks::empty(identity)
    });
    (api, store)
}

fn facts(stores: bool) -> Facts {
    let component = Component {
        name: "mem".to_owned(),
        type_name: "state.in-memory".to_owned(),
        version: "v1".to_owned(),
        capabilities: vec!["ETAG", "TRANSACTIONAL"],
    };
    Facts {
        runtime_version: "edge".to_owned(),
        enabled_features: vec!["HotReload".to_owned()],
        components: Some(component).filter(|_| stores).into_iter().collect(),
        app_connection: AppConnection {
            protocol: "http".to_owned(),
            channel_address: "127.0.0.1".to_owned(),
            ..AppConnection::default()
        },
        ..Facts::default()
    }
}

/// An answer with its body in hand.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect(1 << 26).await.expect("a body");
        Self { status: parts.status, headers: parts.headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

pub(crate) async fn ask(door: &HttpDoor, method: &str, path: &str, body: &str) -> Answer {
    ask_with(door, method, path, &[], body).await
}

pub(crate) async fn ask_with(
    door: &HttpDoor,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::new(Body::from(body.to_owned()));
    *request.method_mut() = method.parse().expect("a method");
    *request.uri_mut() = path.parse().expect("a URI");
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().expect("a name");
        request.headers_mut().append(name, value.parse().expect("a value"));
    }
    Answer::of(door.handle(request).await).await
}
