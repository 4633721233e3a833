//! Conversation: decode, call the block, encode.

use std::time::Duration;

use prost_types::{Struct, Value, value::Kind};
use serde_json::Map;
use trilby_component::conversation::{Message, Request, Role, Tool, ToolCall, Usage};
use trilby_core::{
    Api, Ctx, Result,
    conversation::{self, Converse, Input},
};
use trilby_proto::runtime::v1::{
    ConversationInputAlpha2, ConversationMessage, ConversationMessageContent, ConversationRequest,
    ConversationRequestAlpha2, ConversationResponse, ConversationResponseAlpha2, ConversationResult,
    ConversationResultAlpha2, ConversationResultAlpha2CompletionUsage,
    ConversationResultAlpha2CompletionUsageCompletionTokensDetails,
    ConversationResultAlpha2CompletionUsagePromptTokensDetails, ConversationResultChoices, ConversationResultMessage,
    ConversationToolCalls, ConversationToolCallsOfFunction, ConversationTools, conversation_message::MessageTypes,
    conversation_tool_calls, conversation_tools,
};

/// `ConverseAlpha1`
pub(crate) async fn converse_alpha1(api: &Api, ctx: &Ctx, asked: ConversationRequest) -> Result<ConversationResponse> {
    let inputs = asked.inputs.into_iter().map(|input| Input {
        messages: vec![Message {
            role: conversation::role(input.role.as_deref().unwrap_or_default()),
            name: None,
            content: vec![input.content],
            tool_calls: Vec::new(),
            tool_id: None,
        }],
        scrub_pii: input.scrub_pii.unwrap_or(false),
    });
    let converse = Converse {
        inputs: inputs.collect(),
        scrub_pii: asked.scrub_pii.unwrap_or(false),
        request: Request { temperature: asked.temperature.unwrap_or(0.0), ..Request::default() },
    };

    let answer = api.conversation.converse(ctx, &asked.name, converse).await?;

    let outputs = answer.choices.into_iter();
    let outputs =
        outputs.map(|choice| ConversationResult { result: choice.content, parameters: asked.parameters.clone() });
    Ok(ConversationResponse { context_id: given(asked.context_id), outputs: outputs.collect() })
}

/// `ConverseAlpha2`
pub(crate) async fn converse_alpha2(
    api: &Api,
    ctx: &Ctx,
    asked: ConversationRequestAlpha2,
) -> Result<ConversationResponseAlpha2> {
    let (name, context_id) = (asked.name.clone(), given(asked.context_id.clone()));
    api.conversation.require(&name)?;
    let converse = to_converse(asked)?;

    let answer = api.conversation.converse(ctx, &name, converse).await?;

    let (model, usage) = (answer.model, answer.usage.as_ref().map(to_usage));
    let outputs = answer.choices.into_iter().map(|choice| {
        let tool_calls = choice.tool_calls.into_iter().map(to_tool_call).collect();
        let choice = ConversationResultChoices {
            finish_reason: choice.finish_reason,
            index: choice.index,
            message: Some(ConversationResultMessage { content: choice.content, tool_calls }),
        };
        ConversationResultAlpha2 { choices: vec![choice], model: model.clone(), usage }
    });
    Ok(ConversationResponseAlpha2 { context_id, outputs: outputs.collect() })
}

/// A text that says nothing is as good as none.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn to_converse(asked: ConversationRequestAlpha2) -> Result<Converse> {
    let mut metadata = crate::codec::from_map(asked.metadata);
    if let Some(retention) = asked.prompt_cache_retention {
        let retention = Duration::try_from(retention).unwrap_or_default();
        conversation::set_prompt_cache_retention(&mut metadata, retention);
    }
    let inputs = asked.inputs.into_iter().map(|input| to_input(&asked.name, input)).collect::<Result<_>>()?;
    Ok(Converse {
        inputs,
        scrub_pii: asked.scrub_pii.unwrap_or(false),
        request: Request {
            tools: asked.tools.into_iter().filter_map(to_tool).collect(),
            tool_choice: asked.tool_choice,
            temperature: asked.temperature.unwrap_or(0.0),
            response_format: asked.response_format.map(to_json),
            metadata,
            ..Request::default()
        },
    })
}

fn to_input(component: &str, input: ConversationInputAlpha2) -> Result<Input> {
    let messages = input.messages.into_iter().map(|message| to_message(component, message));
    Ok(Input { messages: messages.collect::<Result<_>>()?, scrub_pii: input.scrub_pii.unwrap_or(false) })
}

fn to_message(component: &str, message: ConversationMessage) -> Result<Message> {
    let plain =
        |role, name, content| Message { role, name, content: texts(content), tool_calls: Vec::new(), tool_id: None };
    let message = message.message_types;
    Ok(match message.ok_or_else(|| conversation::invalid_message(component, "message type cannot be nil"))? {
        MessageTypes::OfDeveloper(said) => plain(Role::Developer, said.name, said.content),
        MessageTypes::OfSystem(said) => plain(Role::System, said.name, said.content),
        MessageTypes::OfUser(said) => plain(Role::User, said.name, said.content),
        MessageTypes::OfAssistant(said) => {
            let calls = said.tool_calls.into_iter().map(|call| from_tool_call(component, call));
            let tool_calls = calls.collect::<Result<_>>()?;
            Message { tool_calls, ..plain(Role::Assistant, said.name, said.content) }
        }
        MessageTypes::OfTool(said) => {
            Message { tool_id: said.tool_id, ..plain(Role::Tool, Some(said.name), said.content) }
        }
    })
}

fn texts(content: Vec<ConversationMessageContent>) -> Vec<String> {
    content.into_iter().map(|part| part.text).collect()
}

fn from_tool_call(component: &str, call: ConversationToolCalls) -> Result<ToolCall> {
    let kind = call.tool_types;
    let conversation_tool_calls::ToolTypes::Function(function) =
        kind.ok_or_else(|| conversation::invalid_message(component, "tool types cannot be nil"))?;
    Ok(ToolCall { id: call.id.unwrap_or_default(), name: function.name, arguments: function.arguments })
}

fn to_tool_call(call: ToolCall) -> ConversationToolCalls {
    let function = ConversationToolCallsOfFunction { name: call.name, arguments: call.arguments };
    ConversationToolCalls {
        id: given(Some(call.id)),
        tool_types: Some(conversation_tool_calls::ToolTypes::Function(function)),
    }
}

/// A tool that is no function is none, as in Dapr.
fn to_tool(tool: ConversationTools) -> Option<Tool> {
    let conversation_tools::ToolTypes::Function(function) = tool.tool_types?;
    let parameters = function.parameters.map_or_else(|| Map::new().into(), to_json);
    Some(Tool { name: function.name, description: function.description, parameters })
}

fn to_json(members: Struct) -> serde_json::Value {
    members.fields.into_iter().map(|(name, value)| (name, value_to_json(value))).collect::<Map<_, _>>().into()
}

fn value_to_json(value: Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        // A whole number is written as one; protobuf knows no others.
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 && value.abs() < 9e15 => (value as i64).into(),
        Some(Kind::NumberValue(value)) => value.into(),
        Some(Kind::StringValue(value)) => value.into(),
        Some(Kind::StructValue(value)) => to_json(value),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(value_to_json).collect::<Vec<_>>().into(),
    }
}

/// Details are only there where one of them is.
fn to_usage(usage: &Usage) -> ConversationResultAlpha2CompletionUsage {
    let completion = ConversationResultAlpha2CompletionUsageCompletionTokensDetails {
        accepted_prediction_tokens: usage.accepted_prediction_tokens,
        audio_tokens: usage.completion_audio_tokens,
        reasoning_tokens: usage.reasoning_tokens,
        rejected_prediction_tokens: usage.rejected_prediction_tokens,
    };
    let prompt = ConversationResultAlpha2CompletionUsagePromptTokensDetails {
        audio_tokens: usage.prompt_audio_tokens,
        cached_tokens: usage.cached_tokens,
    };
    ConversationResultAlpha2CompletionUsage {
        completion_tokens: usage.completion_tokens,
        prompt_tokens: usage.prompt_tokens,
        total_tokens: usage.total_tokens,
        completion_tokens_details: Some(completion).filter(|details| *details != Default::default()),
        prompt_tokens_details: Some(prompt).filter(|details| *details != Default::default()),
    }
}
