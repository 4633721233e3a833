//! Apps in one process, with a state store and a secret store that live in memory.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use trilby_component::{
    ComponentError, ErrorKind, Metadata, Result as ComponentResult,
    json::Style,
    secret::{Secret, SecretStore},
    state::{Concurrency, DeleteRequest, Feature, GetRequest, Item, Operation, SetRequest, StateStore},
};
use trilby_core::{
    Api, AppChannel, Blocks, Body, ChannelError, Ctx, Identity, Request, Wiring,
    invoke::{InvokeApi, NameResolver},
    metadata::{Facts, MetadataApi},
    metrics::Metrics,
    resiliency::Policies,
    secrets::{Scope, SecretComponent, SecretsApi},
    state::{KeyPrefix, StateApi, StateComponent},
};
use trilby_door_wasm::{LoadError, WasmApp, WasmAppOptions};
use trilby_wasm::{Engine, LogSink, Logs, Options, Source, Stream};

use crate::fakes::Fakes;

/// Longest body that these tests read.
const MAX_BODY: usize = 8 << 20;

/// A runtime, as far as a door needs one.
pub(crate) struct World {
    pub(crate) engine: Engine,
    apps: Arc<Apps>,
    state: Arc<MemoryState>,
    pub(crate) fakes: Fakes,
    pub(crate) lines: Lines,
}

impl World {
    pub(crate) fn new() -> Self {
        let cache_dir = option_env!("CARGO_TARGET_TMPDIR").map(|folder| PathBuf::from(folder).join("wasm-cache"));
        Self {
            engine: Engine::new(Options { cache_dir, max_instances: 200, ..Options::default() }),
            apps: Arc::default(),
            state: Arc::default(),
            fakes: Fakes::default(),
            lines: Lines::default(),
        }
    }

    /// The blocks of an app.
    pub(crate) fn api(&self, id: &str) -> Api {
        let app = Identity::new(id);
        let metrics = Metrics::default();
        let policies = Policies::default();
        let wiring = Wiring { app: &app, metrics: &metrics, policies: &policies };
        let store = |name: &str| StateComponent {
            name: name.into(),
            store: self.state.clone(),
            key_prefix: KeyPrefix::default(),
            encryption: None,
        };
        let secrets = SecretComponent {
            name: "secretstore".into(),
            store: Arc::new(MemorySecrets),
            scope: Scope { denied: vec!["hidden".into()], ..Scope::default() },
        };
        Api::new(Blocks {
            state: StateApi::new(&wiring, [store("statestore"), store("ledger")]),
            secrets: SecretsApi::new(&wiring, [secrets]),
            invoke: InvokeApi::new(app.clone(), self.apps.clone(), HashMap::new(), None),
            metadata: MetadataApi::new(Facts { runtime_version: "9.9.9".into(), ..Facts::default() }),
            ..self.fakes.blocks(&wiring, &app)
        })
    }

    pub(crate) fn options(&self) -> WasmAppOptions {
        WasmAppOptions::new(Logs::new(self.lines.clone()))
    }

    /// Starts a guest as the app `id`; `None` if it was not built, which is then said.
    pub(crate) async fn start(&self, id: &str, guest: &str) -> Option<WasmApp> {
        self.start_with(id, guest, |_| ()).await
    }

    pub(crate) async fn start_with(
        &self,
        id: &str,
        guest: &str,
        change: impl FnOnce(&mut WasmAppOptions),
    ) -> Option<WasmApp> {
        let mut options = self.options();
        change(&mut options);
        let source = built(guest)?;
        let app = self.load(&source, id, options).await.expect("the guest is sound");
        self.register(id, app.clone());
        Some(app)
    }

    pub(crate) async fn load(&self, source: &Source, id: &str, options: WasmAppOptions) -> Result<WasmApp, LoadError> {
        WasmApp::load(&self.engine, source, options, self.api(id)).await
    }

    pub(crate) fn register(&self, id: &str, app: impl AppChannel + 'static) {
        self.apps.0.lock().expect("no test panics while it holds this").insert(id.to_owned(), Arc::new(app));
    }
}

/// A guest that `cargo xtask guests` built, or a line that says it is missing.
pub(crate) fn built(guest: &str) -> Option<Source> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/wasm");
    let path = folder.join(guest).with_extension("wasm");
    if path.is_file() {
        return Some(Source::File(path));
    }
    println!("NOT RUN guest {guest}: {} is missing; run `cargo xtask guests`", path.display());
    None
}

/// Calls an app directly, as a listener in front of it does.
pub(crate) async fn call(
    app: &dyn AppChannel,
    method: &str,
    path: &str,
    body: impl Into<Body>,
) -> Result<(u16, String), ChannelError> {
    let (status, body) = call_bytes(app, method, path, body.into()).await?;
    Ok((status, String::from_utf8(body.into()).expect("text")))
}

pub(crate) async fn call_bytes(
    app: &dyn AppChannel,
    method: &str,
    path: &str,
    body: Body,
) -> Result<(u16, Bytes), ChannelError> {
    let request = http::Request::builder().method(method).uri(path).body(body).expect("a request");
    let (head, body) = app.invoke(&Ctx::default(), request).await?.into_parts();
    let body = body.collect(MAX_BODY).await;
    let body = body.map_err(|error| ChannelError::new(ErrorKind::Internal, error.to_string()))?;
    Ok((head.status.as_u16(), body))
}

pub(crate) fn get(path: &str) -> Request {
    http::Request::get(path).body(Body::Empty).expect("a request")
}

/// The log of all apps.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<(Stream, String)>>>);

impl Lines {
    pub(crate) fn take(&self) -> Vec<(Stream, String)> {
        std::mem::take(&mut self.0.lock().expect("no test panics while it holds this"))
    }
}

impl LogSink for Lines {
    fn line(&self, stream: Stream, line: &str) {
        self.0.lock().expect("no test panics while it holds this").push((stream, line.to_owned()));
    }
}

#[derive(Default)]
struct Apps(Mutex<HashMap<String, Arc<dyn AppChannel>>>);

#[async_trait]
impl NameResolver for Apps {
    async fn resolve(&self, id: &str, _: Option<&str>) -> Result<Option<Arc<dyn AppChannel>>, ChannelError> {
        Ok(self.0.lock().expect("no test panics while it holds this").get(id).cloned())
    }
}

#[derive(Default)]
struct MemoryState(Mutex<Items>);

#[derive(Default, Clone)]
struct Items {
    items: HashMap<String, (Bytes, u64)>,
    writes: u64,
}

impl Items {
    fn check(&self, key: &str, etag: Option<&str>, concurrency: &Concurrency) -> ComponentResult<()> {
        let present = self.items.get(key).map(|(_, version)| version.to_string());
        let matches = match (etag.filter(|etag| !etag.is_empty()), present) {
            (Some(wanted), present) => present.as_deref() == Some(wanted),
            (None, present) => *concurrency != Concurrency::FirstWrite || present.is_none(),
        };
        if matches { Ok(()) } else { Err(ComponentError::etag_mismatch("")) }
    }

    fn set(&mut self, request: &SetRequest) -> ComponentResult<()> {
        self.check(&request.key, request.etag.as_deref(), &request.options.concurrency)?;
        self.writes += 1;
        self.items.insert(request.key.clone(), (request.value.encode(Style::Standard)?, self.writes));
        Ok(())
    }

    fn delete(&mut self, request: &DeleteRequest) -> ComponentResult<()> {
        if request.etag.is_some() {
            self.check(&request.key, request.etag.as_deref(), &request.options.concurrency)?;
        }
        self.items.remove(&request.key);
        Ok(())
    }
}

#[async_trait]
impl StateStore for MemoryState {
    fn features(&self) -> &[Feature] {
        &[Feature::Etag, Feature::Transactional]
    }

    async fn get(&self, request: &GetRequest) -> ComponentResult<Option<Item>> {
        if request.key.ends_with("broken") {
            return Err(ComponentError::new(ErrorKind::Unavailable, "no such disk"));
        }
        let found = self.0.lock().expect("no test panics while it holds this").items.get(&request.key).cloned();
        Ok(found.map(|(value, version)| Item { value, etag: Some(version.to_string()), metadata: Metadata::new() }))
    }

    async fn set(&self, request: &SetRequest) -> ComponentResult<()> {
        self.0.lock().expect("no test panics while it holds this").set(request)
    }

    async fn delete(&self, request: &DeleteRequest) -> ComponentResult<()> {
        self.0.lock().expect("no test panics while it holds this").delete(request)
    }

    async fn transact(&self, operations: &[Operation], _: &Metadata) -> ComponentResult<()> {
        let mut items = self.0.lock().expect("no test panics while it holds this");
        let mut changed = items.clone();
        for operation in operations {
            match operation {
                Operation::Upsert(request) => changed.set(request)?,
                Operation::Delete(request) => changed.delete(request)?,
            }
        }
        *items = changed;
        Ok(())
    }
}

struct MemorySecrets;

#[async_trait]
impl SecretStore for MemorySecrets {
    async fn get(&self, name: &str, _: &Metadata) -> ComponentResult<Secret> {
        match name {
            "order-key" | "hidden" => Ok([(name.to_owned(), "s3cret".to_owned())].into()),
            _ => Err(ComponentError::new(ErrorKind::NotFound, format!("secret {name} not found"))),
        }
    }

    async fn bulk_get(&self, metadata: &Metadata) -> ComponentResult<BTreeMap<String, Secret>> {
        let mut all = BTreeMap::new();
        for name in ["order-key", "hidden"] {
            all.insert(name.to_owned(), self.get(name, metadata).await?);
        }
        Ok(all)
    }
}
