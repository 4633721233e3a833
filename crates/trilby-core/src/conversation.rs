//! The conversation block: messages to a language model, with personal data taken out where the caller asks for it.

mod pii;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use trilby_component::{
    Metadata,
    conversation::{Conversation, Message, Request, Response, Role},
    properties::duration,
};

use crate::{Code, Ctx, Error, Result, handle::Handle, metrics::Op, resiliency::Block, wiring::Wiring};

/// A language model that is open.
pub struct ConversationComponent {
    /// The resource's name.
    pub name: String,
    /// The model.
    pub model: Arc<dyn Conversation>,
}

/// Some messages, and what is done to them first.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// In order.
    pub messages: Vec<Message>,
    /// Whether personal data is taken out of them.
    pub scrub_pii: bool,
}

/// Asks a model.
#[derive(Debug, Clone, Default)]
pub struct Converse {
    /// The conversation so far.
    pub inputs: Vec<Input>,
    /// Whether personal data is taken out of the answer.
    pub scrub_pii: bool,
    /// Everything else; its messages are not looked at.
    pub request: Request,
}

/// The conversation block of one app.
#[derive(Default)]
pub struct ConversationApi {
    models: HashMap<String, Handle<dyn Conversation>>,
}

impl ConversationApi {
    /// A block over the models that the app may use.
    pub fn new(wiring: &Wiring<'_>, models: impl IntoIterator<Item = ConversationComponent>) -> Self {
        let open = |component: ConversationComponent| {
            let handle = wiring.handle(Block::Conversation, &component.name, component.model);
            (component.name, handle)
        };
        Self { models: models.into_iter().map(open).collect() }
    }

    /// Whether there is such a model; for a door that has to say so before it looks at the messages.
    ///
    /// # Errors
    /// [`Code::ConversationNotFound`].
    pub fn require(&self, name: &str) -> Result<()> {
        self.model(name).map(drop)
    }

    /// Continues a conversation. With tools and no choice among them, the model may choose.
    ///
    /// # Errors
    /// [`Code::ConversationNotFound`]; [`Code::ConversationMissingInputs`] without inputs;
    /// [`Code::ConversationInvalidParams`] for a choice that is not there; [`Code::ConversationInvoke`] if the model
    /// fails.
    pub async fn converse(&self, ctx: &Ctx, name: &str, converse: Converse) -> Result<Response> {
        let model = self.model(name)?;
        let Converse { inputs, scrub_pii, mut request } = converse;
        if inputs.is_empty() {
            let message = format!("failed conversing with component {name}: missing inputs in request");
            return Err(Error::new(Code::ConversationMissingInputs, message));
        }
        choose_tool(name, &mut request)?;
        request.messages = inputs.into_iter().flat_map(scrubbed).collect();

        let answered = model.call(ctx, Op::Converse, |model| model.converse(&request)).await;
        let mut response = answered.map_err(|cause| {
            let message = format!("failed conversing with component {name}: {cause}");
            Error::from_component(Code::ConversationInvoke, message, &cause)
        })?;

        if scrub_pii {
            for choice in &mut response.choices {
                choice.content = pii::scrub(&choice.content);
            }
        }
        Ok(response)
    }

    fn model(&self, name: &str) -> Result<&Handle<dyn Conversation>> {
        self.models.get(name).ok_or_else(|| {
            Error::new(Code::ConversationNotFound, format!("failed finding conversation component {name}"))
        })
    }
}

/// Who speaks, by the names that Dapr's older API takes. What it does not know is the user.
#[must_use]
pub fn role(name: &str) -> Role {
    match name {
        "system" => Role::System,
        "assistant" | "ai" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        _ => Role::User,
    }
}

/// The error of a message that is none, for doors whose messages can be that. The text is Dapr's, slip included.
#[must_use]
pub fn invalid_message(name: &str, reason: &str) -> Error {
    invalid(name, "*errors.errorString", reason)
}

/// Notes how long a model may remember a prompt, where Dapr puts it. Written as Go writes a duration.
pub fn set_prompt_cache_retention(metadata: &mut Metadata, retention: Duration) {
    metadata.insert("prompt_cache_retention".to_owned(), duration::format(retention));
}

fn invalid(name: &str, go_type: &str, reason: &str) -> Error {
    let message = format!("failed conversing with component {name}: invalid params%!(EXTRA {go_type}={reason})");
    Error::new(Code::ConversationInvalidParams, message)
}

fn choose_tool(name: &str, request: &mut Request) -> Result<()> {
    let is_among = |choice: &str| request.tools.iter().any(|tool| tool.name == choice);
    match request.tool_choice.as_deref().unwrap_or_default() {
        "" if request.tools.is_empty() => request.tool_choice = None,
        "" => request.tool_choice = Some("auto".to_owned()),
        "auto" | "none" => {}
        "required" if request.tools.is_empty() => {
            let allowed = "tool choice must be 'auto', 'none', 'required', or a specific tool name matching the tools \
                           available to be used";
            return Err(invalid(name, "string", allowed));
        }
        "required" => {}
        choice if request.tools.is_empty() || is_among(choice) => {}
        _ => {
            let allowed = "tool choice selected was not found. Must be 'auto', 'none', 'required', or a specific tool \
                           name matching the tools available to be used";
            return Err(invalid(name, "string", allowed));
        }
    }
    Ok(())
}

fn scrubbed(input: Input) -> Vec<Message> {
    let Input { mut messages, scrub_pii } = input;
    if scrub_pii {
        for text in messages.iter_mut().flat_map(|message| &mut message.content) {
            *text = pii::scrub(text);
        }
    }
    messages
}
