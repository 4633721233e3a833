//! `conversation.echo`: says again what it was told, and asks for every tool that there is. For development.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use trilby_component::{
    ComponentError, OpenRequest, Result,
    conversation::{Choice, Conversation, Request, Response, Role, Tool, ToolCall, Usage},
};

/// Needs nothing.
///
/// # Errors
/// None.
pub async fn open(_request: OpenRequest) -> Result<Arc<dyn Conversation>> {
    Ok(Arc::new(Echo))
}

struct Echo;

#[async_trait]
impl Conversation for Echo {
    async fn converse(&self, request: &Request) -> Result<Response> {
        let asked = request.tools.iter().enumerate().map(|(index, tool)| ask(index, tool));
        let mut tool_calls = asked.collect::<Result<Vec<_>>>()?;
        let mut said = Vec::new();
        for message in &request.messages {
            tool_calls.extend(message.tool_calls.iter().cloned());
            match message.role {
                Role::Tool if message.tool_id.is_some() || message.name.is_some() => {
                    let id = message.tool_id.as_deref().unwrap_or_default();
                    let name = message.name.as_deref().unwrap_or_default();
                    let result = |text| format!("Tool Response for tool ID '{id}' with name '{name}': {text}");
                    said.extend(message.content.iter().map(result));
                }
                _ => said.extend(message.content.iter().cloned()),
            }
        }
        let content = said.join("\n");
        // A word counts as a token, both ways.
        let tokens = content.split_whitespace().count() as u64;
        let finish_reason = if tool_calls.is_empty() { "stop" } else { "tool_calls" };
        Ok(Response {
            choices: vec![Choice { finish_reason: finish_reason.to_owned(), index: 0, content, tool_calls }],
            model: None,
            usage: Some(Usage {
                completion_tokens: tokens,
                prompt_tokens: tokens,
                total_tokens: 2 * tokens,
                ..Usage::default()
            }),
        })
    }
}

/// A call of a tool, with the names of its parameters for arguments.
fn ask(index: usize, tool: &Tool) -> Result<ToolCall> {
    let names = match tool.parameters.get("properties") {
        None => Vec::new(),
        Some(Value::Object(properties)) => {
            let mut names: Vec<_> = properties.keys().map(String::as_str).collect();
            names.sort_unstable();
            names
        }
        Some(other) => {
            let message = format!("tool function properties must be a map[string]any, got {}", go_type(other));
            return Err(ComponentError::request(message));
        }
    };
    Ok(ToolCall { id: index.to_string(), name: tool.name.clone(), arguments: names.join(",") })
}

/// What Go calls a JSON value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trilby_component::conversation::Message;

    use super::*;

    fn message(role: Role, content: &[&str]) -> Message {
        let content = content.iter().map(|text| (*text).to_owned()).collect();
        Message { role, name: None, content, tool_calls: Vec::new(), tool_id: None }
    }

    #[tokio::test]
    async fn everything_that_was_said_is_said_again() {
        let tool = Message { tool_id: Some("7".into()), name: Some("f".into()), ..message(Role::Tool, &["x", "y"]) };
        let messages = vec![message(Role::System, &["be brief"]), message(Role::User, &["a", "b"]), tool];
        let response = Echo.converse(&Request { messages, ..Request::default() }).await.expect("answers");
        let result = "Tool Response for tool ID '7' with name 'f'";
        assert_eq!(response.choices[0].content, format!("be brief\na\nb\n{result}: x\n{result}: y"));
        assert_eq!(response.choices[0].finish_reason, "stop");
        assert_eq!(response.usage.expect("counted").total_tokens, 2 * (2 + 2 + 2 * 10));
    }

    #[tokio::test]
    async fn every_tool_is_asked_for_with_its_parameters_in_order() {
        let tool = |name: &str, parameters| Tool { name: name.into(), description: None, parameters };
        let asked = ToolCall { id: "call".into(), name: "g".into(), arguments: "{}".into() };
        let request = Request {
            messages: vec![Message { tool_calls: vec![asked.clone()], ..message(Role::Assistant, &[]) }],
            tools: vec![tool("f", json!({ "properties": { "b": {}, "a": {} } })), tool("h", Value::Null)],
            ..Request::default()
        };
        let choice = Echo.converse(&request).await.expect("answers").choices.remove(0);
        let call = |id: &str, name: &str, arguments: &str| ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        };
        assert_eq!(choice.tool_calls, [call("0", "f", "a,b"), call("1", "h", ""), asked]);
        assert_eq!(choice.finish_reason, "tool_calls");
        let broken = Request { tools: vec![tool("f", json!({ "properties": 5 }))], ..Request::default() };
        let error = Echo.converse(&broken).await.expect_err("no parameters");
        assert_eq!(error.to_string(), "tool function properties must be a map[string]any, got float64");
    }
}
