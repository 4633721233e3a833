//! What reaches the model, what does not, and what comes back.

use std::sync::Mutex;

use async_trait::async_trait;
use trilby_component::{
    ComponentError, ErrorKind, Result as ComponentResult,
    conversation::{Choice, Tool},
};

use super::*;
use crate::{Identity, metrics::Metrics, resiliency::Policies};

/// Repeats what it hears, and remembers the request.
#[derive(Default)]
struct Parrot {
    heard: Mutex<Vec<Request>>,
}

#[async_trait]
impl Conversation for Parrot {
    async fn converse(&self, request: &Request) -> ComponentResult<Response> {
        if request.metadata.contains_key("fail") {
            return Err(ComponentError::new(ErrorKind::Denied, "not with you"));
        }
        self.heard.lock().expect("no panic").push(request.clone());
        let content = request.messages.iter().flat_map(|message| message.content.clone()).collect::<Vec<_>>().join("|");
        Ok(Response { choices: vec![Choice { content, ..Choice::default() }], ..Response::default() })
    }
}

fn api() -> (ConversationApi, Arc<Parrot>) {
    let (app, metrics, policies) = (Identity::new("myapp"), Metrics::default(), Policies::default());
    let wiring = Wiring { app: &app, metrics: &metrics, policies: &policies };
    let parrot = Arc::new(Parrot::default());
    let model: Arc<dyn Conversation> = parrot.clone();
    (ConversationApi::new(&wiring, [ConversationComponent { name: "parrot".into(), model }]), parrot)
}

fn says(text: &str) -> Message {
    Message { role: Role::User, name: None, content: vec![text.into()], tool_calls: Vec::new(), tool_id: None }
}

fn input(text: &str, scrub_pii: bool) -> Input {
    Input { messages: vec![says(text)], scrub_pii }
}

async fn converse(converse: Converse) -> Result<Response> {
    api().0.converse(&Ctx::default(), "parrot", converse).await
}

#[tokio::test]
async fn only_the_inputs_that_ask_for_it_are_scrubbed() {
    let inputs = vec![input("a@b.co", true), input("c@d.co", false)];
    let response = converse(Converse { inputs, ..Converse::default() }).await.expect("answers");
    assert_eq!(response.choices[0].content, "<EMAIL_ADDRESS>|c@d.co");
}

#[tokio::test]
async fn answers_are_scrubbed_where_that_is_asked_for() {
    let inputs = vec![input("a@b.co", false)];
    let response = converse(Converse { inputs, scrub_pii: true, ..Converse::default() }).await.expect("answers");
    assert_eq!(response.choices[0].content, "<EMAIL_ADDRESS>");
}

#[tokio::test]
async fn tools_without_a_choice_leave_it_to_the_model() {
    let tool = Tool { name: "f".into(), description: None, parameters: serde_json::Value::Null };
    for (tools, given, expect) in [
        (vec![], None, None),
        (vec![], Some(""), None),
        (vec![tool.clone()], None, Some("auto")),
        (vec![tool.clone()], Some("none"), Some("none")),
        (vec![tool.clone()], Some("f"), Some("f")),
        (vec![], Some("g"), Some("g")),
    ] {
        let (api, parrot) = api();
        let request = Request { tools, tool_choice: given.map(str::to_owned), ..Request::default() };
        let converse = Converse { inputs: vec![input("hi", false)], request, ..Converse::default() };
        api.converse(&Ctx::default(), "parrot", converse).await.expect("answers");
        let heard = parrot.heard.lock().expect("no panic");
        assert_eq!(heard[0].tool_choice.as_deref(), expect);
    }
}

#[tokio::test]
async fn a_choice_that_is_not_there_is_refused_in_daprs_words() {
    let tool = Tool { name: "f".into(), description: None, parameters: serde_json::Value::Null };
    for (tools, choice, start) in [
        (vec![tool], "g", "invalid params%!(EXTRA string=tool choice selected was not found. Must be"),
        (vec![], "required", "invalid params%!(EXTRA string=tool choice must be 'auto', 'none', 'required', or a"),
    ] {
        let request = Request { tools, tool_choice: Some(choice.into()), ..Request::default() };
        let refused = converse(Converse { inputs: vec![input("hi", false)], request, ..Converse::default() }).await;
        let error = refused.expect_err("no such choice");
        assert_eq!(error.code(), Code::ConversationInvalidParams);
        assert!(error.message().contains(start), "{error}");
    }
}

#[tokio::test]
async fn what_fails_names_the_component() {
    let none = converse(Converse::default()).await.expect_err("no inputs");
    assert_eq!(none.message(), "failed conversing with component parrot: missing inputs in request");
    let request = Request { metadata: [("fail".to_owned(), String::new())].into(), ..Request::default() };
    let failed = converse(Converse { inputs: vec![input("hi", false)], request, ..Converse::default() }).await;
    let failed = failed.expect_err("it will not");
    assert_eq!(failed.message(), "failed conversing with component parrot: not with you");
    assert_eq!((failed.code(), failed.kind()), (Code::ConversationInvoke, crate::error::Kind::Denied));
    let missing = api().0.converse(&Ctx::default(), "other", Converse::default()).await.expect_err("no such model");
    assert_eq!(missing.message(), "failed finding conversation component other");
}

#[test]
fn roles_that_are_not_known_are_the_user() {
    for (name, expect) in [
        ("user", Role::User),
        ("human", Role::User),
        ("ai", Role::Assistant),
        ("assistant", Role::Assistant),
        ("system", Role::System),
        ("tool", Role::Tool),
        ("weird", Role::User),
        ("", Role::User),
    ] {
        assert_eq!(role(name), expect, "{name}");
    }
}
