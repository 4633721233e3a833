//! Choosing the route of an event by the rules of its subscription.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::{Event, Route, Rule};
use crate::cel::{Condition, Value};

/// The rules of a subscription, ready to be asked.
#[derive(Debug)]
pub(super) struct Router(Vec<(Option<Condition>, String)>);

impl Rule {
    /// Whether its condition is one.
    ///
    /// # Errors
    /// A text for people: the condition, and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.condition().map(drop)
    }

    /// `None` always holds.
    fn condition(&self) -> Result<Option<Condition>, String> {
        match self.condition.trim() {
            "" => Ok(None),
            text => Condition::parse(text).map(Some).map_err(|error| format!("rule {text:?} is not CEL: {error}")),
        }
    }
}

impl Router {
    /// # Errors
    /// As [`Rule::check`], for the first rule that is none.
    pub(super) fn new(route: &Route) -> Result<Self, String> {
        route.all_rules().map(|rule| Ok((rule.condition()?, rule.path))).collect::<Result<_, String>>().map(Self)
    }

    /// The route of an event; `None` if it has none. `subject` is what the rules call `event`, asked for only if a rule
    /// has to look at it.
    ///
    /// # Errors
    /// A text for people, if a condition cannot be computed for this event.
    pub(super) fn route(&self, subject: impl Fn() -> Value) -> Result<Option<&str>, String> {
        let mut known = None;
        for (condition, path) in &self.0 {
            let Some(condition) = condition else { return Ok(Some(path)) };
            let event = known.get_or_insert_with(&subject).clone();
            if condition.holds([("event", event)])? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

/// An event as rules see it.
pub(super) fn subject(event: &Event) -> Value {
    to_cel(Json::Object(event.to_map()))
}

/// Numbers become floats, as in Dapr: rules that hold here hold there.
fn to_cel(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Value::String(text.into()),
        Json::Array(items) => Value::List(items.into_iter().map(to_cel).collect::<Vec<_>>().into()),
        Json::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, to_cel(value)));
            Value::Map(members.collect::<HashMap<_, _>>().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route<'a>(router: &'a Router, event: &Json) -> Result<Option<&'a str>, String> {
        router.route(|| to_cel(event.clone()))
    }

    fn router(rules: &[(&str, &str)], default: Option<&str>) -> Result<Router, String> {
        let rule = |(condition, path): &(&str, &str)| Rule { condition: (*condition).into(), path: (*path).into() };
        Router::new(&Route { rules: rules.iter().map(rule).collect(), default: default.map(str::to_owned) })
    }

    #[test]
    fn the_first_rule_that_holds_decides_and_then_the_default() {
        let router =
            router(&[(r#"event.type == "x""#, "/x"), ("event.data.n > 5", "/big")], Some("/def")).expect("CEL");
        for (event, expect) in [
            (json!({"type": "x", "data": {"n": 9}}), "/x"),
            (json!({"type": "y", "data": {"n": 9}}), "/big"),
            (json!({"type": "y", "data": {"n": 5}}), "/def"),
        ] {
            assert_eq!(route(&router, &event), Ok(Some(expect)), "{event}");
        }
    }

    #[test]
    fn an_empty_rule_always_holds_and_no_rule_is_no_route() {
        let empty = router(&[(" ", "/any"), ("event.type == 'x'", "/x")], None).expect("CEL");
        assert_eq!(route(&empty, &json!({"type": "x"})), Ok(Some("/any")));
        let none = router(&[("event.type == 'x'", "/x")], None).expect("CEL");
        assert_eq!(route(&none, &json!({"type": "y"})), Ok(None));
    }

    #[test]
    fn a_rule_about_what_an_event_lacks_is_an_error() {
        let router = router(&[("event.data.n > 5", "/big")], Some("/def")).expect("CEL");
        assert_eq!(route(&router, &json!({"data": {}})), Err("No such key: n".to_owned()));
        assert!(route(&router, &json!({"data": "text"})).is_err());
        let cautious = Rule { condition: "has(event.data.n) && event.data.n > 5".into(), path: "/big".into() };
        let router = Router::new(&Route { rules: vec![cautious], default: Some("/def".into()) }).expect("CEL");
        assert_eq!(route(&router, &json!({"data": {}})), Ok(Some("/def")));
    }

    #[test]
    fn what_is_no_rule_is_named() {
        let error = router(&[("event.type = 'x'", "/x")], None).expect_err("not CEL");
        assert!(error.starts_with("rule \"event.type = 'x'\" is not CEL: "), "{error}");
    }
}
