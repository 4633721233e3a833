//! What a guest exports: looked up once, when it is loaded, and at hand in each of its instances.

use std::sync::Arc;

use trilby_wasm::Blueprint;
use wasmtime::{
    Result, Store,
    component::{Instance, InstancePre},
};
use wasmtime_wasi_http::{
    p2::bindings::{Proxy, ProxyIndices},
    p3::bindings::{Service, ServiceIndices},
};

use crate::{
    Entry, Handler, Report,
    guest::{Guest, Seed},
    wit::exports::trilby::dapr::{bulk_subscriber, configuration_watcher, health, input_binding, service, subscriber},
};

/// Writes, for each export, where it is in a program and what it is in an instance.
macro_rules! exports {
    ($($name:ident: $indices:ty => $guest:ty, $is_there:expr;)+) => {
        /// Where the exports of a program are.
        struct Indices { $($name: Option<$indices>,)+ }

        /// The exports of an instance. Each is asked for only if the report has it.
        pub(super) struct Exports { $($name: Option<$guest>,)+ }

        impl Indices {
            fn find(pre: &InstancePre<Guest>, report: &Report) -> Result<Self> {
                let is_there = |check: fn(&Report) -> bool| check(report);
                Ok(Self { $($name: is_there($is_there).then(|| <$indices>::new(pre)).transpose()?,)+ })
            }

            fn load(&self, store: &mut Store<Guest>, instance: &Instance) -> Result<Exports> {
                Ok(Exports { $($name: self.$name.as_ref().map(|at| at.load(&mut *store, instance)).transpose()?,)+ })
            }
        }

        impl Exports {
            $(pub(super) fn $name(&self) -> &$guest {
                self.$name.as_ref().expect("what the report has was found and loaded")
            })+
        }
    };
}

exports! {
    service: service::GuestIndices => service::Guest, |report| report.entry == Some(Entry::Service);
    http: ProxyIndices => Proxy, |report| report.entry == Some(Entry::Http);
    http_async: ServiceIndices => Service, |report| report.entry == Some(Entry::HttpAsync);
    subscriber: subscriber::GuestIndices => subscriber::Guest, |report| report.has(Handler::Subscriber);
    bulk_subscriber: bulk_subscriber::GuestIndices => bulk_subscriber::Guest,
        |report| report.has(Handler::BulkSubscriber);
    input_binding: input_binding::GuestIndices => input_binding::Guest, |report| report.has(Handler::InputBinding);
    configuration_watcher: configuration_watcher::GuestIndices => configuration_watcher::Guest,
        |report| report.has(Handler::ConfigurationWatcher);
    health: health::GuestIndices => health::Guest, |report| report.has(Handler::Health);
}

/// How an instance is made.
pub(super) struct Plan {
    pre: InstancePre<Guest>,
    indices: Indices,
    seed: Arc<Seed>,
}

impl Plan {
    /// Finds what the report says that there is.
    ///
    /// # Errors
    /// An export has other functions or types than its name promises.
    pub(super) fn new(pre: InstancePre<Guest>, report: &Report, seed: Seed) -> Result<Self> {
        let indices = Indices::find(&pre, report)?;
        Ok(Self { pre, indices, seed: Arc::new(seed) })
    }
}

impl Blueprint for Plan {
    type Data = Guest;
    type Exports = Exports;

    fn data(&self) -> Result<Guest> {
        self.seed.guest()
    }

    async fn instantiate(&self, store: &mut Store<Guest>) -> Result<Exports> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        self.indices.load(store, &instance)
    }
}
