//! Which policy holds for which target: what Resiliency resources say, laid over each other, and Dapr's names for the
//! policies that hold by default.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hashlink::LruCache;

use super::{Backoff, Block, Breaker, BreakerSettings, Policy, Retry, Rules};
use crate::{
    Identity,
    metrics::{Direction, Metrics, ResiliencyMeter},
};

/// Breakers that are kept for one app, unless its target says otherwise.
const BREAKERS_PER_APP: usize = 100;
/// Apps without a target of their own whose breakers are kept. Callers name apps freely, so there must be a bound.
const DEFAULT_APPS: usize = 1000;

/// What one Resiliency resource says.
#[derive(Debug, Clone, Default)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Its namespace; may be empty.
    pub namespace: String,
    /// Timeouts by name. Zero means none.
    pub timeouts: HashMap<String, Duration>,
    /// Retries by name.
    pub retries: HashMap<String, Retry>,
    /// Circuit breakers by name.
    pub breakers: HashMap<String, BreakerSettings>,
    /// What holds for calls to apps, HTTP endpoints and URLs.
    pub apps: HashMap<String, AppTarget>,
    /// What holds for components.
    pub components: HashMap<String, ComponentTarget>,
}

/// The policies of a target, by name. A name that no resource explains stands for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Name of a timeout.
    pub timeout: Option<String>,
    /// Name of a retry.
    pub retry: Option<String>,
    /// Name of a circuit breaker.
    pub breaker: Option<String>,
}

/// What holds for calls to an app.
#[derive(Debug, Clone, Default)]
pub struct AppTarget {
    /// Its policies. Each method has a breaker of its own.
    pub names: Names,
    /// How many methods' breakers are kept. Default 100.
    pub breaker_cache_size: Option<NonZeroUsize>,
}

/// What holds for a component.
#[derive(Debug, Clone, Default)]
pub struct ComponentTarget {
    /// For what comes from it to the app.
    pub inbound: Names,
    /// For calls to it.
    pub outbound: Names,
}

/// The policies of one app. The default has none.
#[derive(Clone, Default)]
pub struct Policies(Option<Arc<Inner>>);

struct Inner {
    timeouts: HashMap<String, Duration>,
    retries: HashMap<String, Arc<Retry>>,
    breakers: HashMap<String, Arc<BreakerSettings>>,
    apps: HashMap<String, AppPolicies>,
    components: HashMap<String, ComponentTarget>,
    /// By component and policy: both directions of a component share a breaker that both name.
    component_breakers: Mutex<HashMap<(String, String), Arc<Breaker>>>,
    /// Of apps without a target of their own, if there are default policies.
    default_apps: Mutex<LruCache<String, Arc<AppPolicies>>>,
    meter: Arc<ResiliencyMeter>,
}

/// What holds for calls to one app.
struct AppPolicies {
    rules: Option<Arc<Rules>>,
    breakers: Option<AppBreakers>,
}

struct AppBreakers {
    settings: Arc<BreakerSettings>,
    by_endpoint: Mutex<LruCache<String, Arc<Breaker>>>,
}

impl Policies {
    /// The policies that these resources give `app`: of two of one name, the later counts.
    pub fn new<'a>(resources: impl IntoIterator<Item = &'a Resource>, app: &Identity, metrics: &Metrics) -> Self {
        let mut all = Resource::default();
        let mut loaded = Vec::new();
        for resource in resources {
            merge(&mut all, resource);
            loaded.push((&*resource.name, &*resource.namespace));
        }
        if loaded.is_empty() {
            return Self::default();
        }
        let mut retries = built_in();
        retries.extend(all.retries);
        let mut inner = Inner {
            timeouts: all.timeouts,
            retries: retries.into_iter().map(|(name, retry)| (name, Arc::new(retry))).collect(),
            breakers: all.breakers.into_iter().map(|(name, breaker)| (name, Arc::new(breaker))).collect(),
            apps: HashMap::new(),
            components: all.components,
            component_breakers: Mutex::default(),
            default_apps: Mutex::new(LruCache::new(DEFAULT_APPS)),
            meter: metrics.resiliency(app, &loaded),
        };
        let apps = all.apps.iter().map(|(name, target)| (name.clone(), inner.app(name, target))).collect();
        inner.apps = apps;
        Self(Some(Arc::new(inner)))
    }

    /// Whether a policy of that name is built in.
    #[must_use]
    pub fn has_built_in(retry: &str) -> bool {
        built_in().contains_key(retry)
    }

    /// What holds for calls to a component.
    #[must_use]
    pub fn component_outbound(&self, block: Block, name: &str) -> Policy {
        self.0.as_ref().map(|inner| inner.component(block, name, Direction::Outbound)).unwrap_or_default()
    }

    /// What holds for events from a component to the app.
    #[must_use]
    pub fn component_inbound(&self, block: Block, name: &str) -> Policy {
        self.0.as_ref().map(|inner| inner.component(block, name, Direction::Inbound)).unwrap_or_default()
    }

    /// What holds for calls to an app, an HTTP endpoint or a URL, as the caller names it. `endpoint` is what has a
    /// breaker of its own there: a method, mostly.
    #[must_use]
    pub fn app(&self, target: &str, endpoint: impl FnOnce() -> String) -> Policy {
        let Some(inner) = &self.0 else { return Policy::default() };
        if let Some(app) = inner.apps.get(target) {
            return app.policy(endpoint);
        }
        let names = inner.default_names(&["App"]);
        if names == Names::default() {
            return Policy::default();
        }
        let mut cache = inner.default_apps.lock().unwrap_or_else(PoisonError::into_inner);
        let app = cache
            .entry(target.to_owned())
            .or_insert_with(|| Arc::new(inner.app(target, &AppTarget { names, breaker_cache_size: None })));
        let app = Arc::clone(app);
        drop(cache);
        app.policy(endpoint)
    }
}

impl Inner {
    fn component(&self, block: Block, name: &str, direction: Direction) -> Policy {
        let default;
        let names = match (self.components.get(name), direction) {
            (Some(target), Direction::Inbound) => &target.inbound,
            (Some(target), Direction::Outbound) => &target.outbound,
            (None, direction) => {
                let side = if direction == Direction::Inbound { "Inbound" } else { "Outbound" };
                let own = format!("{}Component{side}", block.policy_name());
                default = self.default_names(&[&own, &format!("Component{side}"), "Component"]);
                &default
            }
        };
        let breaker = names.breaker.as_ref().and_then(|policy| {
            let settings = self.breakers.get(policy)?;
            let mut breakers = self.component_breakers.lock().unwrap_or_else(PoisonError::into_inner);
            let breaker = breakers.entry((name.to_owned(), policy.clone()));
            let new = || Arc::new(Breaker::new(format!("{policy}-{name}"), Arc::clone(settings)));
            Some(Arc::clone(breaker.or_insert_with(new)))
        });
        let side = if direction == Direction::Inbound { "input" } else { "output" };
        let label = format!("{}_{name}", block.policy_name());
        let rules = self.rules(names, format!("component[{name}] {side}"), &label, direction);
        Policy { rules, breaker }
    }

    fn app(&self, name: &str, target: &AppTarget) -> AppPolicies {
        let size = target.breaker_cache_size.map_or(BREAKERS_PER_APP, NonZeroUsize::get);
        let settings = target.names.breaker.as_ref().and_then(|policy| self.breakers.get(policy));
        AppPolicies {
            rules: self.rules(&target.names, format!("app[{name}]"), &format!("app_{name}"), Direction::Outbound),
            breakers: settings.map(|settings| AppBreakers {
                settings: Arc::clone(settings),
                by_endpoint: Mutex::new(LruCache::new(size)),
            }),
        }
    }

    /// The part of a policy that has no state; `None` if nothing holds.
    fn rules(&self, names: &Names, target: String, label: &str, direction: Direction) -> Option<Arc<Rules>> {
        let timeout = names.timeout.as_ref().and_then(|name| self.timeouts.get(name));
        let retry = names.retry.as_ref().and_then(|name| self.retries.get(name));
        let has_breaker = names.breaker.as_ref().is_some_and(|name| self.breakers.contains_key(name));
        if timeout.is_none() && retry.is_none() && !has_breaker {
            return None;
        }
        let meter = self.meter.policy(label, direction);
        let timeout = timeout.copied().filter(|timeout| !timeout.is_zero());
        Some(Arc::new(Rules { target, timeout, retry: retry.cloned(), meter }))
    }

    /// The policies that hold for targets without their own, by the levels of a target from the narrowest to the widest.
    fn default_names(&self, levels: &[&str]) -> Names {
        let find = |kind: &str, exists: &dyn Fn(&str) -> bool| {
            let names = levels.iter().chain(&[""]).map(|level| format!("Default{level}{kind}Policy"));
            names.into_iter().find(|name| exists(name))
        };
        Names {
            timeout: find("Timeout", &|name| self.timeouts.contains_key(name)),
            retry: find("Retry", &|name| self.retries.contains_key(name)),
            breaker: find("CircuitBreaker", &|name| self.breakers.contains_key(name)),
        }
    }
}

impl AppPolicies {
    fn policy(&self, endpoint: impl FnOnce() -> String) -> Policy {
        let breaker = self.breakers.as_ref().map(|breakers| {
            let endpoint = endpoint();
            let mut cache = breakers.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(breaker) = cache.get(&endpoint) {
                return Arc::clone(breaker);
            }
            let breaker = Arc::new(Breaker::new(endpoint.clone(), Arc::clone(&breakers.settings)));
            cache.insert(endpoint, Arc::clone(&breaker));
            breaker
        });
        Policy { rules: self.rules.clone(), breaker }
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(inner) = &self.0 else { return f.write_str("Policies(none)") };
        f.debug_struct("Policies")
            .field("timeouts", &inner.timeouts)
            .field("retries", &inner.retries)
            .field("breakers", &inner.breakers)
            .field("components", &inner.components)
            .finish_non_exhaustive()
    }
}

const NOT_FOUND_RETRIES: &str = "DaprBuiltInActorNotFoundRetries";
/// No built-in policy may be replaced by one that tries less often.
const BUILT_IN_MIN_RETRIES: u32 = 3;

/// The retries that every app has, by Dapr's names.
fn built_in() -> HashMap<String, Retry> {
    let seconds = Duration::from_secs;
    let constant = |retries| Retry::new(Backoff::Constant(seconds(1)), Some(retries));
    let exponential = |max_interval, max_elapsed| Backoff::Exponential { max_interval, max_elapsed };
    [
        ("DaprBuiltInServiceRetries", constant(3)),
        ("DaprBuiltInActorRetries", constant(3)),
        ("DaprBuiltInActorReminderRetries", Retry::new(exponential(seconds(60), seconds(15 * 60)), None)),
        ("DaprBuiltInInitializationRetries", Retry::new(exponential(seconds(1), seconds(10)), Some(3))),
        (NOT_FOUND_RETRIES, constant(5)),
    ]
    .map(|(name, retry)| (name.to_owned(), retry))
    .into()
}

fn merge(all: &mut Resource, resource: &Resource) {
    all.timeouts.extend(resource.timeouts.clone());
    all.breakers.extend(resource.breakers.clone());
    all.apps.extend(resource.apps.clone());
    all.components.extend(resource.components.clone());
    for (name, retry) in &resource.retries {
        let mut retry = retry.clone();
        if name == NOT_FOUND_RETRIES {
            tracing::warn!(policy = name, resource = resource.name, "built-in policy cannot be overridden, ignored");
            continue;
        }
        let too_few = retry.max_retries.is_none_or(|retries| retries < BUILT_IN_MIN_RETRIES);
        if Policies::has_built_in(name) && too_few {
            tracing::warn!(policy = name, resource = resource.name, "built-in policy needs 3 retries or more, using 3");
            retry.max_retries = Some(BUILT_IN_MIN_RETRIES);
        }
        all.retries.insert(name.clone(), retry);
    }
}
