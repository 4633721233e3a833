//! A guest as an application.

mod answer;
mod failure;
mod http;
mod http_async;
mod service;

use std::sync::Arc;

use ::http::uri::Authority;
use async_trait::async_trait;
use trilby_core::{Api, AppChannel, ChannelError, Ctx, Request, Response, invoke::HttpClient};
use trilby_wasm::{Blueprint, Engine, Grants, Isolation, Limits, LoadReason, Logs, Pool, Program, Source, Stats};
use wasmtime::{Store, component::InstancePre};
use wasmtime_wasi_http::{
    p2::bindings::{Proxy, ProxyPre},
    p3::bindings::{Service, ServicePre},
};

use crate::{
    DaprHttp, Entry, LoadError, Report,
    bindings::{ServiceApp, ServiceAppPre},
    guest::{Guest, Seed},
    link,
    outgoing::Routes,
};

/// How one app is run.
pub struct WasmAppOptions {
    /// What its guests may use. Default: see [`Limits`].
    pub limits: Limits,
    /// How long an instance lives. Default: for many calls.
    pub isolation: Isolation,
    /// What its guests may see of the world. Default: nothing.
    pub grants: Grants,
    /// Where the lines go that its guests print and log.
    pub logs: Logs,
    /// Largest body that it may be sent, answer with, or be answered with, in bytes. Default 4 MiB, as Dapr's
    /// `--max-body-size`. Bodies of its own requests through `wasi:http` stream, and are not counted.
    pub max_body_bytes: usize,
    /// Calls the outside hosts that are granted. Without one they are denied. Default: none.
    pub outside: Option<Arc<dyn HttpClient>>,
    /// Answers what the guest sends to Dapr's HTTP port. Default: none, which makes that port an outside host.
    pub dapr_http: Option<DaprHttp>,
}

impl WasmAppOptions {
    /// The defaults, with a place for log lines.
    #[must_use]
    pub fn new(logs: Logs) -> Self {
        Self {
            limits: Limits::default(),
            isolation: Isolation::default(),
            grants: Grants::default(),
            logs,
            max_body_bytes: 4 << 20,
            outside: None,
            dapr_http: None,
        }
    }
}

/// A guest that is loaded, linked and ready to be called. Cheap to clone; clones share the instances.
#[derive(Clone)]
pub struct WasmApp(Arc<App>);

struct App {
    id: Arc<str>,
    /// Who a guest is told that it is, by a request that does not say.
    authority: Authority,
    max_body_bytes: usize,
    report: Report,
    guests: Guests,
}

/// The instances of an app, by how they are called.
enum Guests {
    Service(Pool<Plan<ServiceAppPre<Guest>>>),
    Http(Pool<Plan<ProxyPre<Guest>>>),
    HttpAsync(Pool<Plan<ServicePre<Guest>>>),
}

/// How an instance is made.
struct Plan<P> {
    pre: P,
    seed: Arc<Seed>,
}

impl Blueprint for Plan<ServiceAppPre<Guest>> {
    type Data = Guest;
    type Exports = ServiceApp;

    fn data(&self) -> wasmtime::Result<Guest> {
        self.seed.guest()
    }

    async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<ServiceApp> {
        self.pre.instantiate_async(store).await
    }
}

impl Blueprint for Plan<ProxyPre<Guest>> {
    type Data = Guest;
    type Exports = Proxy;

    fn data(&self) -> wasmtime::Result<Guest> {
        self.seed.guest()
    }

    async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<Proxy> {
        self.pre.instantiate_async(store).await
    }
}

impl Blueprint for Plan<ServicePre<Guest>> {
    type Data = Guest;
    type Exports = Service;

    fn data(&self) -> wasmtime::Result<Guest> {
        self.seed.guest()
    }

    async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<Service> {
        self.pre.instantiate_async(store).await
    }
}

impl WasmApp {
    /// Loads a component and makes it the app that `api` belongs to. One instance is started, so that a guest which
    /// cannot start fails here.
    ///
    /// # Errors
    /// The file is not there or not a component; it imports what this build does not have or what was not granted; it
    /// exports nothing to be called; it does not start.
    pub async fn load(engine: &Engine, source: &Source, options: WasmAppOptions, api: Api) -> Result<Self, LoadError> {
        let program = engine.load(source).await?;
        Self::from_program(engine, &program, options, api).await
    }

    /// As [`load`](Self::load), from a program that `engine` has loaded.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn from_program(
        engine: &Engine,
        program: &Program,
        options: WasmAppOptions,
        api: Api,
    ) -> Result<Self, LoadError> {
        // A core module is no component, whatever it exports.
        program.component()?;
        let report = Report::of(program, &options.grants);
        let pre = link::link(engine, program, &report)?;
        let Some(entry) = report.entry else {
            return Err(no_entry(program, &report));
        };

        let id: Arc<str> = api.app.id.as_str().into();
        let authority = id.parse().unwrap_or(Authority::from_static("localhost"));
        let max_body_bytes = options.max_body_bytes;
        let guests = Guests::new(engine, pre, entry, options, api)
            .map_err(|error| LoadReason::Link(error).of(program.name()))?;
        guests.check().await.map_err(|reason| LoadError::Start { name: program.name().to_owned(), reason })?;
        for unused in &report.unused_entries {
            tracing::info!(
                app_id = &*id,
                used = entry.interface(),
                unused = unused.interface(),
                "guest has two ways in"
            );
        }
        Ok(Self(Arc::new(App { id, authority, max_body_bytes, report, guests })))
    }

    /// What the component imports and exports, and how it is called.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// What its instances are and have done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        match &self.0.guests {
            Guests::Service(pool) => pool.stats(),
            Guests::Http(pool) => pool.stats(),
            Guests::HttpAsync(pool) => pool.stats(),
        }
    }
}

#[async_trait]
impl AppChannel for WasmApp {
    async fn invoke(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        match &self.0.guests {
            Guests::Service(pool) => service::call(&self.0, pool, ctx, request).await,
            Guests::Http(pool) => http::call(&self.0, pool, ctx, request).await,
            Guests::HttpAsync(pool) => http_async::call(&self.0, pool, ctx, request).await,
        }
    }
}

impl Guests {
    fn new(
        engine: &Engine,
        pre: InstancePre<Guest>,
        entry: Entry,
        options: WasmAppOptions,
        api: Api,
    ) -> wasmtime::Result<Self> {
        let WasmAppOptions { limits, isolation, grants, logs, max_body_bytes, outside, dapr_http } = options;
        let hosts = Arc::clone(&grants.hosts);
        let routes = Arc::new(Routes { api: api.clone(), hosts, logs: logs.clone(), outside, dapr_http });
        let seed = Arc::new(Seed { api, limits: limits.clone(), grants, logs, routes, max_body_bytes });
        let engine = engine.clone();
        Ok(match entry {
            Entry::Service => {
                Self::Service(Pool::new(engine, Plan { pre: ServiceAppPre::new(pre)?, seed }, limits, isolation))
            }
            Entry::Http => Self::Http(Pool::new(engine, Plan { pre: ProxyPre::new(pre)?, seed }, limits, isolation)),
            Entry::HttpAsync => {
                Self::HttpAsync(Pool::new(engine, Plan { pre: ServicePre::new(pre)?, seed }, limits, isolation))
            }
        })
    }

    async fn check(&self) -> Result<(), trilby_wasm::CallError> {
        match self {
            Self::Service(pool) => pool.check().await,
            Self::Http(pool) => pool.check().await,
            Self::HttpAsync(pool) => pool.check().await,
        }
    }
}

fn no_entry(program: &Program, report: &Report) -> LoadError {
    let exports = &report.surface.exports;
    let names = exports.interfaces.iter().map(ToString::to_string);
    let names = names.chain(exports.functions.iter().map(|function| function.name.clone()));
    let list = names.collect::<Vec<_>>().join(", ");
    let exports = if list.is_empty() { "nothing".to_owned() } else { list };
    LoadError::NoEntry { name: program.name().to_owned(), exports }
}
