//! Conversation through each door; over HTTP and gRPC in its newer shape.

use async_trait::async_trait;
use hyper::Method;
use serde_json::{Value, json};
use trilby_component::conversation::{Message, Request, Role};
use trilby_core::{
    Ctx,
    conversation::{Converse, Input},
};
use trilby_proto::runtime::v1::{
    ConversationInputAlpha2, ConversationMessage, ConversationMessageContent, ConversationMessageOfUser,
    ConversationRequestAlpha2, conversation_message::MessageTypes,
};

use super::{Embedded, Grpc, Http, Wasm, embedded, grpc};
use crate::client::{Answer, ConversationClient, Failure, FailureKind};

fn broken(text: impl ToString) -> Failure {
    Failure { kind: FailureKind::Other, text: text.to_string() }
}

#[async_trait]
impl ConversationClient for Embedded {
    async fn converse(&self, model: &str, text: &str, scrub: bool) -> Answer<String> {
        let said =
            Message { role: Role::User, name: None, content: vec![text.into()], tool_calls: Vec::new(), tool_id: None };
        let inputs = vec![Input { messages: vec![said], scrub_pii: scrub }];
        let converse = Converse { inputs, scrub_pii: false, request: Request::default() };
        let answer = self.0.conversation.converse(&Ctx::default(), model, converse).await.map_err(embedded::failure)?;
        answer.choices.into_iter().next().map(|choice| choice.content).ok_or_else(|| broken("no choice"))
    }
}

#[async_trait]
impl ConversationClient for Http {
    async fn converse(&self, model: &str, text: &str, scrub: bool) -> Answer<String> {
        let message = json!({ "ofUser": { "content": [{ "text": text }] } });
        let body = json!({ "inputs": [{ "messages": [message], "scrubPii": scrub }] }).to_string();
        let path = format!("/v1.0-alpha2/conversation/{model}/converse");
        let (_, body) = self.call(Method::POST, &path, None, body).await?;
        let answer: Value = serde_json::from_slice(&body).map_err(broken)?;
        let said = answer["outputs"][0]["choices"][0]["message"]["content"].as_str();
        said.map(str::to_owned).ok_or_else(|| broken(answer))
    }
}

#[async_trait]
impl ConversationClient for Grpc {
    async fn converse(&self, model: &str, text: &str, scrub: bool) -> Answer<String> {
        let content = vec![ConversationMessageContent { text: text.into() }];
        let said = MessageTypes::OfUser(ConversationMessageOfUser { name: None, content });
        let input = ConversationInputAlpha2 {
            messages: vec![ConversationMessage { message_types: Some(said) }],
            scrub_pii: Some(scrub),
        };
        let request = ConversationRequestAlpha2 {
            name: model.into(),
            inputs: vec![input],
            ..ConversationRequestAlpha2::default()
        };
        let answer = self.0.clone().converse_alpha2(request).await.map_err(grpc::failure)?.into_inner();
        let choice = answer.outputs.into_iter().flat_map(|output| output.choices).next();
        choice.and_then(|choice| choice.message).map(|message| message.content).ok_or_else(|| broken("no choice"))
    }
}

#[async_trait]
impl ConversationClient for Wasm {
    async fn converse(&self, model: &str, text: &str, scrub: bool) -> Answer<String> {
        let messages = json!([{ "user": { "name": null, "content": [text] } }]);
        let options = json!({ "scrub-input": scrub });
        let operation = json!({ "op": "converse", "name": model, "messages": messages, "options": options });
        let answer = self.call(operation).await?;
        let said = answer["choices"][0]["content"].as_str();
        said.map(str::to_owned).ok_or_else(|| broken(answer))
    }
}
