//! `secretstores.local.file`: secrets from a JSON file, read once at start. For development.
//!
//! Nested objects and arrays are flattened: `{"db": {"users": ["ann"]}}` is the secret `db:users:0`. With
//! `multiValued`, each top-level object is one secret whose keys are flattened instead, and top-level values that are
//! neither strings nor objects are left out.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, OpenRequest, Result,
    secret::{Feature, Secret, SecretStore},
};

/// What `spec.metadata` may hold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The JSON file, relative to the working directory. Required. Dapr's `secretsFile`.
    pub secrets_file: String,
    /// What joins the names of nested keys. Default `:`. Dapr's `nestedSeparator`.
    pub nested_separator: String,
    /// Whether each top-level object is one secret with several keys. Default false. Dapr's `multiValued`.
    pub multi_valued: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { secrets_file: String::new(), nested_separator: ":".to_owned(), multi_valued: false }
    }
}

/// Reads the file; later changes to it are not seen.
///
/// # Errors
/// `InvalidMetadata` if `secretsFile` is not set, cannot be read, or does not hold one JSON object.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn SecretStore>> {
    let config: Config = request.properties.parse()?;
    let document = read(&config.secrets_file).await?;
    Ok(Arc::new(LocalFile::new(document, &config)))
}

struct LocalFile {
    secrets: BTreeMap<String, Secret>,
    features: &'static [Feature],
}

#[async_trait]
impl SecretStore for LocalFile {
    fn features(&self) -> &[Feature] {
        self.features
    }

    async fn get(&self, name: &str, _metadata: &Metadata) -> Result<Secret> {
        let secret = self.secrets.get(name).cloned();
        secret.ok_or_else(|| ComponentError::new(ErrorKind::NotFound, format!("secret {name} not found")))
    }

    async fn bulk_get(&self, _metadata: &Metadata) -> Result<BTreeMap<String, Secret>> {
        Ok(self.secrets.clone())
    }
}

impl LocalFile {
    fn new(document: Map<String, Value>, config: &Config) -> Self {
        let separator = &config.nested_separator;
        if config.multi_valued {
            Self { secrets: by_top_level(document, separator), features: &[Feature::MultipleKeyValuesPerSecret] }
        } else {
            let leaves = flatten(document, separator).into_iter();
            let secrets = leaves.map(|(name, value)| (name.clone(), Secret::from([(name, value)]))).collect();
            Self { secrets, features: &[] }
        }
    }
}

async fn read(path: &str) -> Result<Map<String, Value>> {
    if path.is_empty() {
        let message = "missing local secrets file in metadata; set secretsFile to the path of a JSON file";
        return Err(ComponentError::metadata(message));
    }
    let text = tokio::fs::read(path).await.map_err(|error| {
        let message = format!("secretsFile {path} cannot be read: {error}; create the file or correct the path");
        ComponentError::metadata(message).with_source(error)
    })?;
    serde_json::from_slice(&text).map_err(|error| {
        let message = format!("secretsFile {path} is not one JSON object: {error}");
        ComponentError::metadata(message).with_source(error)
    })
}

fn by_top_level(document: Map<String, Value>, separator: &str) -> BTreeMap<String, Secret> {
    let secret_of = |name: &str, value| match value {
        Value::String(text) => Some(Secret::from([(name.to_owned(), text)])),
        Value::Object(members) => Some(flatten(members, separator)),
        _ => None,
    };
    document.into_iter().filter_map(|(name, value)| Some((name.clone(), secret_of(&name, value)?))).collect()
}

/// The leaves of a JSON object by their path.
fn flatten(members: Map<String, Value>, separator: &str) -> Secret {
    let mut leaves = Secret::new();
    for (name, value) in members {
        visit(&mut leaves, name, value, separator);
    }
    leaves
}

fn visit(leaves: &mut Secret, path: String, value: Value, separator: &str) {
    let text = match value {
        Value::Object(members) => {
            for (name, member) in members {
                visit(leaves, format!("{path}{separator}{name}"), member, separator);
            }
            return;
        }
        Value::Array(items) => {
            for (index, item) in items.into_iter().enumerate() {
                visit(leaves, format!("{path}{separator}{index}"), item, separator);
            }
            return;
        }
        Value::String(text) => text,
        // Dapr prints these with a verb for strings, and Go says so in the text. See http/secrets.jsonl.
        Value::Null => "%!s(<nil>)".to_owned(),
        Value::Bool(value) => format!("%!s(bool={value})"),
        Value::Number(number) => format!("%!s(float64={})", shortest(&number)),
    };
    // Two ways of writing one path, such as `a:b` beside `a` with `b` inside: Dapr keeps an arbitrary one.
    match leaves.entry(path) {
        btree_map::Entry::Vacant(vacant) => {
            vacant.insert(text);
        }
        btree_map::Entry::Occupied(occupied) => {
            tracing::warn!(secret = occupied.key(), "this secret is in the file twice; the first one counts");
        }
    }
}

/// A number as Go's `%v` prints it: the shortest digits, with an exponent below 1e-4 and from 1e6 on.
fn shortest(number: &Number) -> String {
    let float = number.as_f64().unwrap_or(f64::INFINITY);
    let text = format!("{float:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    match exponent.parse::<i32>() {
        Ok(power @ ..=-5) => format!("{digits}e-{:02}", power.unsigned_abs()),
        Ok(power @ 6..) => format!("{digits}e+{power:02}"),
        _ => float.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(json: &str, multi_valued: bool) -> LocalFile {
        let document = serde_json::from_str(json).expect("an object");
        LocalFile::new(document, &Config { multi_valued, ..Config::default() })
    }

    fn flat(json: &str) -> Vec<(String, String)> {
        store(json, false).secrets.into_iter().map(|(name, secret)| (name.clone(), secret[&name].clone())).collect()
    }

    #[test]
    fn nested_values_are_secrets_by_their_path() {
        let leaves = flat(r#"{"a": {"b": {"c": "1"}, "d": ["x", ["y"]]}, "e": "2", "f": {}, "g": []}"#);
        let expect = [("a:b:c", "1"), ("a:d:0", "x"), ("a:d:1:0", "y"), ("e", "2")];
        assert_eq!(leaves, expect.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn values_that_are_no_strings_read_as_they_do_from_dapr() {
        for (json, text) in [
            ("5", "5"),
            ("-2.50", "-2.5"),
            ("999999", "999999"),
            ("1000000", "1e+06"),
            ("1234567", "1.234567e+06"),
            ("0.0001", "0.0001"),
            ("0.00001234", "1.234e-05"),
            ("1e100", "1e+100"),
            ("12345678901234567890", "1.2345678901234567e+19"),
        ] {
            assert_eq!(flat(&format!(r#"{{"n": {json}}}"#))[0].1, format!("%!s(float64={text})"), "{json}");
        }
        assert_eq!(flat(r#"{"n": null}"#)[0].1, "%!s(<nil>)");
        assert_eq!(flat(r#"{"n": true}"#)[0].1, "%!s(bool=true)");
    }

    #[test]
    fn of_two_equal_paths_the_first_counts() {
        assert_eq!(flat(r#"{"a": {"b": "inner"}, "a:b": "outer"}"#), [("a:b".to_owned(), "inner".to_owned())]);
    }

    #[test]
    fn multi_valued_keeps_one_level_and_only_strings_and_objects() {
        let json = r#"{"p": {"c": "1", "d": {"e": 5}}, "s": "2", "n": 5, "l": ["x"], "z": null, "empty": {}}"#;
        let store = store(json, true);
        let secret = |pairs: &[(&str, &str)]| -> Secret {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let expect = BTreeMap::from([
            ("empty".to_owned(), secret(&[])),
            ("p".to_owned(), secret(&[("c", "1"), ("d:e", "%!s(float64=5)")])),
            ("s".to_owned(), secret(&[("s", "2")])),
        ]);
        assert_eq!(store.secrets, expect);
        assert_eq!(store.features(), [Feature::MultipleKeyValuesPerSecret]);
    }

    #[tokio::test]
    async fn a_missing_secret_is_named() {
        let error = store(r#"{"a": {"b": "1"}}"#, false).get("a", &Metadata::new()).await.expect_err("not a leaf");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "secret a not found");
    }

    async fn open_error(pairs: &[(&str, &str)]) -> String {
        let properties = pairs.iter().copied().collect();
        let opened = open(OpenRequest { name: "secrets".to_owned(), properties }).await;
        let error = opened.err().expect("the metadata is wrong");
        assert_eq!(error.kind(), ErrorKind::InvalidMetadata);
        error.to_string()
    }

    #[tokio::test]
    async fn a_file_that_is_not_set_missing_or_broken_is_named_with_the_fix() {
        assert!(open_error(&[]).await.starts_with("missing local secrets file in metadata; set secretsFile"));
        let missing = open_error(&[("secretsFile", "no/such.json")]).await;
        assert!(missing.starts_with("secretsFile no/such.json cannot be read: "), "{missing}");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("secrets.json");
        std::fs::write(&path, "[1]").expect("written");
        let path = path.to_str().expect("a UTF-8 path");
        let broken = open_error(&[("secretsFile", path)]).await;
        assert!(broken.starts_with(&format!("secretsFile {path} is not one JSON object: ")), "{broken}");
    }

    #[tokio::test]
    async fn the_separator_can_be_chosen() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("secrets.json");
        std::fs::write(&path, r#"{"root": {"key": "v"}}"#).expect("written");
        let path = path.to_str().expect("a UTF-8 path");
        let properties = [("secretsFile", path), ("nestedSeparator", ".")].into_iter().collect();
        let store = open(OpenRequest { name: "secrets".to_owned(), properties }).await.expect("opens");
        assert_eq!(store.get("root.key", &Metadata::new()).await.expect("found")["root.key"], "v");
        assert!(store.features().is_empty());
    }
}
