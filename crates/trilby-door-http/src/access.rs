//! Which APIs an app may use: `spec.api` of its Configuration.

use crate::route::{self, Endpoint};

/// The rules for protocol `http`, each as `version/name`: a group such as `v1/state` or `v1alpha1/state`, or the start
/// of a path such as `v1.0/state` or `v1.0-alpha1/state/{storeName}/query`.
///
/// An API that is not permitted does not exist: its path is then taken for an invocation. Health is always permitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// If not empty, only these.
    pub allowed: Vec<String>,
    /// Not these, even if they are in `allowed`.
    pub denied: Vec<String>,
}

/// What a door has to offer.
pub(crate) struct Permitted {
    endpoints: [bool; Endpoint::ALL.len()],
    /// Whether what is no endpoint is taken for an invocation.
    pub(crate) invocation: bool,
}

impl Permitted {
    pub(crate) fn contains(&self, endpoint: Endpoint) -> bool {
        self.endpoints[endpoint as usize]
    }

    /// Health and metadata, to be read only.
    pub(crate) fn for_probes() -> Self {
        let public = |endpoint: Endpoint| endpoint == Endpoint::GetMetadata || endpoint.is_probe();
        Self { endpoints: Endpoint::ALL.map(public), invocation: false }
    }
}

impl Access {
    /// What these rules leave. Without a hook there is no shutdown either.
    pub(crate) fn permitted(&self, has_shutdown: bool) -> Permitted {
        let exists = |endpoint| endpoint != Endpoint::Shutdown || has_shutdown;
        let permits = |endpoint: Endpoint| endpoint.is_probe() || self.permits(endpoint.names());
        Permitted {
            endpoints: Endpoint::ALL.map(|endpoint| exists(endpoint) && permits(endpoint)),
            invocation: self.permits(route::INVOKE_NAMES),
        }
    }

    fn permits(&self, (group, path): (&str, &str)) -> bool {
        let named_in = |rules: &[String]| rules.iter().any(|rule| rule == group || path.starts_with(rule.as_str()));
        !named_in(&self.denied) && (self.allowed.is_empty() || named_in(&self.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(allowed: &[&str], denied: &[&str]) -> Permitted {
        let list = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        Access { allowed: list(allowed), denied: list(denied) }.permitted(true)
    }

    #[test]
    fn no_rules_permit_everything() {
        let all = permitted(&[], &[]);
        assert!(all.invocation && Endpoint::ALL.into_iter().all(|endpoint| all.contains(endpoint)));
    }

    #[test]
    fn a_denied_api_is_gone_even_if_it_is_allowed_too() {
        let some = permitted(&["v1/state", "v1.0/secrets"], &["v1.0/secrets"]);
        assert!(some.contains(Endpoint::GetState));
        assert!(!some.contains(Endpoint::GetSecret));
        assert!(!some.contains(Endpoint::QueryState), "alpha is a group of its own");
        assert!(!some.invocation);
    }

    #[test]
    fn health_cannot_be_denied() {
        let some = permitted(&["v1/state"], &["v1.0/healthz"]);
        assert!(some.contains(Endpoint::Health) && some.contains(Endpoint::OutboundHealth));
    }

    #[test]
    fn a_path_rule_covers_what_starts_with_it() {
        let some = permitted(&["v1.0-alpha1/state", "v1.0/metadata"], &[]);
        assert!(some.contains(Endpoint::QueryState));
        assert!(some.contains(Endpoint::SetMetadata));
        assert!(!some.contains(Endpoint::SaveState));
    }
}
