//! Subscriptions: what resources declare, what apps ask for, and which of them counts.

use std::collections::HashMap;

use trilby_component::{Metadata, pubsub::BulkSettings};

/// Who asked for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A Subscription resource.
    Declarative,
    /// The app.
    Programmatic,
    /// The app, over a stream.
    Streaming,
}

/// A route that an event takes if `condition` says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A CEL expression over `event`. Empty always holds.
    pub condition: String,
    /// The route.
    pub path: String,
}

/// Where the events of a subscription go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// Asked in order; the first that holds decides.
    pub rules: Vec<Rule>,
    /// Taken if none does. Without it such events are dropped.
    pub default: Option<String>,
}

impl Route {
    /// The rules, and the default as a last one that always holds.
    pub fn all_rules(&self) -> impl Iterator<Item = Rule> {
        let default = self.default.iter().map(|path| Rule { condition: String::new(), path: path.clone() });
        self.rules.iter().cloned().chain(default)
    }
}

impl Origin {
    /// Dapr's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Declarative => "DECLARATIVE",
            Self::Programmatic => "PROGRAMMATIC",
            Self::Streaming => "STREAMING",
        }
    }
}

/// A subscription to one topic of one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The component's name.
    pub pubsub: String,
    /// The topic, without prefix.
    pub topic: String,
    /// `rawPayload` and what the broker understands.
    pub metadata: Metadata,
    /// Where its events go.
    pub route: Route,
    /// Where events go that are dropped or given up. Dapr's `deadLetterTopic`.
    pub dead_letter_topic: Option<String>,
    /// Set if the app wants several events at once.
    pub bulk: Option<BulkSettings>,
    /// Attribute of the event by whose value events are kept in order; events of different values may be handled at
    /// the same time. Trilby's own `order-by`; none means the order of the broker's own delivery.
    pub order_by: Option<String>,
    /// Ids of the apps that it is for; empty means all. Only of declarative ones.
    pub scopes: Vec<String>,
    /// Who asked for it.
    pub origin: Origin,
}

impl Subscription {
    /// Whether messages are taken as bytes, whatever they hold. `rawPayload` of its metadata.
    ///
    /// # Errors
    /// A text for people, if that is neither true nor false.
    pub(super) fn is_raw(&self) -> Result<bool, String> {
        super::is_raw(&self.metadata)
    }
}

/// The subscriptions that count, in order: of several declared for one topic the first, unless the app itself asks for
/// that topic; then what it asked for last.
pub(super) fn merge(
    declared: impl IntoIterator<Item = Subscription>,
    asked: impl IntoIterator<Item = Subscription>,
) -> Vec<Subscription> {
    let mut merged: Vec<Subscription> = Vec::new();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let key = |subscription: &Subscription| (subscription.pubsub.clone(), subscription.topic.clone());
    for subscription in declared {
        places.entry(key(&subscription)).or_insert_with(|| {
            merged.push(subscription);
            merged.len() - 1
        });
    }
    for subscription in asked {
        let place = *places.entry(key(&subscription)).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(replaced) => *replaced = subscription,
            None => merged.push(subscription),
        }
    }
    merged
}

/// Takes the dead-letter topic from every subscription that would close a circle: a message that fails everywhere on it
/// would go round for ever. What fails there is left to the broker. Answers with the topics that were cut off.
pub(super) fn break_loops(subscriptions: &mut [Subscription]) -> Vec<(String, String)> {
    let mut next: HashMap<(String, String), String> = HashMap::new();
    let mut cut = Vec::new();
    for subscription in subscriptions {
        let Some(dead) = &subscription.dead_letter_topic else { continue };
        let pubsub = &subscription.pubsub;
        let mut at = dead;
        let closes = loop {
            if *at == subscription.topic {
                break true;
            }
            match next.get(&(pubsub.clone(), at.clone())) {
                Some(further) => at = further,
                None => break false,
            }
        };
        if closes {
            cut.push((subscription.topic.clone(), dead.clone()));
            subscription.dead_letter_topic = None;
        } else {
            next.insert((pubsub.clone(), subscription.topic.clone()), dead.clone());
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(origin: Origin, topic: &str, route: &str) -> Subscription {
        Subscription {
            pubsub: "ps".into(),
            topic: topic.into(),
            metadata: Metadata::new(),
            route: Route { rules: Vec::new(), default: Some(route.into()) },
            dead_letter_topic: None,
            bulk: None,
            order_by: None,
            scopes: Vec::new(),
            origin,
        }
    }

    #[test]
    fn the_app_overrules_resources_and_the_first_resource_the_others() {
        let declared = [("a", "/1"), ("b", "/2"), ("a", "/3")];
        let asked = [("b", "/4"), ("c", "/5"), ("c", "/6")];
        let of = |origin, (topic, route): (&str, &str)| subscription(origin, topic, route);
        let merged = merge(
            declared.map(|entry| of(Origin::Declarative, entry)),
            asked.map(|entry| of(Origin::Programmatic, entry)),
        );
        let merged: Vec<_> = merged.iter().map(|s| (s.topic.as_str(), s.route.default.as_deref(), s.origin)).collect();
        let expect = [
            ("a", Some("/1"), Origin::Declarative),
            ("b", Some("/4"), Origin::Programmatic),
            ("c", Some("/6"), Origin::Programmatic),
        ];
        assert_eq!(merged, expect);
    }

    #[test]
    fn dead_letters_do_not_go_round_in_circles() {
        let mut subscriptions = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "d"), ("e", "a")].map(|(topic, dead)| {
            Subscription { dead_letter_topic: Some(dead.into()), ..subscription(Origin::Programmatic, topic, "/") }
        });
        let cut = break_loops(&mut subscriptions);
        assert_eq!(cut, [("c".to_owned(), "a".to_owned()), ("d".to_owned(), "d".to_owned())]);
        let left: Vec<_> = subscriptions.iter().filter_map(|s| s.dead_letter_topic.as_deref()).collect();
        assert_eq!(left, ["b", "c", "a"]);
    }
}
