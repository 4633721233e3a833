//! A component's metadata: string pairs, read into a config struct the way Dapr reads them.
//!
//! Names are compared without case, booleans may be `yes` or `1`, durations are Go's (`1m30s`) or plain seconds. Names
//! that the struct does not have are ignored, as Dapr ignores them.

mod de;
pub mod duration;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::error::{ComponentError, Result};

/// `spec.metadata` of a component, secrets and templates resolved.
///
/// `Debug` shows names only: values may be secrets.
#[derive(Clone, Default)]
pub struct Properties {
    pairs: BTreeMap<String, String>,
}

impl Properties {
    /// The value of `name`, compared without case. Empty counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let exact = self.pairs.get(name);
        let found = exact.or_else(|| self.pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v));
        found.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Sets a value.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.pairs.insert(name.into(), value.into());
    }

    /// All pairs, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Reads the pairs into a config struct.
    ///
    /// # Errors
    /// `InvalidMetadata` that names the property, what was found and what is allowed.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(de::PropertiesDeserializer(self)).map_err(|error| ComponentError::metadata(error.to_string()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Properties {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self { pairs: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.pairs.keys()).finish()
    }
}

/// Dapr's idea of true: `y`, `yes`, `true`, `t`, `on`, `1`, in any case. Everything else is false.
#[must_use]
pub fn is_truthy(text: &str) -> bool {
    ["y", "yes", "true", "t", "on", "1"].iter().any(|word| text.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase", default)]
    struct Config {
        #[serde(alias = "url")]
        connection_string: String,
        #[serde(with = "duration")]
        timeout: Duration,
        disable_wal: bool,
        max_conns: u32,
        table: Option<String>,
    }

    impl Default for Config {
        fn default() -> Self {
            Self {
                connection_string: String::new(),
                timeout: Duration::from_secs(20),
                disable_wal: false,
                max_conns: 4,
                table: None,
            }
        }
    }

    fn parse(pairs: &[(&str, &str)]) -> Result<Config> {
        pairs.iter().copied().collect::<Properties>().parse()
    }

    #[test]
    fn names_are_compared_without_case_and_unknown_ones_ignored() {
        let config = parse(&[("CONNECTIONSTRING", "x"), ("disablewal", "yes"), ("whatever", "1"), ("TABLE", "t")])
            .expect("valid");
        assert_eq!(config.connection_string, "x");
        assert!(config.disable_wal);
        assert_eq!(config.table.as_deref(), Some("t"));
        assert_eq!(config.max_conns, 4);
    }

    #[test]
    fn an_alias_is_another_name() {
        assert_eq!(parse(&[("URL", "x")]).expect("valid").connection_string, "x");
    }

    #[test]
    fn durations_are_go_durations_or_seconds() {
        assert_eq!(parse(&[("timeout", "1m30s")]).expect("valid").timeout, Duration::from_secs(90));
        assert_eq!(parse(&[("timeout", "7")]).expect("valid").timeout, Duration::from_secs(7));
    }

    #[test]
    fn an_empty_value_counts_as_absent() {
        assert_eq!(parse(&[("maxConns", ""), ("timeout", "")]).expect("valid"), Config::default());
    }

    #[test]
    fn a_malformed_value_names_the_property() {
        let error = parse(&[("maxConns", "many")]).expect_err("not a number");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidMetadata);
        assert_eq!(error.to_string(), "metadata maxConns: invalid value \"many\", expected a number");
        let error = parse(&[("timeout", "soon")]).expect_err("not a duration");
        assert!(error.to_string().starts_with("metadata timeout: "), "{error}");
    }
}
