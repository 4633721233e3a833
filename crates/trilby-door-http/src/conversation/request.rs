//! The bodies of the conversation API, from JSON to what the block takes. Every member may be missing or null, and may
//! have its name in either of protobuf's two ways.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use trilby_component::{
    Metadata,
    conversation::{Message, Request, Role, Tool, ToolCall},
};
use trilby_core::{
    Result,
    conversation::{self, Converse, Input},
};

use crate::codec;

/// A request in the older shape.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Alpha1 {
    #[serde(rename = "contextID")]
    pub(super) context_id: Option<String>,
    inputs: Option<Vec<Input1>>,
    /// Answered as they came; Dapr does nothing else with them.
    pub(super) parameters: Option<BTreeMap<String, Any>>,
    #[serde(rename = "scrubPII")]
    scrub_pii: Option<bool>,
    temperature: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Input1 {
    content: Option<String>,
    role: Option<String>,
    #[serde(rename = "scrubPII")]
    scrub_pii: Option<bool>,
}

/// A message of any type: without a type it is nothing.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Any(Map<String, Value>);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::deserialize(deserializer)?;
        if !members.contains_key("@type") {
            members.clear();
        }
        Ok(Self(members))
    }
}

impl Alpha1 {
    pub(super) fn into_converse(self) -> Converse {
        let input = |input: Input1| Input {
            messages: vec![Message {
                role: conversation::role(input.role.as_deref().unwrap_or_default()),
                name: None,
                content: vec![input.content.unwrap_or_default()],
                tool_calls: Vec::new(),
                tool_id: None,
            }],
            scrub_pii: input.scrub_pii.unwrap_or(false),
        };
        Converse {
            inputs: self.inputs.unwrap_or_default().into_iter().map(input).collect(),
            scrub_pii: self.scrub_pii.unwrap_or(false),
            request: Request { temperature: self.temperature.unwrap_or(0.0), ..Request::default() },
        }
    }
}

/// A request in the newer shape.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Alpha2 {
    #[serde(alias = "context_id")]
    pub(super) context_id: Option<String>,
    inputs: Option<Vec<Input2>>,
    metadata: Option<Metadata>,
    #[serde(alias = "scrub_pii")]
    scrub_pii: Option<bool>,
    temperature: Option<f64>,
    tools: Option<Vec<Tool2>>,
    #[serde(alias = "tool_choice")]
    tool_choice: Option<String>,
    #[serde(alias = "response_format")]
    response_format: Option<Map<String, Value>>,
    #[serde(alias = "prompt_cache_retention", deserialize_with = "seconds")]
    prompt_cache_retention: Option<Duration>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Input2 {
    messages: Option<Vec<Message2>>,
    #[serde(alias = "scrub_pii")]
    scrub_pii: Option<bool>,
}

/// One of these is there.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Message2 {
    #[serde(alias = "of_developer")]
    of_developer: Option<Said>,
    #[serde(alias = "of_system")]
    of_system: Option<Said>,
    #[serde(alias = "of_user")]
    of_user: Option<Said>,
    #[serde(alias = "of_assistant")]
    of_assistant: Option<Said>,
    #[serde(alias = "of_tool")]
    of_tool: Option<Said>,
}

/// What any of them may hold.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Said {
    name: Option<String>,
    content: Option<Vec<Text>>,
    #[serde(alias = "tool_calls")]
    tool_calls: Option<Vec<Call2>>,
    #[serde(alias = "tool_id")]
    tool_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Text {
    text: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Call2 {
    id: Option<String>,
    function: Option<Function2>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Function2 {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tool2 {
    function: Option<Definition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Definition {
    name: Option<String>,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
}

impl Alpha2 {
    /// `name` is the component's, for errors.
    pub(super) fn into_converse(self, name: &str) -> Result<Converse> {
        let mut metadata = self.metadata.unwrap_or_default();
        if let Some(retention) = self.prompt_cache_retention {
            conversation::set_prompt_cache_retention(&mut metadata, retention);
        }
        let inputs = self.inputs.unwrap_or_default().into_iter().map(|input| {
            let messages = input.messages.unwrap_or_default().into_iter();
            let messages = messages.map(|message| message.into_message(name)).collect::<Result<_>>()?;
            Ok(Input { messages, scrub_pii: input.scrub_pii.unwrap_or(false) })
        });
        Ok(Converse {
            inputs: inputs.collect::<Result<_>>()?,
            scrub_pii: self.scrub_pii.unwrap_or(false),
            request: Request {
                tools: self.tools.unwrap_or_default().into_iter().filter_map(Tool2::into_tool).collect(),
                tool_choice: self.tool_choice,
                temperature: self.temperature.unwrap_or(0.0),
                response_format: self.response_format.map(Value::Object),
                metadata,
                ..Request::default()
            },
        })
    }
}

impl Message2 {
    fn into_message(self, component: &str) -> Result<Message> {
        let all = [
            ("ofDeveloper", Role::Developer, self.of_developer),
            ("ofSystem", Role::System, self.of_system),
            ("ofUser", Role::User, self.of_user),
            ("ofAssistant", Role::Assistant, self.of_assistant),
            ("ofTool", Role::Tool, self.of_tool),
        ];
        let mut given = all.into_iter().filter_map(|(name, role, said)| Some((name, role, said?)));
        let Some((_, role, said)) = given.next() else {
            return Err(conversation::invalid_message(component, "message type cannot be nil"));
        };
        if let Some((second, ..)) = given.next() {
            let oneof = "dapr.proto.runtime.v1.ConversationMessage.message_types";
            return Err(codec::undecodable(format_args!(
                "proto: error parsing {second:?}, oneof {oneof} is already set"
            )));
        }
        let calls = said.tool_calls.unwrap_or_default().into_iter().filter(|_| role == Role::Assistant);
        let calls = calls.map(|call| {
            let function =
                call.function.ok_or_else(|| conversation::invalid_message(component, "tool types cannot be nil"))?;
            Ok(ToolCall {
                id: call.id.unwrap_or_default(),
                name: function.name.unwrap_or_default(),
                arguments: function.arguments.unwrap_or_default(),
            })
        });
        Ok(Message {
            role,
            // What a tool says is told apart by its name, be it empty.
            name: if role == Role::Tool { Some(said.name.unwrap_or_default()) } else { said.name },
            content: said.content.unwrap_or_default().into_iter().map(|part| part.text.unwrap_or_default()).collect(),
            tool_calls: calls.collect::<Result<_>>()?,
            tool_id: said.tool_id,
        })
    }
}

impl Tool2 {
    /// A tool that is no function is none, as in Dapr.
    fn into_tool(self) -> Option<Tool> {
        let function = self.function?;
        Some(Tool {
            name: function.name.unwrap_or_default(),
            description: function.description,
            parameters: Value::Object(function.parameters.unwrap_or_default()),
        })
    }
}

/// A duration as protobuf writes it in JSON: seconds, perhaps with a fraction, and an `s`.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let seconds = text.strip_suffix('s').and_then(|number| number.parse().ok());
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let duration =
        duration.ok_or_else(|| de::Error::custom(format!("invalid google.protobuf.Duration value {text:?}")));
    duration.map(Some)
}
