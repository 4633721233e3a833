//! A name and a value, or where the value is: an entry of a component's metadata or of an endpoint's headers.

use serde::{Deserialize, Deserializer};
use serde_norway::Value;

/// A named value.
#[derive(Clone, Deserialize)]
#[serde(from = "PairText")]
pub struct Pair {
    /// Its name.
    pub name: String,
    /// Its value.
    pub source: Source,
}

impl Pair {
    /// Whether the value, as it is written, holds `template`.
    pub(crate) fn mentions(&self, template: &str) -> bool {
        matches!(&self.source, Source::Literal(text) if text.contains(template))
    }
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "SourceText")]
pub enum Source {
    /// It is written down.
    Literal(String),
    /// It is in an environment variable.
    Env(String),
    /// It is in a secret store.
    Secret {
        /// The secret's name.
        name: String,
        /// The key in it; the secret's own name if none is written.
        key: String,
        /// Used if the secret has no such key.
        fallback: Option<String>,
    },
}

/// Where the value is, but never the value: it may be a password.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal(***)"),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::Secret { name, key, .. } => f.debug_struct("Secret").field("name", name).field("key", key).finish(),
        }
    }
}

#[derive(Deserialize)]
struct PairText {
    name: String,
    #[serde(flatten)]
    source: Source,
}

impl From<PairText> for Pair {
    fn from(PairText { name, source }: PairText) -> Self {
        Self { name, source }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourceText {
    #[serde(default)]
    value: Value,
    #[serde(default, deserialize_with = "or_default")]
    secret_key_ref: SecretKeyRef,
    #[serde(default, deserialize_with = "or_default")]
    env_ref: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SecretKeyRef {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    key: String,
}

/// Dapr's precedence: a variable if there is no value, then the secret, then the value.
impl From<SourceText> for Source {
    fn from(text: SourceText) -> Self {
        let value = to_text(text.value);
        if value.is_none() && !text.env_ref.is_empty() {
            return Self::Env(text.env_ref);
        }
        let SecretKeyRef { name, key } = text.secret_key_ref;
        if name.is_empty() {
            return Self::Literal(value.unwrap_or_default());
        }
        let key = if key.is_empty() { name.clone() } else { key };
        Self::Secret { name, key, fallback: value }
    }
}

/// A value as components get it: scalars as text, anything deeper as JSON.
pub(super) fn to_text(value: Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::String(text) => text,
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => match number.as_f64() {
            // Go prints a float without the zero after its point.
            Some(float) if number.is_f64() => format!("{float}"),
            _ => number.to_string(),
        },
        deep => serde_json::to_string(&deep).ok()?,
    })
}

/// Reads `null` as the default: an empty `scopes:` is as good as none.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        serde_norway::from_str::<Pair>(&format!("name: x\n{text}")).expect("a pair").source
    }

    fn literal(text: &str) -> Source {
        Source::Literal(text.to_owned())
    }

    #[test]
    fn any_scalar_is_text() {
        for (text, expect) in [
            ("value: abc", "abc"),
            ("value: true", "true"),
            ("value: 42", "42"),
            ("value: -1", "-1"),
            ("value: 1.50", "1.5"),
            ("value: 2.0", "2"),
            ("value: \"007\"", "007"),
            ("value: |\n  a\n  b\n", "a\nb\n"),
            ("value:", ""),
            ("", ""),
            ("value: {a: [1, x]}", r#"{"a":[1,"x"]}"#),
        ] {
            assert_eq!(source(text), literal(expect), "{text}");
        }
    }

    #[test]
    fn a_reference_gives_way_as_in_dapr() {
        let secret = |fallback: Option<&str>, key: &str| Source::Secret {
            name: "s".into(),
            key: key.into(),
            fallback: fallback.map(str::to_owned),
        };
        assert_eq!(source("secretKeyRef: {name: s}"), secret(None, "s"));
        assert_eq!(source("secretKeyRef: {name: s, key: k}\nvalue: v"), secret(Some("v"), "k"));
        assert_eq!(source("envRef: E\nsecretKeyRef: {name: s}"), Source::Env("E".into()));
        assert_eq!(source("envRef: E\nvalue: v"), literal("v"));
        assert_eq!(source("secretKeyRef:\nvalue: v"), literal("v"));
    }

    #[test]
    fn values_are_not_printed() {
        assert_eq!(format!("{:?}", literal("hunter2")), "Literal(***)");
    }
}
