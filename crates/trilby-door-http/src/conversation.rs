//! The conversation API, in both of its shapes.

mod request;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use trilby_component::conversation::{Choice, ToolCall, Usage};
use trilby_core::{Body, Response, Result};

use self::request::{Alpha1, Alpha2};
use crate::codec::{self, Call};

/// `POST v1.0-alpha1/conversation/{name}/converse`
pub(crate) async fn converse_alpha1(call: &Call<'_>, body: Body) -> Result<Response> {
    let text = call.json_body(body).await?;
    let mut asked: Alpha1 = codec::decode_proto(&text)?;
    let (context_id, parameters) = (asked.context_id.take(), asked.parameters.take().unwrap_or_default());

    let answer = call.door.api.conversation.converse(call.ctx, &call.store, asked.into_converse()).await?;

    let outputs = answer.choices.iter().map(|choice| Result1 { result: &choice.content, parameters: &parameters });
    Ok(respond(&Answer1 { context_id: context_id.as_deref().unwrap_or_default(), outputs: outputs.collect() }))
}

/// `POST v1.0-alpha2/conversation/{name}/converse`
pub(crate) async fn converse_alpha2(call: &Call<'_>, body: Body) -> Result<Response> {
    let text = call.json_body(body).await?;
    let mut asked: Alpha2 = codec::decode_proto(&text)?;
    call.door.api.conversation.require(&call.store)?;
    let context_id = asked.context_id.take();
    let converse = asked.into_converse(&call.store)?;

    let answer = call.door.api.conversation.converse(call.ctx, &call.store, converse).await?;

    let output = |choice| Result2 {
        choices: [Choice2::of(choice)],
        model: answer.model.as_deref().unwrap_or_default(),
        usage: answer.usage.as_ref().map(Usage2::of),
    };
    let outputs = answer.choices.iter().map(output).collect();
    Ok(respond(&Answer2 { context_id: context_id.as_deref().unwrap_or_default(), outputs }))
}

/// As `protojson` writes: without what is empty, large numbers as text, and nothing escaped that need not be.
fn respond(answer: &impl Serialize) -> Response {
    codec::json(serde_json::to_vec(answer).expect("every map here has text for keys"))
}

#[derive(Serialize)]
struct Answer1<'a> {
    #[serde(rename = "contextID", skip_serializing_if = "str::is_empty")]
    context_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<Result1<'a>>,
}

#[derive(Serialize)]
struct Result1<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    result: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parameters: &'a BTreeMap<String, request::Any>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer2<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    context_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<Result2<'a>>,
}

#[derive(Serialize)]
struct Result2<'a> {
    choices: [Choice2<'a>; 1],
    #[serde(skip_serializing_if = "str::is_empty")]
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage2>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Choice2<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    finish_reason: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    index: String,
    message: Message2<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message2<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    content: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call2<'a>>,
}

#[derive(Serialize)]
struct Call2<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    function: Function2<'a>,
}

#[derive(Serialize)]
struct Function2<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    arguments: &'a str,
}

impl<'a> Choice2<'a> {
    fn of(choice: &'a Choice) -> Self {
        let call = |call: &'a ToolCall| Call2 {
            id: &call.id,
            function: Function2 { name: &call.name, arguments: &call.arguments },
        };
        let message = Message2 { content: &choice.content, tool_calls: choice.tool_calls.iter().map(call).collect() };
        let index = if choice.index == 0 { String::new() } else { choice.index.to_string() };
        Self { finish_reason: &choice.finish_reason, index, message }
    }
}

/// What it cost: numbers as text, zeros left out.
#[derive(Serialize)]
#[serde(transparent)]
struct Usage2(serde_json::Map<String, Value>);

impl Usage2 {
    fn of(usage: &Usage) -> Self {
        let counts = |pairs: &[(&str, u64)]| -> serde_json::Map<String, Value> {
            let present = pairs.iter().filter(|(_, count)| *count > 0);
            present.map(|(name, count)| ((*name).to_owned(), count.to_string().into())).collect()
        };
        let mut all = counts(&[
            ("completionTokens", usage.completion_tokens),
            ("promptTokens", usage.prompt_tokens),
            ("totalTokens", usage.total_tokens),
        ]);
        let completion = counts(&[
            ("acceptedPredictionTokens", usage.accepted_prediction_tokens),
            ("audioTokens", usage.completion_audio_tokens),
            ("reasoningTokens", usage.reasoning_tokens),
            ("rejectedPredictionTokens", usage.rejected_prediction_tokens),
        ]);
        let prompt = counts(&[("audioTokens", usage.prompt_audio_tokens), ("cachedTokens", usage.cached_tokens)]);
        for (name, details) in [("completionTokensDetails", completion), ("promptTokensDetails", prompt)] {
            if !details.is_empty() {
                all.insert(name.to_owned(), details.into());
            }
        }
        Self(all)
    }
}
