//! How often resiliency policies were in force, and how often they had something to do.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::escaped;
use crate::{Identity, resiliency::State};

/// Targets that are told apart. Callers name apps freely, so there must be a bound; those beyond are not shown.
const MAX_TARGETS: usize = 2000;

/// Which way calls go between the app and the target of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

/// What is measured of the policies of one app.
#[derive(Debug)]
pub(crate) struct ResiliencyMeter {
    app_id: String,
    /// Name and namespace of each resource, in order. The last one lends its name to all, as in Dapr.
    resources: Vec<(String, String)>,
    policies: Mutex<BTreeMap<(String, Direction), Arc<PolicyMeter>>>,
}

/// What is measured of the policies for one target.
#[derive(Debug, Default)]
pub(crate) struct PolicyMeter {
    timeout: Counter,
    retry: Counter,
    /// By the breaker's state.
    breaker: [Counter; State::ALL.len()],
    /// The last state seen, plus one; 0 before the first.
    last_state: AtomicUsize,
}

/// How often a policy was in force, and how often it acted.
#[derive(Debug, Default)]
struct Counter {
    applied: AtomicU64,
    activated: AtomicU64,
}

impl PolicyMeter {
    /// Notes an operation under these policies.
    pub(crate) fn applied(&self, timeout: bool, retry: bool, breaker: Option<State>) {
        if timeout {
            increment(&self.timeout.applied);
        }
        if retry {
            increment(&self.retry.applied);
        }
        if let Some(state) = breaker {
            increment(&self.breaker[state as usize].applied);
            self.last_state.store(state as usize + 1, Ordering::Relaxed);
        }
    }

    /// Notes an operation that was given up for the first time.
    pub(crate) fn timeout_activated(&self) {
        increment(&self.timeout.activated);
    }

    /// Notes an operation that is tried again for the first time.
    pub(crate) fn retry_activated(&self) {
        increment(&self.retry.activated);
    }

    /// Notes that the breaker changed to `state`.
    pub(crate) fn breaker_activated(&self, state: State) {
        increment(&self.breaker[state as usize].activated);
    }
}

fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl ResiliencyMeter {
    pub(super) fn new(app: &Identity, resources: &[(&str, &str)]) -> Self {
        let owned = |(name, namespace): &(&str, &str)| ((*name).to_owned(), (*namespace).to_owned());
        Self { app_id: app.id.clone(), resources: resources.iter().map(owned).collect(), policies: Mutex::default() }
    }

    /// The meter of a target, by Dapr's label for it.
    pub(crate) fn policy(&self, target: &str, direction: Direction) -> Arc<PolicyMeter> {
        let mut policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.to_owned(), direction);
        if policies.len() >= MAX_TARGETS && !policies.contains_key(&key) {
            return Arc::default();
        }
        Arc::clone(policies.entry(key).or_default())
    }
}

pub(super) fn render(text: &mut String, meters: &[Arc<ResiliencyMeter>]) {
    if meters.is_empty() {
        return;
    }
    header(text, "loaded", "counter", "Number of resiliency policies loaded.");
    for meter in meters {
        let mut loaded = BTreeMap::<_, u64>::new();
        for resource in &meter.resources {
            *loaded.entry(resource).or_default() += 1;
        }
        for ((name, namespace), count) in loaded {
            let (app, name, namespace) = (escaped(&meter.app_id), escaped(name), escaped(namespace));
            let labels = format!("app_id=\"{app}\",name=\"{name}\",namespace=\"{namespace}\"");
            let _ = writeln!(text, "dapr_resiliency_loaded{{{labels}}} {count}");
        }
    }
    let count = "Number of times a resiliency policyKey has been applied to a building block.";
    header(text, "count", "counter", count);
    each_counter(meters, |labels, counter| line(text, "count", labels, &counter.applied));
    let activations = "Number of times a resiliency policyKey has been activated in a building block after a failure or after a state change.";
    header(text, "activations_total", "counter", activations);
    each_counter(meters, |labels, counter| line(text, "activations_total", labels, &counter.activated));
    let states = "A resiliency policy's current CircuitBreakerState state. 0 is closed, 1 is half-open, 2 is open, and -1 is unknown.";
    header(text, "cb_state", "gauge", states);
    each_policy(meters, |meter, target, direction, policy| {
        let Some(last) = policy.last_state.load(Ordering::Relaxed).checked_sub(1) else { return };
        let names = State::ALL.map(State::name).into_iter().chain(["unknown"]);
        for (index, status) in names.enumerate() {
            let labels = labels(meter, target, direction, "circuitbreaker", status);
            let _ = writeln!(text, "dapr_resiliency_cb_state{{{labels}}} {}", u8::from(index == last));
        }
    });
}

fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP dapr_resiliency_{name} {help}");
    let _ = writeln!(text, "# TYPE dapr_resiliency_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, counter: &AtomicU64) {
    let count = counter.load(Ordering::Relaxed);
    if count > 0 {
        let _ = writeln!(text, "dapr_resiliency_{name}{{{labels}}} {count}");
    }
}

fn each_policy(meters: &[Arc<ResiliencyMeter>], mut show: impl FnMut(&ResiliencyMeter, &str, Direction, &PolicyMeter)) {
    for meter in meters {
        let policies = meter.policies.lock().unwrap_or_else(PoisonError::into_inner);
        for ((target, direction), policy) in &*policies {
            show(meter, target, *direction, policy);
        }
    }
}

fn each_counter(meters: &[Arc<ResiliencyMeter>], mut show: impl FnMut(&str, &Counter)) {
    each_policy(meters, |meter, target, direction, policy| {
        show(&labels(meter, target, direction, "timeout", ""), &policy.timeout);
        show(&labels(meter, target, direction, "retry", ""), &policy.retry);
        for (state, counter) in State::ALL.into_iter().zip(&policy.breaker) {
            show(&labels(meter, target, direction, "circuitbreaker", state.name()), counter);
        }
    });
}

fn labels(meter: &ResiliencyMeter, target: &str, direction: Direction, policy: &str, status: &str) -> String {
    let (name, namespace) = meter.resources.last().map_or(("", ""), |(name, namespace)| (name, namespace));
    let direction = match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    format!(
        "app_id=\"{}\",flow_direction=\"{direction}\",name=\"{}\",namespace=\"{}\",policy=\"{policy}\",status=\"{status}\",target=\"{}\"",
        escaped(&meter.app_id),
        escaped(name),
        escaped(namespace),
        escaped(target)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_have_daprs_names_and_labels() {
        let meter = ResiliencyMeter::new(&Identity::new("client"), &[("first", ""), ("myresiliency", "ns")]);
        let policy = meter.policy("app_server", Direction::Outbound);
        policy.applied(true, false, Some(State::Closed));
        policy.timeout_activated();
        policy.breaker_activated(State::Open);
        let mut text = String::new();
        render(&mut text, &[Arc::new(meter)]);
        let series = |name, policy, status, count| {
            let labels = format!(
                "app_id=\"client\",flow_direction=\"outbound\",name=\"myresiliency\",namespace=\"ns\",policy=\"{policy}\",status=\"{status}\",target=\"app_server\""
            );
            format!("dapr_resiliency_{name}{{{labels}}} {count}\n")
        };
        for expected in [
            "dapr_resiliency_loaded{app_id=\"client\",name=\"first\",namespace=\"\"} 1\n".to_owned(),
            series("count", "timeout", "", 1),
            series("count", "circuitbreaker", "closed", 1),
            series("activations_total", "timeout", "", 1),
            series("activations_total", "circuitbreaker", "open", 1),
            series("cb_state", "circuitbreaker", "closed", 1),
            series("cb_state", "circuitbreaker", "open", 0),
            series("cb_state", "circuitbreaker", "unknown", 0),
        ] {
            assert!(text.contains(&expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("retry"), "{text}");
    }
}
