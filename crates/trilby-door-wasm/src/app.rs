//! A guest as an application.

mod answer;
mod bindings;
mod configuration;
mod exports;
mod failure;
mod health;
mod http;
mod http_async;
mod pubsub;
mod service;

use std::sync::Arc;

use ::http::{StatusCode, uri::Authority};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use trilby_core::{
    Api, AppChannel, ChannelError, Ctx, Request, Response,
    app::{BindingEvent, BindingReply, ConfigurationUpdate},
    invoke::{HttpClient, check_method},
    pubsub::{BulkDelivery, Delivery, Outcome, Subscription},
};
use trilby_wasm::{Engine, Grants, Instance, Isolation, Limits, LoadReason, Logs, Pool, Program, Source, Stats};
use wasmtime::{Store, component::InstancePre};

use self::exports::{Exports, Plan};
use crate::{
    DaprHttp, Entry, Handler, LoadError, Report,
    guest::{Guest, Seed},
    link, outgoing,
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
///
/// What Dapr says to an app goes to the handler that the guest exports for it. For what it has no handler it is an app
/// with routes, as any HTTP app.
#[derive(Clone)]
pub struct WasmApp(Arc<App>);

struct App {
    id: Arc<str>,
    /// Who a guest is told that it is, by a request that does not say.
    authority: Authority,
    max_body_bytes: usize,
    report: Report,
    pool: Pool<Plan>,
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
        if !report.is_app() {
            return Err(no_way_in(program, &report));
        }

        let id: Arc<str> = api.app.id.as_str().into();
        let authority = id.parse().unwrap_or(Authority::from_static("localhost"));
        let max_body_bytes = options.max_body_bytes;
        let pool =
            pool(engine, pre, &report, options, api).map_err(|error| LoadReason::Link(error).of(program.name()))?;
        pool.check().await.map_err(|reason| LoadError::Start { name: program.name().to_owned(), reason })?;
        report.log_precedence(&id);
        Ok(Self(Arc::new(App { id, authority, max_body_bytes, report, pool })))
    }

    /// What the component imports and exports, and how it is called.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// What its instances are and have done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.pool.stats()
    }

    fn has(&self, handler: Handler) -> bool {
        self.0.report.has(handler)
    }

    fn subscribes(&self) -> bool {
        self.has(Handler::Subscriber) || self.has(Handler::BulkSubscriber)
    }

    /// This app without its handlers.
    fn routes(&self) -> Routes<'_> {
        Routes(&self.0)
    }
}

#[async_trait]
impl AppChannel for WasmApp {
    async fn invoke(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        self.0.invoke(ctx, request).await
    }

    async fn subscriptions(&self, ctx: &Ctx) -> Result<Vec<Subscription>, ChannelError> {
        if self.subscribes() {
            return pubsub::subscriptions(&self.0, ctx).await;
        }
        self.routes().subscriptions(ctx).await
    }

    async fn deliver(&self, ctx: &Ctx, delivery: &Delivery<'_>) -> Result<Outcome, ChannelError> {
        if self.subscribes() {
            return pubsub::deliver(&self.0, ctx, delivery).await;
        }
        self.routes().deliver(ctx, delivery).await
    }

    async fn deliver_bulk(&self, ctx: &Ctx, delivery: &BulkDelivery<'_>) -> Result<Vec<Outcome>, ChannelError> {
        if self.subscribes() {
            return pubsub::deliver_bulk(&self.0, ctx, delivery).await;
        }
        self.routes().deliver_bulk(ctx, delivery).await
    }

    async fn listens_to_binding(&self, ctx: &Ctx, binding: &str, path: &str) -> Result<bool, ChannelError> {
        if self.has(Handler::InputBinding) {
            return bindings::listens(&self.0, ctx, binding).await;
        }
        self.routes().listens_to_binding(ctx, binding, path).await
    }

    async fn binding_event(&self, ctx: &Ctx, event: &BindingEvent<'_>) -> Result<BindingReply, ChannelError> {
        if self.has(Handler::InputBinding) {
            return bindings::handle(&self.0, ctx, event).await;
        }
        self.routes().binding_event(ctx, event).await
    }

    async fn watched_configuration(&self, ctx: &Ctx) -> Result<Vec<(String, Vec<String>)>, ChannelError> {
        if self.has(Handler::ConfigurationWatcher) {
            return configuration::watched(&self.0, ctx).await;
        }
        self.routes().watched_configuration(ctx).await
    }

    async fn configuration_changed(&self, ctx: &Ctx, update: &ConfigurationUpdate<'_>) -> Result<(), ChannelError> {
        if self.has(Handler::ConfigurationWatcher) {
            return configuration::changed(&self.0, ctx, update).await;
        }
        self.routes().configuration_changed(ctx, update).await
    }

    async fn check_health(&self, ctx: &Ctx, path: &str) -> Result<(), ChannelError> {
        if self.has(Handler::Health) {
            return health::check(&self.0, ctx).await;
        }
        if self.0.report.entry.is_none() {
            // A guest that only handles has nobody who could be asked.
            return Ok(());
        }
        self.routes().check_health(ctx, path).await
    }
}

/// A guest as an app with routes: the default of all that Dapr says to an app.
struct Routes<'a>(&'a Arc<App>);

#[async_trait]
impl AppChannel for Routes<'_> {
    async fn invoke(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        self.0.invoke(ctx, request).await
    }
}

impl App {
    async fn invoke(self: &Arc<Self>, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        check_method(&request)?;
        match self.report.entry {
            Some(Entry::Service) => service::call(self, ctx, request).await,
            Some(Entry::Http) => http::call(self, ctx, request).await,
            Some(Entry::HttpAsync) => http_async::call(self, ctx, request).await,
            None => {
                let text = "this app handles events and takes no calls: it exports no service and no wasi:http handler";
                let mut response = Response::new(text.into());
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
        }
    }

    /// Calls an instance. If it fails, that is logged here and the caller is told what it may know.
    async fn call<R, F>(&self, ctx: &Ctx, job: F) -> Result<R, ChannelError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Store<Guest>, &'a Exports) -> BoxFuture<'a, wasmtime::Result<R>> + Send + 'static,
    {
        let ctx = ctx.clone();
        let called = self.pool.call(move |Instance { store, exports, .. }: &mut Instance<_>| {
            store.data_mut().begin(ctx);
            let done = job(store, exports);
            Box::pin(async move { done.await.map_err(failure::named) })
        });
        called.await.map_err(|error| failure::of_call(&self.id, &error))
    }
}

fn pool(
    engine: &Engine,
    pre: InstancePre<Guest>,
    report: &Report,
    options: WasmAppOptions,
    api: Api,
) -> wasmtime::Result<Pool<Plan>> {
    let WasmAppOptions { limits, isolation, grants, logs, max_body_bytes, outside, dapr_http } = options;
    let hosts = Arc::clone(&grants.hosts);
    let routes = Arc::new(outgoing::Routes { api: api.clone(), hosts, logs: logs.clone(), outside, dapr_http });
    let seed = Seed { api, limits: limits.clone(), grants, logs, routes, max_body_bytes };
    Ok(Pool::new(engine.clone(), Plan::new(pre, report, seed)?, limits, isolation))
}

fn no_way_in(program: &Program, report: &Report) -> LoadError {
    let exports = &report.surface.exports;
    let names = exports.interfaces.iter().map(ToString::to_string);
    let names = names.chain(exports.functions.iter().map(|function| function.name.clone()));
    let list = names.collect::<Vec<_>>().join(", ");
    let exports = if list.is_empty() { "nothing".to_owned() } else { list };
    LoadError::NoEntry { name: program.name().to_owned(), exports }
}
