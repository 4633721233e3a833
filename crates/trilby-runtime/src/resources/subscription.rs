//! Subscription resources, of either version: a topic, and where its events go.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_norway::Value;
use trilby_component::pubsub::BulkSettings;
use trilby_core::pubsub::{self, Origin, Route, Rule};

use super::{Document, Header, Manifest, or_default, pair::to_text};
use crate::error::StartError;

/// The versions there are. The older one knows one route, the newer one rules.
pub(super) const API_VERSIONS: [&str; 2] = ["dapr.io/v1alpha1", "dapr.io/v2alpha1"];

/// A Subscription resource.
#[derive(Clone)]
pub struct Subscription {
    /// What every resource has.
    pub header: Header,
    /// What it says.
    pub subscription: pubsub::Subscription,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    // Dapr's spelling, and the one that is guessed first.
    #[serde(alias = "pubsubName")]
    pubsubname: String,
    topic: String,
    #[serde(default, deserialize_with = "or_default")]
    metadata: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    route: String,
    #[serde(default, deserialize_with = "or_default")]
    routes: Routes,
    #[serde(default, deserialize_with = "or_default")]
    dead_letter_topic: String,
    #[serde(default, deserialize_with = "or_default")]
    bulk_subscribe: BulkSubscribe,
    /// Ours.
    #[serde(default, deserialize_with = "or_default")]
    order_by: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Routes {
    #[serde(deserialize_with = "or_default")]
    rules: Vec<RuleSpec>,
    #[serde(deserialize_with = "or_default")]
    default: String,
}

#[derive(Deserialize)]
struct RuleSpec {
    #[serde(default, rename = "match", deserialize_with = "or_default")]
    condition: String,
    #[serde(default, deserialize_with = "or_default")]
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BulkSubscribe {
    enabled: bool,
    max_messages_count: i64,
    max_await_duration_ms: i64,
}

impl Subscription {
    pub(super) fn read(document: &Document<'_>, api_version: &str) -> Result<Self, StartError> {
        let (header, spec) = document.decode::<Manifest<Spec>>()?.split(document)?;
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        let route = if api_version == API_VERSIONS[0] {
            Route { rules: Vec::new(), default: said(spec.route) }
        } else {
            let rules = spec.routes.rules.into_iter().map(|RuleSpec { condition, path }| Rule { condition, path });
            Route { rules: rules.collect(), default: said(spec.routes.default) }
        };
        let BulkSubscribe { enabled, max_messages_count, max_await_duration_ms } = spec.bulk_subscribe;
        let metadata = spec.metadata.into_iter().filter_map(|(name, value)| Some((name, to_text(value)?)));
        let subscription = pubsub::Subscription {
            pubsub: spec.pubsubname,
            topic: spec.topic,
            metadata: metadata.collect(),
            route,
            dead_letter_topic: said(spec.dead_letter_topic),
            bulk: enabled.then(|| BulkSettings::new(max_messages_count, max_await_duration_ms)),
            order_by: said(spec.order_by),
            scopes: header.scopes.clone(),
            origin: Origin::Declarative,
        };
        Ok(Self { header, subscription })
    }

    /// Whether every rule is CEL. Asked only of those that an app sees, as in Dapr.
    ///
    /// # Errors
    /// The file, the resource, and the rule that is none.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        self.subscription.route.rules.iter().try_for_each(Rule::check).map_err(|error| StartError::Document {
            origin: self.header.origin.clone(),
            message: format!("Subscription {}: {error}", self.header.name),
        })
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::Resources;

    fn read(version: &str, spec: &str) -> Subscription {
        let mut resources = Resources::strict();
        let text = format!(
            "apiVersion: dapr.io/{version}\nkind: Subscription\nmetadata: {{name: s}}\nspec:\n{spec}scopes: [app]\n"
        );
        resources.read_text("r.yaml", &text).expect("a good subscription");
        Subscription::clone(&resources.subscriptions[0])
    }

    #[test]
    fn the_older_version_has_one_route() {
        let spec = "  pubsubname: ps\n  topic: t\n  route: /t\n  routes: {default: /no}\n  deadLetterTopic: dead\n  \
                    metadata: {rawPayload: true}\n  bulkSubscribe: {enabled: true, maxMessagesCount: 7}\n";
        let Subscription { header, subscription } = read("v1alpha1", spec);
        assert_eq!(subscription.route, Route { rules: Vec::new(), default: Some("/t".into()) });
        assert_eq!((subscription.pubsub.as_str(), subscription.topic.as_str()), ("ps", "t"));
        assert_eq!(subscription.dead_letter_topic.as_deref(), Some("dead"));
        assert_eq!(subscription.metadata["rawPayload"], "true");
        assert_eq!(subscription.bulk, Some(BulkSettings { max_messages: Some(7), max_await: None }));
        assert_eq!((header.scopes, subscription.origin), (vec!["app".to_owned()], Origin::Declarative));
    }

    #[test]
    fn the_newer_version_has_rules() {
        let spec = "  pubsubname: ps\n  topic: t\n  route: /no\n  bulkSubscribe: {enabled: false}\n  orderBy: subject\n  \
                    routes:\n    rules: [{match: 'event.type == \"x\"', path: /x}, {path: /y}]\n    default: /t\n";
        let Subscription { subscription, .. } = read("v2alpha1", spec);
        let rule = |condition: &str, path: &str| Rule { condition: condition.into(), path: path.into() };
        assert_eq!(subscription.route.rules, [rule("event.type == \"x\"", "/x"), rule("", "/y")]);
        assert_eq!((subscription.route.default.as_deref(), subscription.bulk), (Some("/t"), None));
        assert_eq!(subscription.order_by.as_deref(), Some("subject"));
    }

    #[test]
    fn a_rule_that_is_none_is_named_with_its_file() {
        let spec = "  pubsubname: ps\n  topic: t\n  routes:\n    rules: [{match: 'event.type ==', path: /x}]\n";
        let error = read("v2alpha1", spec).check().expect_err("not CEL").to_string();
        let expect = "r.yaml: document 1, line 1: Subscription s: rule \"event.type ==\" is not CEL: ";
        assert!(error.starts_with(expect), "{error}");
        assert!(read("v1alpha1", "  pubsubname: ps\n  topic: t\n").check().is_ok());
    }
}
