//! `spec.wasm` of a Configuration: limits and grants of an app that is a Wasm guest.
//!
//! Dapr has `strictSandbox` there; the rest is ours. Names that neither has are refused: a limit that is misspelt would
//! not limit.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{quantity, resources::or_default};

/// What a Wasm guest may use. What is `None` is left to the engine's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WasmSettings {
    /// Whether the guest gets no environment, folder or host, whatever else is granted. Default false.
    #[serde(deserialize_with = "or_default")]
    pub strict_sandbox: bool,
    /// Bytes of memory that one instance may have; `memory: 64Mi`.
    #[serde(rename = "memory", deserialize_with = "size")]
    pub memory_bytes: Option<u64>,
    /// Elements that one table may have.
    pub table_elements: Option<u32>,
    /// Streams, requests and files that one instance may hold at a time.
    pub resources: Option<u32>,
    /// Longest time that one call may take; `callTimeout: 10s`. Zero means no limit.
    #[serde(deserialize_with = "time")]
    pub call_timeout: Option<Duration>,
    /// Whether an instance serves one call or many.
    pub isolation: Option<Isolation>,
    /// Calls after which an instance is replaced. Zero means never.
    pub max_calls_per_instance: Option<u32>,
    /// Calls that run at a time.
    pub max_concurrency: Option<u32>,
    /// Calls that may wait for their turn.
    pub max_queue: Option<u32>,
    /// Longest wait for a turn.
    #[serde(deserialize_with = "time")]
    pub max_wait: Option<Duration>,
    /// Instances kept ready when there is nothing to do.
    pub idle_instances: Option<u32>,
    /// How long an instance beyond those is kept unused.
    #[serde(deserialize_with = "time")]
    pub idle_timeout: Option<Duration>,
    /// Environment variables that the guest sees.
    #[serde(deserialize_with = "or_default")]
    pub env: BTreeMap<String, String>,
    /// Hosts outside this runtime that it may connect to: `api.example.com`, `*.example.com:8443`.
    #[serde(deserialize_with = "or_default")]
    pub allowed_hosts: Vec<String>,
    /// Folders that it may use.
    #[serde(deserialize_with = "or_default")]
    pub directories: Vec<Directory>,
}

/// Whether calls share an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// An instance serves one call after the other.
    Reuse,
    /// Every call has a fresh instance.
    Request,
}

/// A folder that a guest may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Directory {
    /// The folder here.
    pub host: String,
    /// What the guest calls it.
    pub guest: String,
    /// Whether the guest may change what is in it. Default false.
    #[serde(default)]
    pub writable: bool,
}

impl WasmSettings {
    /// These settings where they say something, else `below`'s: an app's own entry over its Configuration. Grants add
    /// up, variables of the same name replace each other.
    #[must_use]
    pub fn over(self, below: &Self) -> Self {
        let mut env = below.env.clone();
        env.extend(self.env);
        Self {
            strict_sandbox: self.strict_sandbox || below.strict_sandbox,
            memory_bytes: self.memory_bytes.or(below.memory_bytes),
            table_elements: self.table_elements.or(below.table_elements),
            resources: self.resources.or(below.resources),
            call_timeout: self.call_timeout.or(below.call_timeout),
            isolation: self.isolation.or(below.isolation),
            max_calls_per_instance: self.max_calls_per_instance.or(below.max_calls_per_instance),
            max_concurrency: self.max_concurrency.or(below.max_concurrency),
            max_queue: self.max_queue.or(below.max_queue),
            max_wait: self.max_wait.or(below.max_wait),
            idle_instances: self.idle_instances.or(below.idle_instances),
            idle_timeout: self.idle_timeout.or(below.idle_timeout),
            env,
            allowed_hosts: [self.allowed_hosts, below.allowed_hosts.clone()].concat(),
            directories: [self.directories, below.directories.clone()].concat(),
        }
    }
}

/// A number or a word, as YAML has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(u64),
    Text(String),
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<Scalar>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Scalar::Number(bytes)) => Ok(Some(bytes)),
        Some(Scalar::Text(text)) => {
            let expected = || D::Error::custom(format!("{text:?} is not a size such as 64Mi"));
            quantity::parse(&text).map(Some).ok_or_else(expected)
        }
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match Option::<Scalar>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Scalar::Number(seconds)) => Ok(Some(Duration::from_secs(seconds))),
        Some(Scalar::Text(text)) => {
            let expected = || D::Error::custom(format!("{text:?} is not a duration such as 10s or 1m30s"));
            trilby_component::properties::duration::parse(&text).map(Some).ok_or_else(expected)
        }
    }
}
