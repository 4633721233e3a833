//! Which topics an app may publish and subscribe to.

use trilby_component::Properties;

use crate::Identity;

/// Topic rules of one broker for one app: `publishingScopes`, `subscriptionScopes`, `allowedTopics`, `protectedTopics`.
///
/// Without rules every topic is free. `allowedTopics` closes all others to everyone; `protectedTopics` closes topics to
/// apps whose scope does not name them; a scope closes to its app what it does not name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes {
    allowed: Vec<String>,
    protected: Vec<String>,
    publishing: Vec<String>,
    subscription: Vec<String>,
}

impl Scopes {
    /// Reads the rules for `app` from a component's metadata.
    #[must_use]
    pub fn parse(properties: &Properties, app: &Identity) -> Self {
        let value = |name| properties.get(name).unwrap_or_default().replace(' ', "");
        Self {
            allowed: topics(&value("allowedTopics")),
            protected: topics(&value("protectedTopics")),
            publishing: scope(&value("publishingScopes"), &app.id),
            subscription: scope(&value("subscriptionScopes"), &app.id),
        }
    }

    /// Whether the app may publish to `topic`, prefix not included.
    #[must_use]
    pub fn allow_publishing(&self, topic: &str) -> bool {
        self.allow(topic, &self.publishing)
    }

    /// Whether the app may subscribe to `topic`, prefix not included.
    #[must_use]
    pub fn allow_subscription(&self, topic: &str) -> bool {
        self.allow(topic, &self.subscription)
    }

    fn allow(&self, topic: &str, scope: &[String]) -> bool {
        let names = |topics: &[String]| topics.iter().any(|name| name == topic);
        if !self.allowed.is_empty() && !names(&self.allowed) {
            return false;
        }
        (scope.is_empty() && !names(&self.protected)) || names(scope)
    }
}

/// `a,b`. An empty text is no list; anything else is one, if only of a topic without a name.
fn topics(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
}

/// What `app1=a,b;app2=` grants to `app`. An app that is named without topics gets a list that no topic is in.
fn scope(text: &str, app: &str) -> Vec<String> {
    let grants = text.split(';').filter_map(|grant| {
        let mut parts = grant.split('=');
        let (name, granted) = (parts.next()?, parts.next()?);
        (name == app).then_some(granted)
    });
    grants.flat_map(|granted| granted.split(',').map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(pairs: &[(&str, &str)]) -> Scopes {
        Scopes::parse(&pairs.iter().copied().collect(), &Identity::new("app1"))
    }

    #[test]
    fn without_rules_everything_is_allowed() {
        let scopes = scopes(&[]);
        assert!(scopes.allow_publishing("t") && scopes.allow_subscription("t"));
    }

    #[test]
    fn a_scope_names_all_topics_of_its_app() {
        let scopes = scopes(&[("publishingScopes", "app1 = t1, t2; app2=t3"), ("subscriptionScopes", "app2=t1")]);
        assert!(scopes.allow_publishing("t1") && scopes.allow_publishing("t2"));
        assert!(!scopes.allow_publishing("t3"));
        assert!(scopes.allow_subscription("t3"), "an app that is not named is free");
    }

    #[test]
    fn an_app_named_without_topics_gets_none() {
        let scopes = scopes(&[("PUBLISHINGSCOPES", "app1="), ("subscriptionScopes", "app1")]);
        assert!(!scopes.allow_publishing("t1"));
        assert!(scopes.allow_subscription("t1"), "without a sign it is no scope");
    }

    #[test]
    fn other_topics_than_the_allowed_ones_are_closed_to_everyone() {
        let scopes = scopes(&[("allowedTopics", "t1, t2"), ("publishingScopes", "app1=t2,t3")]);
        assert!(!scopes.allow_publishing("t1") && scopes.allow_publishing("t2") && !scopes.allow_publishing("t3"));
        assert!(scopes.allow_subscription("t1") && !scopes.allow_subscription("t3"));
    }

    #[test]
    fn a_protected_topic_needs_a_scope_that_names_it() {
        let scopes = scopes(&[("protectedTopics", "t1"), ("publishingScopes", "app1=t1")]);
        assert!(scopes.allow_publishing("t1"));
        assert!(!scopes.allow_subscription("t1") && scopes.allow_subscription("t2"));
    }
}
