//! Which APIs an app may use: `spec.api` of its Configuration.

use crate::route::Endpoint;

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

/// The endpoints that a door has.
pub(crate) struct Permitted([bool; Endpoint::ALL.len()]);

impl Permitted {
    pub(crate) fn contains(&self, endpoint: Endpoint) -> bool {
        self.0[endpoint as usize]
    }
}

impl Access {
    /// What these rules leave of the endpoints for which `exists` holds.
    pub(crate) fn permitted(&self, exists: impl Fn(Endpoint) -> bool) -> Permitted {
        Permitted(Endpoint::ALL.map(|endpoint| exists(endpoint) && self.permits(endpoint)))
    }

    fn permits(&self, endpoint: Endpoint) -> bool {
        if matches!(endpoint, Endpoint::Health | Endpoint::OutboundHealth) {
            return true;
        }
        let named_in = |rules: &[String]| rules.iter().any(|rule| names(rule, endpoint));
        !named_in(&self.denied) && (self.allowed.is_empty() || named_in(&self.allowed))
    }
}

fn names(rule: &str, endpoint: Endpoint) -> bool {
    let (group, path) = endpoint.names();
    rule == group || path.starts_with(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(allowed: &[&str], denied: &[&str]) -> Permitted {
        let list = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        Access { allowed: list(allowed), denied: list(denied) }.permitted(|_| true)
    }

    #[test]
    fn no_rules_permit_everything() {
        let all = permitted(&[], &[]);
        assert!(Endpoint::ALL.into_iter().all(|endpoint| all.contains(endpoint)));
    }

    #[test]
    fn a_denied_api_is_gone_even_if_it_is_allowed_too() {
        let some = permitted(&["v1/state", "v1.0/secrets"], &["v1.0/secrets"]);
        assert!(some.contains(Endpoint::GetState));
        assert!(!some.contains(Endpoint::GetSecret));
        assert!(!some.contains(Endpoint::QueryState), "alpha is a group of its own");
        assert!(!some.contains(Endpoint::Invoke));
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
