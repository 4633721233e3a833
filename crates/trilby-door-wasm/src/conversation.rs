//! Conversations for guests.

use serde_json::Value;
use trilby_component::conversation::{Choice, Message, Request, Response, Role, Tool, ToolCall};
use trilby_core::{
    Code, Error, Result,
    conversation::{Converse, Input},
};

use crate::{guest::Guest, wit::trilby::dapr::conversation};

impl conversation::Host for Guest {
    async fn converse(
        &mut self,
        name: String,
        messages: Vec<conversation::Message>,
        options: Option<conversation::ConverseOptions>,
    ) -> Result<conversation::Answer> {
        let messages = messages.into_iter().map(message).collect();
        let converse = converse(messages, options)?;

        let (api, ctx) = self.blocks();
        let response = api.conversation.converse(ctx, &name, converse).await?;

        Ok(answer(response))
    }
}

fn converse(messages: Vec<Message>, options: Option<conversation::ConverseOptions>) -> Result<Converse> {
    let input = |scrub_pii| vec![Input { messages, scrub_pii }];
    let Some(options) = options else {
        return Ok(Converse { inputs: input(false), ..Converse::default() });
    };
    let request = Request {
        tools: options.tools.into_iter().map(tool).collect::<Result<_>>()?,
        tool_choice: options.tool_choice,
        temperature: options.temperature.unwrap_or_default(),
        response_format: options.response_format.map(|text| json("response-format", &text)).transpose()?,
        parameters: options.parameters.map(|text| json("parameters", &text)).transpose()?.unwrap_or_default(),
        metadata: options.metadata.into_iter().collect(),
        ..Request::default()
    };
    Ok(Converse { inputs: input(options.scrub_input), scrub_pii: options.scrub_output, request })
}

fn tool(tool: conversation::Tool) -> Result<Tool> {
    let parameters = match tool.parameters.as_str() {
        "" => Value::Null,
        text => json("parameters of a tool", text)?,
    };
    Ok(Tool { name: tool.name, description: tool.description, parameters })
}

fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(Code::ConversationInvalidParams, format!("{what}: not the JSON it must be: {error}"))
    })
}

fn message(message: conversation::Message) -> Message {
    use conversation::Message as Said;

    let said = |role, conversation::Speech { name, content }| Message {
        role,
        name,
        content,
        tool_calls: Vec::new(),
        tool_id: None,
    };
    match message {
        Said::Developer(speech) => said(Role::Developer, speech),
        Said::System(speech) => said(Role::System, speech),
        Said::User(speech) => said(Role::User, speech),
        Said::Assistant(conversation::AssistantSpeech { name, content, tool_calls }) => {
            let tool_calls =
                tool_calls.into_iter().map(|call| ToolCall { id: call.id, name: call.name, arguments: call.arguments });
            Message { role: Role::Assistant, name, content, tool_calls: tool_calls.collect(), tool_id: None }
        }
        Said::Tool(conversation::ToolResult { id, name, content }) => {
            Message { role: Role::Tool, name: Some(name), content, tool_calls: Vec::new(), tool_id: Some(id) }
        }
    }
}

fn answer(response: Response) -> conversation::Answer {
    conversation::Answer {
        choices: response.choices.into_iter().map(choice).collect(),
        model: response.model,
        usage: response.usage.map(|usage| conversation::Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.total_tokens,
        }),
    }
}

fn choice(choice: Choice) -> conversation::Choice {
    let tool_calls = choice.tool_calls.into_iter().map(|call| conversation::ToolCall {
        id: call.id,
        name: call.name,
        arguments: call.arguments,
    });
    conversation::Choice {
        finish_reason: choice.finish_reason,
        index: choice.index,
        content: choice.content,
        tool_calls: tool_calls.collect(),
    }
}
