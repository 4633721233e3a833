//! What is put in front of an app's keys, so that apps can share a store or not.

use trilby_component::ComponentError;

use crate::Identity;

/// Between the prefix and the app's key; neither may hold it.
pub(crate) const SEPARATOR: &str = "||";

/// A component's `keyPrefix`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KeyPrefix {
    /// `appid`: each app has its own keys.
    #[default]
    AppId,
    /// `name`: apps that use the component under the same name share its keys.
    ComponentName,
    /// `namespace`: as `appid`, and apart by namespace.
    Namespace,
    /// `none`: keys are stored as they are.
    None,
    /// Anything else: all apps share the keys under this word.
    Literal(String),
}

impl KeyPrefix {
    /// Reads the metadata value. Dapr compares it in lower case, and keeps a literal in lower case too.
    ///
    /// # Errors
    /// `InvalidMetadata` if it holds `||`.
    pub fn parse(text: &str) -> Result<Self, ComponentError> {
        let text = text.to_lowercase();
        if text.contains(SEPARATOR) {
            return Err(ComponentError::metadata(format!("input key/keyPrefix '{text}' can't contain '||'")));
        }
        Ok(match text.as_str() {
            "" | "appid" => Self::AppId,
            "name" => Self::ComponentName,
            "namespace" => Self::Namespace,
            "none" => Self::None,
            _ => Self::Literal(text),
        })
    }

    /// The text that goes in front of the keys of `app`, separator included.
    pub(crate) fn resolve(&self, app: &Identity, component: &str) -> String {
        match (self, &app.namespace) {
            (Self::None, _) => String::new(),
            (Self::AppId, _) | (Self::Namespace, None) => format!("{}{SEPARATOR}", app.id),
            (Self::Namespace, Some(namespace)) => format!("{namespace}.{}{SEPARATOR}", app.id),
            (Self::ComponentName, _) => format!("{component}{SEPARATOR}"),
            (Self::Literal(literal), _) => format!("{literal}{SEPARATOR}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_resolve_as_daprs_do() {
        let mut app = Identity::new("myapp");
        let resolve = |text: &str, app: &Identity| KeyPrefix::parse(text).expect("legal").resolve(app, "store");
        assert_eq!(resolve("", &app), "myapp||");
        assert_eq!(resolve("name", &app), "store||");
        assert_eq!(resolve("none", &app), "");
        assert_eq!(resolve("Team", &app), "team||");
        assert_eq!(resolve("namespace", &app), "myapp||");
        app.namespace = Some("prod".into());
        assert_eq!(resolve("namespace", &app), "prod.myapp||");
        assert!(KeyPrefix::parse("a||b").is_err());
    }
}
