//! The Configuration of an app: what it may do, from one or more files laid over each other.

mod spec;
mod wasm;

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use serde_norway::Value;
use trilby_core::secrets::Scope;

use crate::{
    env::Env,
    error::StartError,
    resources::{documents, or_default},
};

use spec::Spec;
pub use wasm::{Directory, Isolation, WasmSettings};

/// What an app's Configuration says. The default is Dapr's: everything is allowed and measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// Which secrets may be read, by store. A store without an entry shows all of them.
    pub secret_scopes: BTreeMap<String, Scope>,
    /// Which APIs the app may call. `spec.api`.
    pub api: ApiAccess,
    /// Component types that are not loaded: `type` or `type/version`. `spec.components.deny`.
    pub denied_components: Vec<String>,
    /// Preview features that a Configuration turns on, ordered by name. None is on by itself.
    pub features: Vec<String>,
    /// What is logged of API calls. `spec.logging.apiLogging`.
    pub api_logging: ApiLogging,
    /// Whether anything is measured. Default true. `spec.metrics.enabled`.
    pub metrics_enabled: bool,
    /// Whether the errors that the app is answered with are counted by code. Default false.
    /// `spec.metrics.recordErrorCodes`.
    pub record_error_codes: bool,
    /// Limits and grants of an app that is a Wasm guest. `spec.wasm`, ours.
    pub wasm: WasmSettings,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            secret_scopes: BTreeMap::new(),
            api: ApiAccess::default(),
            denied_components: Vec::new(),
            features: Vec::new(),
            api_logging: ApiLogging::default(),
            metrics_enabled: true,
            record_error_codes: false,
            wasm: WasmSettings::default(),
        }
    }
}

impl Configuration {
    /// Whether components of this type and version may be loaded.
    #[must_use]
    pub fn allows_component(&self, type_name: &str, version: &str) -> bool {
        !self.denied_components.iter().any(|denied| match denied.split_once('/') {
            None => denied == type_name,
            Some((denied_type, denied_version)) => denied_type == type_name && denied_version == version,
        })
    }
}

/// Which APIs an app may call. Denied rules go first; if there are allowed rules, whatever they do not name is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiAccess {
    /// Only these, unless there are none.
    pub allowed: Vec<ApiRule>,
    /// Not these.
    pub denied: Vec<ApiRule>,
}

/// Names an API, or a part of one by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiRule {
    /// A group such as `state`, or a path after the version.
    pub name: String,
    /// For example `v1.0`.
    pub version: String,
    /// The door that it is about.
    pub protocol: Protocol,
}

/// A door by Dapr's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `http`
    Http,
    /// `grpc`
    Grpc,
}

/// What is logged of API calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiLogging {
    /// Whether calls are logged at all.
    pub enabled: bool,
    /// Whether the route is logged in place of the path, which may hold names.
    #[serde(rename = "obfuscateURLs")]
    pub obfuscate_urls: bool,
    /// Whether health checks are left out.
    pub omit_health_checks: bool,
}

/// Configuration files, each laid over those before it: sections are merged, lists and plain values replaced.
#[derive(Default)]
pub struct Layers {
    merged: Value,
}

impl Layers {
    /// Lays a file on top.
    ///
    /// # Errors
    /// If it cannot be read, or for what [`add_text`](Self::add_text) refuses.
    pub fn add_file(&mut self, path: &Path, env: &Env) -> Result<(), StartError> {
        let text = fs::read(path).map_err(|source| StartError::Read { path: path.to_owned(), source })?;
        self.add_text(&path.display().to_string(), &String::from_utf8_lossy(&text), env)
    }

    /// Lays the first document of a text on top, `$NAME` and `${NAME}` replaced by variables. `name` stands for the
    /// file in messages.
    ///
    /// # Errors
    /// If it is not YAML, not a Configuration, or asks for what it must not.
    pub fn add_text(&mut self, name: &str, text: &str, env: &Env) -> Result<(), StartError> {
        let expanded = env.expand(text);
        let Some(document) = documents(name, &expanded).into_iter().next() else {
            tracing::warn!(name, "configuration is empty");
            return Ok(());
        };
        let Manifest { kind, spec } = document.decode()?;
        if !matches!(kind.as_deref(), None | Some("Configuration")) {
            let found = kind.unwrap_or_default();
            return Err(
                document.error(format!("a {found}, expected a Configuration; pass its directory as a resources path"))
            );
        }
        // Each layer is checked on its own, where its name is known.
        spec.check().map_err(|message| StartError::Configuration { name: name.to_owned(), message })?;
        let RawManifest { spec } = document.decode()?;
        merge(&mut self.merged, spec);
        Ok(())
    }

    /// The Configuration that the layers make.
    ///
    /// # Errors
    /// None for layers that were each accepted, but for numbers that only their sum makes invalid.
    pub fn finish(self) -> Result<Configuration, StartError> {
        let failed = |message| StartError::Configuration { name: "configuration".to_owned(), message };
        let spec: Spec = match self.merged {
            Value::Null => Spec::default(),
            merged => serde_norway::from_value(merged).map_err(|error| failed(error.to_string()))?,
        };
        spec.check().map_err(failed)
    }
}

#[derive(Deserialize)]
struct Manifest {
    kind: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
}

#[derive(Deserialize)]
struct RawManifest {
    #[serde(default)]
    spec: Value,
}

fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (_, Value::Null) => {}
        (Value::Mapping(below), Value::Mapping(above)) => {
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(slot) => merge(slot, value),
                    None => {
                        below.insert(key, value);
                    }
                }
            }
        }
        (below, above) => *below = above,
    }
}

#[cfg(test)]
mod tests;
