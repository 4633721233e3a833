//! A runtime with an app behind each door, for the components that are to be tested.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use libtest_mimic::Trial;
use tokio::runtime::Runtime;
use trilby::{Api, AppSpec, Builder, Trilby, door_http::app::Options};

use crate::{
    cases::{self, Case},
    clients::{Embedded, Grpc, Http, Inbox, Wasm},
    suite::{self, Door, Subject},
};

/// The mirror guest's app id.
const MIRROR: &str = "mirror";

/// The door that every component is tested through.
pub const EMBEDDED: &str = "embedded";
/// All doors, by the names that tests have. The last needs the mirror guest.
pub const DOORS: [&str; 4] = [EMBEDDED, "http", "grpc", "wasm"];

/// The components, open, and every door to them.
pub struct Harness {
    runtime: Arc<Runtime>,
    trilby: Trilby,
    api: Api,
    doors: Vec<Door>,
}

impl Harness {
    /// Starts what `builder` has, and an app for each door. `mirror` is the guest through which the Wasm door is
    /// tested; without it that door is left out.
    ///
    /// App ids are new in each run, so that servers that outlive it hold nothing of an earlier one.
    ///
    /// # Errors
    /// A component cannot be opened, no port is free, or the guest cannot be loaded.
    pub fn start(builder: Builder, mirror: Option<&Path>) -> Result<Self, Box<dyn std::error::Error>> {
        let runtime = Arc::new(Runtime::new()?);
        let id = |door: &str| format!("{door}-{}", std::process::id());
        let (http, grpc) = (free_address()?, free_address()?);
        let inbox = runtime.block_on(Inbox::start())?;
        let mut builder = builder
            .app(AppSpec::caller(id("embedded")))
            .app(AppSpec::http_server(id("http"), Options::new(inbox.port)).http(http))
            .app(AppSpec::caller(id("grpc")).grpc(grpc));
        if let Some(path) = mirror {
            builder = builder.app(AppSpec::wasm(MIRROR, path.to_string_lossy()));
        }
        let (trilby, api, doors) = runtime.block_on(async {
            let trilby = builder.start().await?;
            let api = trilby.api(&id("embedded")).expect("the app was started").clone();
            let [embedded, over_http, over_grpc, wasm] = DOORS;
            let http_client = Http::new(http.port()).heard_by(api.clone()).told_through(inbox);
            let mut doors = vec![
                Door { name: embedded, client: Arc::new(Embedded(api.clone())) },
                Door { name: over_http, client: Arc::new(http_client) },
                Door { name: over_grpc, client: Arc::new(Grpc::new(grpc.port()).heard_by(api.clone())) },
            ];
            if mirror.is_some() {
                doors.push(Door { name: wasm, client: Arc::new(Wasm::new(api.clone(), MIRROR)) });
            }
            Ok::<_, trilby::Error>((trilby, api, doors))
        })?;
        Ok(Self { runtime, trilby, api, doors })
    }

    /// The components that were opened: name, type and version.
    pub fn components(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let components = self.api.metadata.facts().components.iter();
        components.map(|component| (&*component.name, &*component.type_name, &*component.version))
    }

    /// The tests of one component: what its kind must do, through each door whose name is `wanted`.
    ///
    /// A component of a type that the suite knows no cases for has none.
    pub fn trials(
        &self,
        component: &str,
        except: &'static [&'static str],
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<Trial> {
        let components = &self.api.metadata.facts().components;
        let Some(component) = components.iter().find(|open| open.name == component) else { return Vec::new() };
        let subject = Subject {
            component: component.name.clone(),
            label: format!("{}@{}", component.type_name, component.version),
            capabilities: component.capabilities.clone(),
            except,
        };
        let doors = self.doors.iter().filter(|door| wanted(door.name));
        doors.flat_map(|door| suite::trials(&self.runtime, &subject, door, cases_of(&component.type_name))).collect()
    }

    /// Ends everything.
    pub fn stop(self) {
        self.runtime.block_on(self.trilby.shutdown());
    }
}

/// The cases that a component of this type must pass.
#[must_use]
pub fn cases_of(type_name: &str) -> Vec<Case> {
    match type_name.split('.').next().unwrap_or_default() {
        "state" => cases::state::all(),
        "secretstores" => cases::secrets::all(),
        "pubsub" => cases::pubsub::all(),
        "bindings" => cases::bindings::all(),
        "configuration" => cases::configuration::all(),
        "lock" => cases::lock::all(),
        "crypto" => cases::crypto::all(),
        "conversation" => cases::conversation::all(),
        _ => Vec::new(),
    }
}

/// An address that was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
