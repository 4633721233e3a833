//! OpenAI's chat completions, as far as they are used.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, Result,
    conversation::{Choice, Message, Request, Response, Role, Tool, ToolCall, Usage},
};

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    messages: Vec<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
}

#[derive(Serialize)]
struct Said<'a> {
    role: &'static str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Parts(Vec<Value>),
}

/// The body of a request.
pub(super) fn encode(request: &Request, model: &str, takes_metadata: bool, max_tokens: u32) -> Bytes {
    let question = Question {
        model,
        messages: request.messages.iter().map(said).collect(),
        temperature: Some(request.temperature).filter(|given| *given > 0.0 && !has_own_temperature(model)),
        max_tokens: Some(max_tokens).filter(|given| *given > 0),
        tools: request.tools.iter().map(tool).collect(),
        tool_choice: request.tool_choice.as_deref().map(tool_choice),
        response_format: request.response_format.as_ref().and_then(response_format),
        metadata: Some(&request.metadata).filter(|given| takes_metadata && !given.is_empty()),
    };
    let mut question = serde_json::to_value(question).expect("keys are text");
    if let Some(members) = question.as_object_mut() {
        // An answer in pieces would not be understood.
        for (name, value) in request.parameters.iter().filter(|(name, _)| *name != "stream") {
            members.entry(name).or_insert_with(|| value.clone());
        }
    }
    question.to_string().into()
}

/// Models that reason take no other temperature than their own.
fn has_own_temperature(model: &str) -> bool {
    model == "o3" || ["o1-", "o3-", "gpt-5"].iter().any(|start| model.starts_with(start))
}

fn said(message: &Message) -> Said<'_> {
    let role = match message.role {
        Role::System => "system",
        // As in Dapr, since not every server knows the developer.
        Role::Developer | Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let content = match message.content.as_slice() {
        [] => Content::Text(""),
        [text] => Content::Text(text),
        parts => Content::Parts(parts.iter().map(|text| json!({ "type": "text", "text": text })).collect()),
    };
    let call = |call: &ToolCall| {
        let function = json!({ "name": call.name, "arguments": call.arguments });
        json!({ "id": call.id, "type": "function", "function": function })
    };
    let tool_calls = message.tool_calls.iter().map(call).collect();
    let tool_call_id = message.tool_id.as_deref().filter(|_| message.role == Role::Tool);
    Said { role, content, tool_calls, tool_call_id }
}

fn tool(tool: &Tool) -> Value {
    let mut function = json!({ "name": tool.name, "parameters": tool.parameters });
    if let Some(description) = tool.description.as_deref().filter(|text| !text.is_empty()) {
        function["description"] = description.into();
    }
    if tool.parameters.is_null() {
        function["parameters"] = json!({});
    }
    json!({ "type": "function", "function": function })
}

fn tool_choice(choice: &str) -> Value {
    match choice {
        "auto" | "none" | "required" => choice.into(),
        name => json!({ "type": "function", "function": { "name": name } }),
    }
}

/// A JSON schema may name itself and say whether it is strict; for the protocol these are beside it.
fn response_format(schema: &Value) -> Option<Value> {
    let mut schema = schema.as_object()?.clone();
    if !schema.get("type").is_some_and(Value::is_string) {
        tracing::warn!("the response format has no type, and is left out");
        return None;
    }
    let name = schema.remove("name").filter(|name| name.as_str().is_some_and(|name| !name.is_empty()));
    let strict = schema.remove("strict").and_then(|strict| strict.as_bool()).unwrap_or(false);
    let name = name.unwrap_or_else(|| "response".into());
    Some(json!({ "type": "json_schema", "json_schema": { "name": name, "strict": strict, "schema": schema } }))
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<Answered>,
    #[serde(default)]
    usage: Option<Spent>,
}

#[derive(Deserialize)]
struct Answered {
    #[serde(default)]
    message: Spoken,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spoken {
    content: Option<String>,
    tool_calls: Option<Vec<Asked>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    id: Option<String>,
    function: Function,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Function {
    name: String,
    arguments: Arguments,
}

/// JSON text; some servers forget that it is text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Arguments {
    Text(String),
    Json(Value),
}

impl Default for Arguments {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spent {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    accepted_prediction_tokens: u64,
    audio_tokens: u64,
    reasoning_tokens: u64,
    rejected_prediction_tokens: u64,
}

/// The body of an answer. The model is called as it was asked for, whatever the server calls it.
pub(super) fn decode(body: &[u8], model: &str) -> Result<Response> {
    let broken = |reason: String| ComponentError::new(ErrorKind::Internal, reason);
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| broken(format!("the answer is no chat completion: {error}")))?;
    if answer.choices.is_empty() {
        return Err(broken("no response".to_owned()));
    }
    let choices = (0..).zip(answer.choices).map(|(index, answered)| Choice {
        finish_reason: answered.finish_reason.filter(|why| !why.is_empty()).unwrap_or_else(|| "unknown".to_owned()),
        index,
        content: answered.message.content.unwrap_or_default(),
        tool_calls: answered.message.tool_calls.unwrap_or_default().into_iter().map(tool_call).collect(),
    });
    Ok(Response {
        choices: choices.collect(),
        model: Some(model.to_owned()),
        usage: answer.usage.map(usage).filter(|usage| *usage != Usage::default()),
    })
}

fn tool_call(asked: Asked) -> ToolCall {
    let arguments = match asked.function.arguments {
        Arguments::Text(text) => text,
        Arguments::Json(value) => value.to_string(),
    };
    ToolCall { id: asked.id.unwrap_or_default(), name: asked.function.name, arguments }
}

fn usage(spent: Spent) -> Usage {
    let prompt = spent.prompt_tokens_details.unwrap_or_default();
    let completion = spent.completion_tokens_details.unwrap_or_default();
    Usage {
        completion_tokens: spent.completion_tokens,
        prompt_tokens: spent.prompt_tokens,
        total_tokens: spent.total_tokens,
        accepted_prediction_tokens: completion.accepted_prediction_tokens,
        completion_audio_tokens: completion.audio_tokens,
        reasoning_tokens: completion.reasoning_tokens,
        rejected_prediction_tokens: completion.rejected_prediction_tokens,
        prompt_audio_tokens: prompt.audio_tokens,
        cached_tokens: prompt.cached_tokens,
    }
}

/// What a server says beside a status that is not 200.
pub(super) fn error_message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["error"]["message"].as_str().or_else(|| body["message"].as_str()).map(str::to_owned)
}
