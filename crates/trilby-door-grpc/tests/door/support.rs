//! An app's blocks over stores that live in these tests, behind a door on a port of its own.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Status, transport::Channel};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, Result,
    json::Style,
    secret::{Secret, SecretStore},
    state::{
        Concurrency, DeleteRequest, Feature, GetRequest, Item, Operation, SetRequest, StateStore, TTL_EXPIRE_TIME,
        TTL_IN_SECONDS,
    },
};
use trilby_core::{
    Api, AppChannel, Blocks, ChannelError, Identity, Wiring,
    invoke::{InvokeApi, NameResolver},
    metadata::{AppConnection, Component, Facts, MetadataApi},
    metrics::Metrics,
    resiliency::Policies,
    secrets::{Scope, SecretComponent, SecretsApi},
    state::{KeyPrefix, StateApi, StateComponent},
};
use trilby_door_grpc::{GrpcDoor, Options};
use trilby_proto::{google::rpc, runtime::v1::dapr_client::DaprClient};

type Items = (u64, BTreeMap<String, Item>);

/// A state store in memory. Its etags count writes; keys that end in `broken` and `panics` do as they say.
#[derive(Default)]
pub(crate) struct Store {
    items: Mutex<Items>,
    transactional: bool,
}

#[async_trait]
impl StateStore for Store {
    fn features(&self) -> &[Feature] {
        if self.transactional { &[Feature::Etag, Feature::Transactional, Feature::Ttl] } else { &[Feature::Etag] }
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        assert!(!request.key.ends_with("panics"), "a bug in a store");
        if request.key.ends_with("broken") {
            return Err(ComponentError::new(ErrorKind::Unavailable, "the store is down"));
        }
        if request.key.ends_with("slow") {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        Ok(self.items.lock().unwrap().1.get(&request.key).cloned())
    }

    async fn set(&self, request: &SetRequest) -> Result<()> {
        set(&mut self.items.lock().unwrap(), request)
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        delete(&mut self.items.lock().unwrap(), request)
    }

    async fn transact(&self, operations: &[Operation], _: &Metadata) -> Result<()> {
        let mut items = self.items.lock().unwrap();
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

    fn max_transaction_size(&self) -> Option<usize> {
        Some(3)
    }
}

fn check(items: &Items, key: &str, etag: Option<&String>, concurrency: &Concurrency) -> Result<()> {
    let current = items.1.get(key).and_then(|item| item.etag.as_ref());
    match (etag.filter(|etag| !etag.is_empty()), current) {
        (Some(given), _) if given.starts_with("bad") => Err(ComponentError::new(ErrorKind::EtagInvalid, "no number")),
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
    if request.key.ends_with("broken") {
        return Err(ComponentError::new(ErrorKind::Unavailable, "the store is down"));
    }
    check(items, &request.key, request.etag.as_ref(), &request.options.concurrency)?;
    items.1.remove(&request.key);
    Ok(())
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
        let secret = |name: &str| (name.to_owned(), [(name.to_owned(), "p".to_owned())].into());
        Ok([secret("enc"), secret("plain")].into())
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
    /// The protocol of `myapp`; `http` if empty.
    pub(crate) protocol: &'static str,
    /// Reached by the app ids `myapp` and `other`.
    pub(crate) app: Option<Arc<dyn AppChannel>>,
    pub(crate) no_stores: bool,
}

/// The blocks of app `myapp`: state stores `mem` and `plain` (without transactions), secret store `sec`.
pub(crate) fn api(protocol: &str, app: Option<Arc<dyn AppChannel>>, stores: bool) -> Api {
    let identity = Identity::new("myapp");
    let metrics = Metrics::default();
    let state = |name: &str, transactional| StateComponent {
        name: name.to_owned(),
        store: Arc::new(Store { transactional, ..Store::default() }),
        key_prefix: KeyPrefix::AppId,
        encryption: None,
    };
    let states = [state("mem", true), state("plain", false)];
    let scope = Scope { denied: vec!["enc".to_owned()], ..Scope::default() };
    let secrets = SecretComponent { name: "sec".to_owned(), store: Arc::new(Secrets), scope };
    let apps = app.map(|app| ["myapp", "other"].map(|id| (id.to_owned(), Arc::clone(&app)))).into_iter().flatten();
    let wiring = Wiring { app: &identity, metrics: &metrics, policies: &Policies::default() };
    Api::new(Blocks {
        state: StateApi::new(&wiring, states.into_iter().filter(|_| stores)),
        secrets: SecretsApi::new(&wiring, Some(secrets).filter(|_| stores)),
        invoke: InvokeApi::new(identity.clone(), Arc::new(Apps(apps.collect())), HashMap::new(), None),
        metadata: MetadataApi::new(facts(protocol)),
        ..Blocks::empty(identity)
    })
}

fn facts(protocol: &str) -> Facts {
    let component = Component {
        name: "mem".to_owned(),
        type_name: "state.in-memory".to_owned(),
        version: "v1".to_owned(),
        capabilities: vec!["ETAG", "TRANSACTIONAL"],
    };
    Facts {
        runtime_version: "edge".to_owned(),
        enabled_features: vec!["HotReload".to_owned()],
        components: vec![component],
        http_endpoints: vec!["outside".to_owned()],
        app_connection: AppConnection {
            port: Some(6000),
            protocol: if protocol.is_empty() { "http".to_owned() } else { protocol.to_owned() },
            channel_address: "127.0.0.1".to_owned(),
            ..AppConnection::default()
        },
        ..Facts::default()
    }
}

/// A door on a port. Ends with the value.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        endpoint.connect().await.expect("the door listens")
    }

    pub(crate) async fn client(&self) -> DaprClient<Channel> {
        DaprClient::new(self.channel().await)
    }
}

pub(crate) async fn serve(setup: Setup) -> Served {
    let api = api(setup.protocol, setup.app, !setup.no_stores);
    let door = GrpcDoor::new(api, setup.options);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move { door.serve(listener, std::future::pending()).await });
    Served { address, task }
}

/// A client of a door with nothing special, and the door.
pub(crate) async fn client() -> (DaprClient<Channel>, Served) {
    let served = serve(Setup::default()).await;
    (served.client().await, served)
}

/// The `ErrorInfo` of a status and, before it, the names of its other details.
pub(crate) fn details(status: &Status) -> (Vec<String>, Option<rpc::ErrorInfo>) {
    let mut packed = rpc::Status::decode(status.details()).expect("details are a google.rpc.Status").details;
    let info = packed.pop().map(|last| last.to_msg::<rpc::ErrorInfo>().expect("the last detail is an ErrorInfo"));
    let names = packed.iter().map(|any| any.type_url.rsplit('.').next().unwrap_or_default().to_owned()).collect();
    (names, info)
}
