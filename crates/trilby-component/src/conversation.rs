//! The conversation component: a language model that answers messages.

use async_trait::async_trait;
use serde_json::Value;

use crate::{Metadata, error::Result};

/// A function that the model may ask the app to call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// What it is for, in words.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Value,
}

/// A call that the model asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Ties the result to the call.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// A JSON document, as text.
    pub arguments: String,
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions, above the system's.
    Developer,
    /// Instructions.
    System,
    /// The person, or the app.
    User,
    /// The model.
    Assistant,
    /// The result of a call.
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// A name within the role; of the function, for [`Role::Tool`].
    pub name: Option<String>,
    /// The parts of what is said.
    pub content: Vec<String>,
    /// The calls that [`Role::Assistant`] asked for.
    pub tool_calls: Vec<ToolCall>,
    /// The call that [`Role::Tool`] answers.
    pub tool_id: Option<String>,
}

/// Asks the model.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Functions that the model may ask for.
    pub tools: Vec<Tool>,
    /// `none`, `auto`, `required`, or the name of one tool; `None` leaves it to the model.
    pub tool_choice: Option<String>,
    /// Randomness; 0 leaves it to the model.
    pub temperature: f64,
    /// JSON schema that the answer must follow.
    pub response_format: Option<Value>,
    /// What the model's protocol knows besides.
    pub parameters: serde_json::Map<String, Value>,
    /// Component-specific extras.
    pub metadata: Metadata,
}

/// One answer of the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// `stop`, `length`, `tool_calls`, …; `unknown` if the model does not say.
    pub finish_reason: String,
    /// Position among the answers.
    pub index: i64,
    /// What it says.
    pub content: String,
    /// What it wants called.
    pub tool_calls: Vec<ToolCall>,
}

/// Tokens that a request cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the answer.
    pub completion_tokens: u64,
    /// Of the request.
    pub prompt_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// Of the answer: predicted and used.
    pub accepted_prediction_tokens: u64,
    /// Of the answer: sound.
    pub completion_audio_tokens: u64,
    /// Of the answer: thought and not said.
    pub reasoning_tokens: u64,
    /// Of the answer: predicted and not used.
    pub rejected_prediction_tokens: u64,
    /// Of the request: sound.
    pub prompt_audio_tokens: u64,
    /// Of the request: known from before.
    pub cached_tokens: u64,
}

/// What the model answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// Its answers, at least one.
    pub choices: Vec<Choice>,
    /// The model that answered, where it says so.
    pub model: Option<String>,
    /// What it cost, where it says so.
    pub usage: Option<Usage>,
}

/// A language model. Open it through the [`Catalog`](crate::Catalog); it is ready when `open` returns.
#[async_trait]
pub trait Conversation: Send + Sync {
    /// Continues a conversation.
    async fn converse(&self, request: &Request) -> Result<Response>;

    /// Releases connections. Called once, after the last request.
    async fn close(&self) {}
}
