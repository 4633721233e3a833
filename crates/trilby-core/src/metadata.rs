//! The metadata block: what this runtime is and has, and the app's own notes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// A component as `/v1.0/metadata` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its resource name.
    pub name: String,
    /// For example `state.redis`.
    pub type_name: String,
    /// As the resource says, `v1` if it says nothing.
    pub version: String,
    /// Features by Dapr's names.
    pub capabilities: Vec<&'static str>,
}

/// How the runtime reaches the app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppConnection {
    /// `None` for an app that is not behind a port.
    pub port: Option<u16>,
    /// `http`, `grpc`, `https`, `grpcs`, `h2c`, or `wasm`.
    pub protocol: String,
    /// Host of the app's port.
    pub channel_address: String,
    /// Most calls into the app at once; `None` means no limit.
    pub max_concurrency: Option<u32>,
    /// How the app is asked whether it is healthy, if it is.
    pub health: Option<AppHealth>,
    /// Longest time that the app is asked whether it wants the events of a binding; `None` is the default of
    /// [`BindingsApi`](crate::bindings::BindingsApi). Metadata do not show it.
    pub binding_probe_timeout: Option<Duration>,
}

/// How an app is asked whether it is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppHealth {
    /// Where an app with routes is asked.
    pub path: String,
    /// Time from one question to the next.
    pub interval: Duration,
    /// Longest time for an answer.
    pub timeout: Duration,
    /// Bad answers in a row after which the app is unhealthy.
    pub threshold: u32,
}

/// What does not change while the app runs.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Version of the runtime.
    pub runtime_version: String,
    /// Preview features that are on.
    pub enabled_features: Vec<String>,
    /// Components that this app may use, in the order in which they were loaded.
    pub components: Vec<Component>,
    /// Names of the HTTP endpoints that this app may call.
    pub http_endpoints: Vec<String>,
    /// Names of the Resiliency resources that hold for this app.
    pub resiliencies: Vec<String>,
    /// How the app is reached.
    pub app_connection: AppConnection,
}

/// The metadata block.
#[derive(Debug, Default)]
pub struct MetadataApi {
    facts: Facts,
    extended: Mutex<BTreeMap<String, String>>,
}

impl MetadataApi {
    /// A block that answers with `facts`. The extended part always has `daprRuntimeVersion`.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        let version = ("daprRuntimeVersion".to_owned(), facts.runtime_version.clone());
        Self { facts, extended: Mutex::new(BTreeMap::from([version])) }
    }

    /// What does not change.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The app's own notes.
    #[must_use]
    pub fn extended(&self) -> BTreeMap<String, String> {
        self.extended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets one of the app's own notes.
    pub fn set(&self, key: String, value: String) {
        self.extended.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }
}
