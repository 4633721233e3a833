//! Which model a conversation component asks, where the environment says so: Dapr lets it stand over the resource.

use trilby_component::Properties;

use crate::env::Env;

/// Component types and the variables that they look at.
const VARIABLES: [(&str, &str); 4] = [
    ("conversation.huggingface", "HUGGINGFACE_MODEL"),
    ("conversation.mistral", "MISTRAL_MODEL"),
    ("conversation.ollama", "OLLAMA_MODEL"),
    ("conversation.openai", "OPENAI_MODEL"),
];
/// What OpenAI's component looks at instead where its server is Azure's.
const AZURE_VARIABLE: &str = "AZURE_OPENAI_MODEL";

/// The model of a component of this type, if a variable names one.
pub(super) fn from_env<'a>(type_name: &str, properties: &Properties, env: &'a Env) -> Option<&'a str> {
    let (_, variable) = VARIABLES.iter().find(|(known, _)| known.eq_ignore_ascii_case(type_name))?;
    let is_azure = properties.get("apiType").is_some_and(|kind| kind.eq_ignore_ascii_case("azure"));
    env.get(if is_azure { AZURE_VARIABLE } else { variable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_has_its_variable() {
        let env: Env = [("OPENAI_MODEL", "a"), ("AZURE_OPENAI_MODEL", "b"), ("OLLAMA_MODEL", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        let (plain, azure) = (Properties::default(), [("apiType", "Azure")].into_iter().collect());
        assert_eq!(from_env("conversation.openai", &plain, &env), Some("a"));
        assert_eq!(from_env("conversation.openai", &azure, &env), Some("b"));
        assert_eq!(from_env("conversation.ollama", &plain, &env), None, "empty is as good as not set");
        assert_eq!(from_env("conversation.echo", &plain, &env), None);
        assert_eq!(from_env("state.redis", &plain, &env), None);
    }
}
