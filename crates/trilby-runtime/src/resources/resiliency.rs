//! Resiliency resources: policies by name, and the targets that they hold for.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Deserializer};
use serde_norway::Value;
use trilby_component::properties::duration;
use trilby_core::resiliency::{
    AppTarget, Backoff, BreakerSettings, ComponentTarget, Names, Policies, Resource, Retry, StatusCodes, Trip,
};

use super::{Document, Header, Manifest, or_default, pair::to_text};
use crate::error::StartError;

/// Dapr's defaults.
const WAIT: Duration = Duration::from_secs(5);
const MAX_INTERVAL: Duration = Duration::from_secs(60);
const MAX_ELAPSED: Duration = Duration::from_secs(15 * 60);

/// A Resiliency resource.
#[derive(Clone)]
pub struct Resiliency {
    /// What every resource has.
    pub header: Header,
    /// What it says.
    pub resource: Resource,
    references: Vec<Reference>,
}

/// A field that names a policy.
#[derive(Clone)]
struct Reference {
    field: String,
    kind: Kind,
    name: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Timeout,
    Retry,
    Breaker,
}

impl Resiliency {
    pub(super) fn read(document: &Document<'_>) -> Result<Self, StartError> {
        let (header, spec) = document.decode::<Manifest<Spec>>()?.split(document)?;
        // The beginning is daprd's: people search their logs for it.
        let failed = |reason| document.error(format!("Could not read resiliency policy {}: {reason}", header.name));
        let PoliciesSpec { timeouts, retries, circuit_breakers } = spec.policies;
        let mut resource = Resource {
            name: header.name.clone(),
            namespace: header.namespace.clone().unwrap_or_default(),
            timeouts: each("timeouts", timeouts, |field, Text(text)| parse_duration(field, &text)).map_err(failed)?,
            retries: each("retries", retries, retry).map_err(failed)?,
            breakers: each("circuitBreakers", circuit_breakers, breaker).map_err(failed)?,
            ..Resource::default()
        };
        let mut references = Vec::new();
        for (name, target) in spec.targets.apps {
            let names = target.names(&format!("spec.targets.apps.{name}"), &mut references);
            let breaker_cache_size = NonZeroUsize::new(target.circuit_breaker_cache_size);
            resource.apps.insert(name, AppTarget { names, breaker_cache_size });
        }
        for (name, target) in spec.targets.components {
            let inbound = target.inbound.names(&format!("spec.targets.components.{name}.inbound"), &mut references);
            let outbound = target.outbound.names(&format!("spec.targets.components.{name}.outbound"), &mut references);
            resource.components.insert(name, ComponentTarget { inbound, outbound });
        }
        // There are no actors yet, but a mistake is one already.
        for (name, target) in spec.targets.actors {
            let field = format!("spec.targets.actors.{name}");
            let names = target.names(&field, &mut references);
            let scope = &target.circuit_breaker_scope.0;
            if names.breaker.is_some() && !["type", "id", "both"].contains(&scope.as_str()) {
                return Err(failed(format!("{field}.circuitBreakerScope {scope:?} is not type, id or both")));
            }
        }
        Ok(Self { header, resource, references })
    }
}

/// What is wrong with the resources of one app taken together: targets that name policies which none of them has.
pub(crate) fn unknown_policies(all: &[Arc<Resiliency>]) -> Vec<StartError> {
    let exists = |Reference { kind, name, .. }: &Reference| {
        all.iter().map(|one| &one.resource).any(|resource| match kind {
            Kind::Timeout => resource.timeouts.contains_key(name),
            Kind::Retry => resource.retries.contains_key(name) || Policies::has_built_in(name),
            Kind::Breaker => resource.breakers.contains_key(name),
        })
    };
    let references = all.iter().flat_map(|one| one.references.iter().map(move |reference| (&one.header, reference)));
    let unknown =
        references.filter(|(_, reference)| !exists(reference)).map(|(header, Reference { field, name, .. })| {
            let message = format!(
                "Resiliency {}: {field} names the policy {name}, which no Resiliency of the app has",
                header.name
            );
            StartError::Document { origin: header.origin.clone(), message }
        });
    unknown.collect()
}

/// Reads the policies of one kind.
fn each<S, T>(
    kind: &str,
    specs: BTreeMap<String, S>,
    read: impl Fn(&str, S) -> Result<T, String>,
) -> Result<HashMap<String, T>, String> {
    let read = |(name, spec): (String, S)| {
        let policy = read(&format!("spec.policies.{kind}.{name}"), spec)?;
        Ok((name, policy))
    };
    specs.into_iter().map(read).collect()
}

fn retry(field: &str, spec: RetrySpec) -> Result<Retry, String> {
    let wait = spec.duration.parse(&format!("{field}.duration"))?.unwrap_or(WAIT);
    let max_interval = spec.max_interval.parse(&format!("{field}.maxInterval"))?.unwrap_or(MAX_INTERVAL);
    let backoff = match spec.policy.0.to_ascii_lowercase().as_str() {
        "" | "constant" => Backoff::Constant(wait),
        "exponential" => Backoff::Exponential { max_interval, max_elapsed: MAX_ELAPSED },
        _ => return Err(format!("{field}.policy {:?} is not constant or exponential", spec.policy.0)),
    };
    let RetryMatching { http_status_codes, grpc_status_codes } = spec.matching;
    let http_codes = StatusCodes::http(&http_status_codes.0);
    let grpc_codes = StatusCodes::grpc(&grpc_status_codes.0);
    Ok(Retry {
        // A negative number means no limit.
        max_retries: spec.max_retries.and_then(|retries| u32::try_from(retries).ok()),
        http_codes: http_codes.map_err(|reason| format!("{field}.matching.httpStatusCodes: {reason}"))?,
        grpc_codes: grpc_codes.map_err(|reason| format!("{field}.matching.gRPCStatusCodes: {reason}"))?,
        ..Retry::new(backoff, None)
    })
}

fn breaker(field: &str, spec: BreakerSpec) -> Result<BreakerSettings, String> {
    let defaults = BreakerSettings::default();
    let is_set = |duration: &Duration| !duration.is_zero();
    Ok(BreakerSettings {
        max_requests: spec.max_requests.max(1),
        interval: spec.interval.parse(&format!("{field}.interval"))?.filter(is_set),
        timeout: spec.timeout.parse(&format!("{field}.timeout"))?.filter(is_set).unwrap_or(defaults.timeout),
        trip: match spec.trip.0.as_str() {
            "" => defaults.trip,
            text => Trip::parse(text).map_err(|reason| format!("{field}.trip {text:?}: {reason}"))?,
        },
    })
}

/// A bare number is in milliseconds.
fn parse_duration(field: &str, text: &str) -> Result<Duration, String> {
    let millis = text.parse().ok().map(Duration::from_millis);
    millis
        .or_else(|| duration::parse(text))
        .ok_or_else(|| format!("{field} {text:?} is not a duration such as 500ms or 5s"))
}

/// A scalar of any kind: YAML takes `500` for a number where a resource means text.
#[derive(Default, Deserialize)]
#[serde(from = "Value")]
struct Text(String);

impl From<Value> for Text {
    fn from(value: Value) -> Self {
        Self(to_text(value).unwrap_or_default())
    }
}

impl Text {
    /// A duration, unless there is none.
    fn parse(&self, field: &str) -> Result<Option<Duration>, String> {
        if self.0.is_empty() { Ok(None) } else { parse_duration(field, &self.0).map(Some) }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(deserialize_with = "or_default")]
    policies: PoliciesSpec,
    #[serde(deserialize_with = "or_default")]
    targets: TargetsSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PoliciesSpec {
    #[serde(deserialize_with = "named")]
    timeouts: BTreeMap<String, Text>,
    #[serde(deserialize_with = "named")]
    retries: BTreeMap<String, RetrySpec>,
    #[serde(deserialize_with = "named")]
    circuit_breakers: BTreeMap<String, BreakerSpec>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RetrySpec {
    policy: Text,
    duration: Text,
    max_interval: Text,
    max_retries: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    matching: RetryMatching,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RetryMatching {
    #[serde(rename = "httpStatusCodes")]
    http_status_codes: Text,
    #[serde(rename = "gRPCStatusCodes", alias = "grpcStatusCodes")]
    grpc_status_codes: Text,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BreakerSpec {
    #[serde(deserialize_with = "or_default")]
    max_requests: u32,
    interval: Text,
    timeout: Text,
    trip: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TargetsSpec {
    #[serde(deserialize_with = "named")]
    apps: BTreeMap<String, TargetSpec>,
    #[serde(deserialize_with = "named")]
    actors: BTreeMap<String, TargetSpec>,
    #[serde(deserialize_with = "named")]
    components: BTreeMap<String, ComponentSpec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ComponentSpec {
    #[serde(deserialize_with = "or_default")]
    inbound: TargetSpec,
    #[serde(deserialize_with = "or_default")]
    outbound: TargetSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TargetSpec {
    timeout: Text,
    retry: Text,
    circuit_breaker: Text,
    #[serde(deserialize_with = "or_default")]
    circuit_breaker_cache_size: usize,
    circuit_breaker_scope: Text,
}

/// A map in which `null` stands for nothing, as a whole and for each entry.
fn named<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    let entries = Option::<BTreeMap<String, Option<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(entries.into_iter().map(|(name, entry)| (name, entry.unwrap_or_default())).collect())
}

impl TargetSpec {
    /// The names of its policies, noted as references of `target`.
    fn names(&self, target: &str, references: &mut Vec<Reference>) -> Names {
        let mut name = |field: &str, kind, Text(name): &Text| {
            if name.is_empty() {
                return None;
            }
            references.push(Reference { field: format!("{target}.{field}"), kind, name: name.clone() });
            Some(name.clone())
        };
        Names {
            timeout: name("timeout", Kind::Timeout, &self.timeout),
            retry: name("retry", Kind::Retry, &self.retry),
            breaker: name("circuitBreaker", Kind::Breaker, &self.circuit_breaker),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::documents;

    fn read(spec: &str) -> Result<Resiliency, StartError> {
        let text = format!("apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: r}}\nspec:\n{spec}");
        Resiliency::read(&documents("f.yaml", &text)[0])
    }

    #[test]
    fn a_resource_is_read_with_daprs_defaults_and_habits() {
        let Resiliency { resource, .. } = read(
            r#"
  policies:
    timeouts: {general: 5s, bare: 500}
    retries:
      plain: {}
      many: {policy: Exponential, maxInterval: 15s, maxRetries: -1}
      codes: {duration: 10ms, maxRetries: 3, matching: {httpStatusCodes: "429,500-599", gRPCStatusCodes: 4}}
    circuitBreakers:
      plain:
      trips: {maxRequests: 2, interval: 8s, timeout: 45s, trip: consecutiveFailures > 8}
  targets:
    apps: {b: {timeout: general, circuitBreaker: trips, circuitBreakerCacheSize: 7}}
    actors: {a: {circuitBreaker: trips, circuitBreakerScope: both}}
    components: {store: {outbound: {retry: plain}}}
"#,
        )
        .expect("a resource");
        assert_eq!(resource.timeouts["general"], Duration::from_secs(5));
        assert_eq!(resource.timeouts["bare"], Duration::from_millis(500));
        assert_eq!(resource.retries["plain"], Retry::new(Backoff::Constant(WAIT), None));
        let backoff = Backoff::Exponential { max_interval: Duration::from_secs(15), max_elapsed: MAX_ELAPSED };
        assert_eq!(resource.retries["many"], Retry::new(backoff, None));
        assert_eq!(resource.retries["codes"].max_retries, Some(3));
        assert_eq!(resource.retries["codes"].grpc_codes, StatusCodes::In(vec![4..=4]));
        assert_eq!((resource.breakers["plain"].max_requests, resource.breakers["plain"].interval), (1, None));
        assert_eq!(resource.breakers["trips"].timeout, Duration::from_secs(45));
        assert_eq!(resource.apps["b"].breaker_cache_size.map(NonZeroUsize::get), Some(7));
        assert_eq!(resource.components["store"].outbound.retry.as_deref(), Some("plain"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_policy_and_field() {
        for (spec, expect) in [
            (
                "  policies: {timeouts: {t: soon}}",
                "spec.policies.timeouts.t \"soon\" is not a duration such as 500ms or 5s",
            ),
            (
                "  policies: {retries: {r: {duration: -1s}}}",
                "spec.policies.retries.r.duration \"-1s\" is not a duration",
            ),
            (
                "  policies: {retries: {r: {policy: linear}}}",
                "spec.policies.retries.r.policy \"linear\" is not constant",
            ),
            (
                "  policies: {retries: {r: {matching: {gRPCStatusCodes: 400}}}}",
                "spec.policies.retries.r.matching.gRPCStatusCodes: \"400\" is not a status from 0 to 16",
            ),
            (
                "  policies: {circuitBreakers: {c: {trip: 'consecutiveFailures >'}}}",
                "spec.policies.circuitBreakers.c.trip",
            ),
            (
                "  targets: {actors: {a: {circuitBreaker: c}}}",
                "spec.targets.actors.a.circuitBreakerScope \"\" is not type, id or both",
            ),
        ] {
            let error = read(spec).err().expect(spec).to_string();
            let expect = format!("f.yaml: document 1, line 1: Could not read resiliency policy r: {expect}");
            assert!(error.starts_with(&expect), "{error}");
        }
    }

    #[test]
    fn a_target_may_name_the_policies_of_another_resource_and_built_in_ones_but_no_others() {
        let policies = read("  policies: {timeouts: {t: 1s}}").expect("a resource");
        let targets = read("  targets: {apps: {a: {timeout: t, retry: DaprBuiltInServiceRetries, circuitBreaker: c}}}")
            .expect("a resource");
        let errors = unknown_policies(&[policies, targets].map(Arc::new));
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        let expect = "f.yaml: document 1, line 1: Resiliency r: spec.targets.apps.a.circuitBreaker names the policy c, \
                      which no Resiliency of the app has";
        assert_eq!(error.to_string(), expect);
    }
}
