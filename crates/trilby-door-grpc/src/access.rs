//! Which APIs an app may use: `spec.api` of its Configuration.

use tonic::Status;

use crate::{dapr::METHODS, error};

/// The rules for protocol `grpc`, each as `version/name`, such as `v1/state` or `v1alpha1/state`.
///
/// What is proxied is not Dapr's, so no rule is about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// If not empty, only these.
    pub allowed: Vec<String>,
    /// Not these, even if they are in `allowed`.
    pub denied: Vec<String>,
}

/// The methods that the rules take away.
pub(crate) struct Refused(Vec<&'static str>);

impl Access {
    pub(crate) fn refused(&self) -> Refused {
        Refused(METHODS.iter().filter(|(_, group)| !self.permits(group)).map(|(method, _)| *method).collect())
    }

    fn permits(&self, group: &str) -> bool {
        let named_in = |rules: &[String]| rules.iter().any(|rule| rule == group);
        !named_in(&self.denied) && (self.allowed.is_empty() || named_in(&self.allowed))
    }
}

impl Refused {
    /// The status for `method`, if the rules take it away.
    pub(crate) fn check(&self, method: &str) -> Result<(), Status> {
        if self.0.contains(&method) {
            return Err(error::from_http(http::StatusCode::NOT_IMPLEMENTED, "requested endpoint is not available"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(allowed: &[&str], denied: &[&str]) -> Refused {
        let list = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect();
        Access { allowed: list(allowed), denied: list(denied) }.refused()
    }

    #[test]
    fn no_rules_refuse_nothing() {
        assert!(refused(&[], &[]).0.is_empty());
    }

    #[test]
    fn a_denied_api_is_refused_even_if_it_is_allowed_too() {
        let some = refused(&["v1/state", "v1/secrets"], &["v1/secrets"]);
        assert!(some.check("GetState").is_ok());
        assert_eq!(some.check("GetSecret").expect_err("denied").code(), tonic::Code::Unimplemented);
        assert!(some.check("QueryStateAlpha1").is_err(), "alpha is a group of its own");
        assert!(some.check("InvokeService").is_err());
    }

    #[test]
    fn an_allowed_api_that_does_not_exist_opens_nothing() {
        assert_eq!(refused(&["v1/nothing"], &[]).0.len(), METHODS.len());
    }
}
