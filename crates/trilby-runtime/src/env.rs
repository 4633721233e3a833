//! Environment variables as a value: who starts a runtime passes those that it may see.

use std::{borrow::Cow, collections::BTreeMap};

/// Names of variables that resources may read, separated by spaces. Absent or empty means all but the refused ones.
const ALLOWED_NAMES: &str = "DAPR_ENV_KEYS";

/// Variables by name. The default has none.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The value of a variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Replaces `$NAME` and `${NAME}` as Go's `os.ExpandEnv` does: what is not set becomes empty, and a dollar that no
    /// name follows stays.
    #[must_use]
    pub fn expand<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !text.contains('$') {
            return Cow::Borrowed(text);
        }
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            match variable(rest) {
                Variable::None => expanded.push('$'),
                Variable::Broken { length } => rest = &rest[length..],
                Variable::Named { name, length } => {
                    expanded.push_str(self.0.get(name).map_or("", String::as_str));
                    rest = &rest[length..];
                }
            }
        }
        expanded.push_str(rest);
        Cow::Owned(expanded)
    }

    /// The value that a resource's `envRef` gets; unset is empty, as in Dapr.
    ///
    /// # Errors
    /// A text for people, if resources may not read the variable: it holds a token, or is not in `DAPR_ENV_KEYS`.
    pub(crate) fn referenced(&self, name: &str) -> Result<&str, String> {
        let upper = name.to_uppercase();
        if upper.is_empty() || upper.contains(' ') || upper == "APP_API_TOKEN" || upper.starts_with("DAPR_") {
            return Err(format!("envRef {name:?} is not a variable that components may read"));
        }
        if let Some(allowed) = self.get(ALLOWED_NAMES)
            && !allowed.split(' ').any(|allowed| allowed == upper)
        {
            return Err(format!("envRef {name:?} is not in {ALLOWED_NAMES}; add it there"));
        }
        Ok(self.0.get(name).map_or("", String::as_str))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Names only: values may be secrets.
impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What stands behind a dollar, and how many bytes of it belong to the reference.
enum Variable<'a> {
    None,
    Broken { length: usize },
    Named { name: &'a str, length: usize },
}

fn variable(rest: &str) -> Variable<'_> {
    if let Some(braced) = rest.strip_prefix('{') {
        return match braced.find('}') {
            None => Variable::Broken { length: 1 },
            Some(0) => Variable::Broken { length: 2 },
            Some(end) => Variable::Named { name: &braced[..end], length: end + 2 },
        };
    }
    if rest.starts_with(|c: char| c.is_ascii_digit() || "*#$@!?-".contains(c)) {
        return Variable::Named { name: &rest[..1], length: 1 };
    }
    let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    if length == 0 { Variable::None } else { Variable::Named { name: &rest[..length], length } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_expands_as_go_expands_it() {
        let env: Env = [("HOME", "/h"), ("A_1", "a")].into_iter().collect();
        for (text, expect) in [
            ("x $HOME y", "x /h y"),
            ("${HOME}/z", "/h/z"),
            ("$A_1$A_1", "aa"),
            ("$MISSING.", "."),
            ("cost: 5$ or $.", "cost: 5$ or $."),
            ("${}x", "x"),
            ("${HOME", "HOME"),
            ("$$HOME", "HOME"),
            ("$1x", "x"),
            ("é$HOMEé", "é/hé"),
            ("$", "$"),
        ] {
            assert_eq!(env.expand(text), expect, "{text}");
        }
    }

    #[test]
    fn tokens_are_out_of_reach_of_resources() {
        let env: Env = [("DAPR_API_TOKEN", "t"), ("app_api_token", "t"), ("PASSWORD", "p")].into_iter().collect();
        for name in ["DAPR_API_TOKEN", "dapr_x", "app_api_token", "", "A B"] {
            assert!(env.referenced(name).is_err(), "{name}");
        }
        assert_eq!(env.referenced("PASSWORD"), Ok("p"));
        assert_eq!(env.referenced("UNSET"), Ok(""));
    }

    #[test]
    fn a_list_of_names_allows_only_those() {
        let env: Env = [("DAPR_ENV_KEYS", "ONE TWO"), ("ONE", "1"), ("THREE", "3")].into_iter().collect();
        assert_eq!(env.referenced("ONE"), Ok("1"));
        let error = env.referenced("THREE").expect_err("not listed");
        assert_eq!(error, "envRef \"THREE\" is not in DAPR_ENV_KEYS; add it there");
    }

    #[test]
    fn values_are_not_printed() {
        let env: Env = [("PASSWORD", "hunter2")].into_iter().collect();
        assert_eq!(format!("{env:?}"), "{\"PASSWORD\"}");
    }
}
