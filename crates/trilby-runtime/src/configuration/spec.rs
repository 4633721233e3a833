//! `spec` of a Configuration as it is written, and the check that makes a [`Configuration`] of it.
//!
//! What would close something that this version leaves open (middleware, access control) is refused rather than
//! ignored; what only adds something (tracing, mTLS, workflows) is ignored.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use trilby_core::secrets::Scope;

use super::{ApiAccess, ApiLogging, ApiRule, Configuration, Protocol, WasmSettings};
use crate::resources::or_default;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    #[serde(deserialize_with = "or_default")]
    secrets: Secrets,
    #[serde(deserialize_with = "or_default")]
    api: Api,
    #[serde(deserialize_with = "or_default")]
    components: Components,
    #[serde(deserialize_with = "or_default")]
    features: Vec<Feature>,
    #[serde(deserialize_with = "or_default")]
    logging: Logging,
    #[serde(deserialize_with = "or_default")]
    metric: Metrics,
    #[serde(deserialize_with = "or_default")]
    metrics: Metrics,
    #[serde(deserialize_with = "or_default")]
    wasm: WasmSettings,
    #[serde(deserialize_with = "or_default")]
    http_pipeline: Pipeline,
    #[serde(deserialize_with = "or_default")]
    app_http_pipeline: Pipeline,
    #[serde(deserialize_with = "or_default")]
    access_control: AccessControl,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Secrets {
    #[serde(deserialize_with = "or_default")]
    scopes: Vec<SecretScope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretScope {
    store_name: String,
    #[serde(default, deserialize_with = "or_default")]
    default_access: String,
    #[serde(default, deserialize_with = "or_default")]
    allowed_secrets: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    denied_secrets: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Api {
    #[serde(deserialize_with = "or_default")]
    allowed: Vec<Rule>,
    #[serde(deserialize_with = "or_default")]
    denied: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    name: String,
    version: String,
    #[serde(default, deserialize_with = "or_default")]
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Components {
    #[serde(deserialize_with = "or_default")]
    deny: Vec<String>,
}

#[derive(Deserialize)]
struct Feature {
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    enabled: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Logging {
    #[serde(deserialize_with = "or_default")]
    api_logging: ApiLogging,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metrics {
    enabled: Option<bool>,
    #[serde(rename = "recordErrorCodes", deserialize_with = "or_default")]
    record_error_codes: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pipeline {
    #[serde(deserialize_with = "or_default")]
    handlers: Vec<Handler>,
}

#[derive(Deserialize)]
struct Handler {
    #[serde(default, deserialize_with = "or_default")]
    r#type: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AccessControl {
    #[serde(deserialize_with = "or_default")]
    default_action: String,
    #[serde(deserialize_with = "or_default")]
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    #[serde(default, deserialize_with = "or_default")]
    default_action: String,
    #[serde(default, deserialize_with = "or_default")]
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    #[serde(default, deserialize_with = "or_default")]
    action: String,
}

impl Spec {
    /// # Errors
    /// A text that names the field, what was found and what is allowed.
    pub(super) fn check(self) -> Result<Configuration, String> {
        self.http_pipeline.check("spec.httpPipeline")?;
        self.app_http_pipeline.check("spec.appHttpPipeline")?;
        self.access_control.check()?;
        Ok(Configuration {
            secret_scopes: self.secrets.check()?,
            api: ApiAccess { allowed: rules("allowed", self.api.allowed)?, denied: rules("denied", self.api.denied)? },
            denied_components: self.components.deny.into_iter().filter(|denied| !denied.is_empty()).collect(),
            features: features(&self.features),
            api_logging: self.logging.api_logging,
            metrics_enabled: self.metrics.enabled.or(self.metric.enabled).unwrap_or(true),
            record_error_codes: self.metrics.record_error_codes || self.metric.record_error_codes,
            wasm: self.wasm,
        })
    }
}

impl Secrets {
    fn check(self) -> Result<BTreeMap<String, Scope>, String> {
        let mut scopes = BTreeMap::new();
        for scope in self.scopes {
            let access = &scope.default_access;
            let deny_by_default = access.eq_ignore_ascii_case("deny");
            if !(deny_by_default || access.is_empty() || access.eq_ignore_ascii_case("allow")) {
                return Err(format!("spec.secrets.scopes: defaultAccess {access} can be either allow or deny"));
            }
            let store = scope.store_name;
            let checked = Scope { deny_by_default, allowed: scope.allowed_secrets, denied: scope.denied_secrets };
            if scopes.insert(store.clone(), checked).is_some() {
                return Err(format!("spec.secrets.scopes: {store} storeName is repeated in secrets configuration"));
            }
        }
        Ok(scopes)
    }
}

fn rules(list: &str, written: Vec<Rule>) -> Result<Vec<ApiRule>, String> {
    let rule = |Rule { name, version, protocol }| {
        let protocol = match protocol.to_lowercase().as_str() {
            "http" => Protocol::Http,
            "grpc" => Protocol::Grpc,
            _ => return Err(format!("spec.api.{list}: protocol {protocol:?} of {name}, expected http or grpc")),
        };
        Ok(ApiRule { name, version, protocol })
    };
    written.into_iter().map(rule).collect()
}

fn features(written: &[Feature]) -> Vec<String> {
    let mut on = BTreeSet::new();
    for feature in written.iter().filter(|feature| !feature.name.is_empty()) {
        if feature.enabled {
            on.insert(feature.name.as_str());
        } else {
            on.remove(feature.name.as_str());
        }
    }
    on.into_iter().map(str::to_owned).collect()
}

impl Pipeline {
    fn check(&self, field: &str) -> Result<(), String> {
        let Some(first) = self.handlers.first() else { return Ok(()) };
        let found = &first.r#type;
        Err(format!(
            "{field}: handler {found}: this version has no middleware; remove the handlers, or what they guard is open"
        ))
    }
}

impl AccessControl {
    fn check(&self) -> Result<(), String> {
        let denies = |action: &str| action.eq_ignore_ascii_case("deny");
        let policy_denies = |policy: &Policy| {
            denies(&policy.default_action) || policy.operations.iter().any(|operation| denies(&operation.action))
        };
        if denies(&self.default_action) || self.policies.iter().any(policy_denies) {
            return Err("spec.accessControl: this version denies no service invocation; remove what is denied, or it would be open".into());
        }
        Ok(())
    }
}
