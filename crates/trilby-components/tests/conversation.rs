//! The models behind OpenAI's protocol, against a server of the test's own that remembers what it was asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use trilby_component::{
    ErrorKind, OpenRequest,
    conversation::{Conversation, Message, Request, Role, Tool, ToolCall},
};

/// A request as the server saw it.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    /// The header that shows the key.
    key: String,
    body: Value,
}

#[derive(Default)]
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Answers with these, and then with an ordinary answer.
    async fn start(answers: Vec<(u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (remembered, mut answers) = (Arc::clone(&seen), VecDeque::from(answers));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read(&mut stream).await;
                remembered.lock().expect("no panic").push(request);
                let (status, body) = answers.pop_front().unwrap_or_else(|| (200, answer("hello")));
                let body = body.to_string();
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    fn last_body(&self) -> Value {
        self.seen().pop().expect("it was asked").body
    }
}

async fn read(stream: &mut TcpStream) -> Seen {
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).await.expect("readable");
        text.extend_from_slice(&piece[..length]);
        let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&text[..end]).into_owned();
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let body_bytes: usize = header("content-length").expect("a length").parse().expect("a number");
        if text.len() < end + 4 + body_bytes {
            continue;
        }
        let key = header("authorization").or_else(|| header("api-key").map(|key| format!("api-key {key}")));
        return Seen {
            path: head.split(' ').nth(1).expect("a path").to_owned(),
            key: key.unwrap_or_default(),
            body: serde_json::from_slice(&text[end + 4..]).expect("JSON"),
        };
    }
}

fn answer(content: &str) -> Value {
    json!({ "model": "as-the-server-calls-it", "choices": [{ "message": { "content": content }, "finish_reason": "stop" }] })
}

async fn open(type_name: &str, metadata: &[(&str, &str)]) -> Result<Arc<dyn Conversation>, String> {
    let request = OpenRequest { name: "model".into(), properties: metadata.iter().copied().collect() };
    let opened = trilby_components::builtins().open_conversation(type_name, "v1", request).await;
    opened.map_err(|error| error.to_string())
}

async fn gpt(server: &Server, metadata: &[(&str, &str)]) -> Arc<dyn Conversation> {
    let metadata = [&[("key", "secret"), ("endpoint", &*server.address)], metadata].concat();
    open("conversation.openai", &metadata).await.expect("opens")
}

fn says(role: Role, content: &[&str]) -> Message {
    let content = content.iter().map(|text| (*text).to_owned()).collect();
    Message { role, name: None, content, tool_calls: Vec::new(), tool_id: None }
}

fn question(text: &str) -> Request {
    Request { messages: vec![says(Role::User, &[text])], ..Request::default() }
}

#[tokio::test]
async fn each_provider_is_asked_where_and_how_it_wants_to_be() {
    let server = Server::start(vec![]).await;
    let at = |path: &str| format!("{}{path}", server.address);
    let base = at("/v1/");
    for (type_name, metadata, path, key, model) in [
        ("openai", vec![("key", "k"), ("endpoint", &*base)], "/v1/chat/completions", "Bearer k", "gpt-5-nano"),
        (
            "openai",
            vec![("key", "k"), ("endpoint", &*server.address), ("apiType", "Azure"), ("apiVersion", "2025-01-01")],
            "/openai/deployments/gpt-4.1-nano/chat/completions?api-version=2025-01-01",
            "api-key k",
            "gpt-4.1-nano",
        ),
        ("ollama", vec![("endpoint", &*base)], "/v1/chat/completions", "Bearer ollama", "llama3.2:latest"),
        ("deepseek", vec![("key", "k"), ("endpoint", &*base)], "/v1/chat/completions", "Bearer k", "deepseek-chat"),
        (
            "mistral",
            vec![("key", "k"), ("endpoint", &*base), ("model", "large")],
            "/v1/chat/completions",
            "Bearer k",
            "large",
        ),
        (
            "huggingface",
            vec![("key", "k"), ("endpoint", &*base)],
            "/v1/chat/completions",
            "Bearer k",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
        ),
    ] {
        let component = open(&format!("conversation.{type_name}"), &metadata).await.expect("opens");
        let answered = component.converse(&question("hi")).await.expect("answers");
        assert_eq!(answered.model.as_deref(), Some(model), "{type_name}");
        let seen = server.seen().pop().expect("it was asked");
        assert_eq!((seen.path.as_str(), seen.key.as_str()), (path, key), "{type_name}");
        assert_eq!(seen.body, json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] }));
    }
}

#[tokio::test]
async fn a_conversation_with_tools_is_told_in_openais_words() {
    let server = Server::start(vec![]).await;
    let call = ToolCall { id: "call_1".into(), name: "weather".into(), arguments: r#"{"city":"Prague"}"#.into() };
    let schema = json!({ "type": "object", "name": "forecast", "strict": true, "properties": {} });
    let request = Request {
        messages: vec![
            says(Role::System, &["be brief"]),
            says(Role::Developer, &["a", "b"]),
            Message { tool_calls: vec![call], ..says(Role::Assistant, &[]) },
            Message { tool_id: Some("call_1".into()), name: Some("weather".into()), ..says(Role::Tool, &["rain"]) },
        ],
        tools: vec![
            Tool {
                name: "weather".into(),
                description: Some("of today".into()),
                parameters: json!({ "type": "object" }),
            },
            Tool { name: "time".into(), description: None, parameters: Value::Null },
        ],
        tool_choice: Some("weather".into()),
        temperature: 0.5,
        response_format: Some(schema),
        parameters: json!({ "top_p": 0.1, "model": "another", "stream": true }).as_object().expect("members").clone(),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
    };
    gpt(&server, &[("model", "gpt-4.1")]).await.converse(&request).await.expect("answers");
    let expect = json!({
        "model": "gpt-4.1",
        "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{
                    "id": "call_1",
                    "type": "function",
                    "function": { "name": "weather", "arguments": "{\"city\":\"Prague\"}" },
                }],
            },
            { "role": "tool", "content": "rain", "tool_call_id": "call_1" },
        ],
        "temperature": 0.5,
        "tools": [
            {
                "type": "function",
                "function": { "name": "weather", "description": "of today", "parameters": { "type": "object" } },
            },
            { "type": "function", "function": { "name": "time", "parameters": {} } },
        ],
        "tool_choice": { "type": "function", "function": { "name": "weather" } },
        "response_format": {
            "type": "json_schema",
            "json_schema": { "name": "forecast", "strict": true, "schema": { "type": "object", "properties": {} } },
        },
        "metadata": { "team": "a" },
        "top_p": 0.1,
    });
    assert_eq!(server.last_body(), expect);
}

#[tokio::test]
async fn what_a_model_does_not_take_is_not_sent() {
    let server = Server::start(vec![]).await;
    let request = Request {
        temperature: 0.5,
        metadata: [("team".to_owned(), "a".to_owned())].into(),
        response_format: Some(json!({ "properties": {} })),
        ..question("hi")
    };
    gpt(&server, &[("model", "gpt-5-nano")]).await.converse(&request).await.expect("answers");
    assert_eq!(server.last_body()["temperature"], Value::Null, "a model that reasons has its own");
    assert_eq!(server.last_body()["response_format"], Value::Null, "a schema without a type is none");
    let metadata = [("key", "k"), ("endpoint", &*server.address)];
    let mistral = open("conversation.mistral", &metadata).await.expect("opens");
    mistral.converse(&request).await.expect("answers");
    assert_eq!((&server.last_body()["temperature"], &server.last_body()["metadata"]), (&json!(0.5), &Value::Null));
    let deepseek = [("key", "k"), ("endpoint", &*server.address), ("maxTokens", "77")];
    open("conversation.deepseek", &deepseek).await.expect("opens").converse(&request).await.expect("answers");
    assert_eq!(server.last_body()["max_tokens"], 77);
}

#[tokio::test]
async fn everything_that_the_model_says_comes_back() {
    let full = json!({
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "content": null,
                    "tool_calls": [
                        { "id": "1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } },
                        { "function": { "name": "g", "arguments": { "b": 2 } } },
                    ],
                },
            },
            { "message": { "content": "or this" } },
        ],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "total_tokens": 3,
            "prompt_tokens_details": { "cached_tokens": 4 },
            "completion_tokens_details": { "reasoning_tokens": 5 },
        },
    });
    let server = Server::start(vec![(200, full)]).await;
    let answered = gpt(&server, &[]).await.converse(&question("hi")).await.expect("answers");
    let [first, second] = answered.choices.as_slice() else { panic!("two choices in {answered:?}") };
    assert_eq!((first.finish_reason.as_str(), first.index, first.content.as_str()), ("tool_calls", 0, ""));
    let call = |id: &str, name: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    };
    assert_eq!(first.tool_calls, [call("1", "f", r#"{"a":1}"#), call("", "g", r#"{"b":2}"#)]);
    assert_eq!((second.finish_reason.as_str(), second.index, second.content.as_str()), ("unknown", 1, "or this"));
    let usage = answered.usage.expect("it says so");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (1, 2, 3));
    assert_eq!((usage.cached_tokens, usage.reasoning_tokens), (4, 5));
}

#[tokio::test]
async fn a_refusal_says_what_the_server_said_and_what_it_means() {
    let refusals = [
        (401, json!({ "error": { "message": "bad key" } }), ErrorKind::Denied, ": bad key"),
        (429, json!({ "error": { "message": "slow down" } }), ErrorKind::Unavailable, ": slow down"),
        (400, json!({ "message": "no such model" }), ErrorKind::InvalidRequest, ": no such model"),
        (503, json!("busy"), ErrorKind::Unavailable, ""),
    ];
    let server = Server::start(refusals.iter().map(|(status, body, ..)| (*status, body.clone())).collect()).await;
    let model = gpt(&server, &[]).await;
    for (status, _, kind, reason) in refusals {
        let error = model.converse(&question("hi")).await.expect_err("refused");
        assert_eq!(error.to_string(), format!("API returned unexpected status code: {status}{reason}"));
        assert_eq!(error.kind(), kind, "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    let empty = json!({ "choices": [{ "message": { "content": "" } }] });
    let answers = vec![(200, json!({ "choices": [] })), (200, json!("x")), (200, empty.clone()), (200, empty)];
    let server = Server::start(answers).await;
    let model = gpt(&server, &[]).await;
    let error = async |request: Request| model.converse(&request).await.expect_err("no answer").to_string();
    assert_eq!(error(question("hi")).await, "no response");
    assert!(error(question("hi")).await.starts_with("the answer is no chat completion: "));
    let tools = vec![Tool { name: "f".into(), description: None, parameters: Value::Null }];
    let required = Request { tools: tools.clone(), tool_choice: Some("required".into()), ..question("hi") };
    let expect = "LLM returned empty response with no tool calls despite 1 tools being available";
    assert_eq!(error(required).await, expect);
    let may = Request { tools, tool_choice: Some("auto".into()), ..question("hi") };
    assert_eq!(model.converse(&may).await.expect("may be empty").choices[0].content, "");
}

#[tokio::test]
async fn a_question_is_asked_once_while_its_answer_is_kept() {
    let server = Server::start(vec![(200, answer("first")), (200, answer("second"))]).await;
    let cached = gpt(&server, &[("cacheTTL", "1m")]).await;
    for (text, expect) in [("a", "first"), ("a", "first"), ("b", "second"), ("a", "first")] {
        assert_eq!(cached.converse(&question(text)).await.expect("answers").choices[0].content, expect);
    }
    assert_eq!(server.seen().len(), 2);
    let uncached = gpt(&server, &[]).await;
    uncached.converse(&question("a")).await.expect("answers");
    uncached.converse(&question("a")).await.expect("answers");
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn what_is_missing_is_said_at_start_and_nothing_is_sent() {
    for (type_name, metadata, expect) in [
        ("openai", vec![], "openai api key is required; set metadata key to it"),
        ("mistral", vec![], "mistral api key is required; set metadata key to it"),
        (
            "openai",
            vec![("key", "k"), ("apiType", "azure")],
            "endpoint and apiVersion must be provided when apiType is set to 'azure'",
        ),
        ("openai", vec![("key", "k"), ("endpoint", "::")], "metadata endpoint: "),
        ("openai", vec![("key", "k"), ("endpoint", "/v1")], "names no server"),
        ("openai", vec![("key", "a\nb")], "metadata key holds what no header can hold"),
        ("openai", vec![("key", "k"), ("cacheTTL", "soon")], "metadata cacheTTL"),
    ] {
        let error = open(&format!("conversation.{type_name}"), &metadata).await.err().expect(expect);
        assert!(error.contains(expect), "{error}");
    }
}
