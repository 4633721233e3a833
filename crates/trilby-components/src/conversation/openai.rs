//! Models behind OpenAI's protocol: `conversation.openai` (Azure's too), `conversation.ollama`, `conversation.deepseek`,
//! `conversation.mistral` and `conversation.huggingface`.
//!
//! Dapr speaks to Mistral through a client of its own that knows no tools in a conversation's past and no endpoint;
//! Mistral's server speaks OpenAI's protocol, so here it has both.

mod cache;
mod wire;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request as HttpRequest, StatusCode, Uri, header};
use http_body_util::Full;
use serde::Deserialize;
use trilby_component::{
    ComponentError, ErrorKind, OpenRequest, Result,
    conversation::{Conversation, Request, Response},
    properties::duration,
};

use self::cache::Cache;
use crate::{http::Client, tls};

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// What `spec.metadata` may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The API key. Required, but for Ollama. Dapr's `key`.
    pub key: String,
    /// The model. Default: `gpt-5-nano`, on Azure `gpt-4.1-nano`; `llama3.2:latest`; `deepseek-chat`; `open-mistral-7b`;
    /// `deepseek-ai/DeepSeek-R1-Distill-Qwen-32B`. Dapr's `model`.
    pub model: String,
    /// Where the server is, with the path before `/chat/completions`. Default: where each provider has it. Dapr's
    /// `endpoint`.
    pub endpoint: String,
    /// `open_ai` or `azure`. Default `open_ai`. Only for OpenAI. Dapr's `apiType`.
    pub api_type: String,
    /// The version of Azure's API. Required there. Dapr's `apiVersion`.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// How long answers are kept for the same question. Default: not at all. Dapr's `responseCacheTTL` or `cacheTTL`.
    #[serde(rename = "responseCacheTTL", alias = "cacheTTL", with = "duration")]
    pub cache_ttl: Duration,
    /// The longest answer, in tokens. Default: the server's. Only for DeepSeek. Dapr's `maxTokens`.
    pub max_tokens: u32,
}

/// What is different about a provider.
struct Provider {
    name: &'static str,
    /// `MODEL` stands for the model.
    endpoint: &'static str,
    model: &'static str,
    /// What is sent where no key is set.
    key: Option<&'static str>,
    /// Whether the server takes metadata of a request.
    takes_metadata: bool,
}

const OPENAI: Provider = Provider {
    name: "openai",
    endpoint: "https://api.openai.com/v1",
    model: "gpt-5-nano",
    key: None,
    takes_metadata: true,
};
const AZURE: Provider = Provider { name: "azure openai", model: "gpt-4.1-nano", endpoint: "", ..OPENAI };
const OLLAMA: Provider = Provider {
    name: "ollama",
    endpoint: "http://localhost:11434/v1",
    model: "llama3.2:latest",
    // Ollama looks at no key, but wants one.
    key: Some("ollama"),
    takes_metadata: true,
};
const DEEPSEEK: Provider =
    Provider { name: "deepseek", endpoint: "https://api.deepseek.com", model: "deepseek-chat", ..OPENAI };
const MISTRAL: Provider = Provider {
    name: "mistral",
    endpoint: "https://api.mistral.ai/v1",
    model: "open-mistral-7b",
    key: None,
    takes_metadata: false,
};
const HUGGINGFACE: Provider = Provider {
    name: "huggingface",
    endpoint: "https://router.huggingface.co/hf-inference/models/MODEL/v1",
    model: "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
    ..OPENAI
};

/// Opens `conversation.openai`. Nothing is sent before the first question.
///
/// # Errors
/// `InvalidMetadata` without a key, with an endpoint that is no URL, or with Azure and not all that it needs.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn Conversation>> {
    let config: Config = request.properties.parse()?;
    if config.api_type.eq_ignore_ascii_case("azure") {
        return azure(&config);
    }
    connect(&OPENAI, &config)
}

/// Opens `conversation.ollama`.
///
/// # Errors
/// As [`open`].
pub async fn ollama(request: OpenRequest) -> Result<Arc<dyn Conversation>> {
    connect(&OLLAMA, &request.properties.parse()?)
}

/// Opens `conversation.deepseek`.
///
/// # Errors
/// As [`open`].
pub async fn deepseek(request: OpenRequest) -> Result<Arc<dyn Conversation>> {
    connect(&DEEPSEEK, &request.properties.parse()?)
}

/// Opens `conversation.mistral`.
///
/// # Errors
/// As [`open`].
pub async fn mistral(request: OpenRequest) -> Result<Arc<dyn Conversation>> {
    connect(&MISTRAL, &request.properties.parse()?)
}

/// Opens `conversation.huggingface`.
///
/// # Errors
/// As [`open`].
pub async fn huggingface(request: OpenRequest) -> Result<Arc<dyn Conversation>> {
    connect(&HUGGINGFACE, &request.properties.parse()?)
}

fn connect(provider: &Provider, config: &Config) -> Result<Arc<dyn Conversation>> {
    let model = or(&config.model, provider.model);
    let default = provider.endpoint.replace("MODEL", model);
    let endpoint = or(&config.endpoint, &default).trim_end_matches('/');
    let key = format!("Bearer {}", key(provider, config)?);
    let server = Server::new(provider, config, format!("{endpoint}/chat/completions"), (header::AUTHORIZATION, &key))?;
    Ok(Arc::new(server))
}

fn azure(config: &Config) -> Result<Arc<dyn Conversation>> {
    let (endpoint, version) = (config.endpoint.trim_end_matches('/'), &config.api_version);
    if endpoint.is_empty() || version.is_empty() {
        let message = "endpoint and apiVersion must be provided when apiType is set to 'azure'";
        return Err(ComponentError::metadata(message));
    }
    let deployment = or(&config.model, AZURE.model);
    let uri = format!("{endpoint}/openai/deployments/{deployment}/chat/completions?api-version={version}");
    let key = key(&AZURE, config)?;
    Ok(Arc::new(Server::new(&AZURE, config, uri, (HeaderName::from_static("api-key"), key))?))
}

fn key<'a>(provider: &Provider, config: &'a Config) -> Result<&'a str> {
    match provider.key {
        Some(default) if config.key.is_empty() => Ok(default),
        None if config.key.is_empty() => {
            let message = format!("{} api key is required; set metadata key to it", provider.name);
            Err(ComponentError::metadata(message))
        }
        _ => Ok(&config.key),
    }
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// A model on a server.
struct Server {
    client: Client,
    uri: Uri,
    key: (HeaderName, HeaderValue),
    model: String,
    takes_metadata: bool,
    max_tokens: u32,
    cache: Option<Cache>,
}

impl Server {
    fn new(provider: &Provider, config: &Config, uri: String, (name, key): (HeaderName, &str)) -> Result<Self> {
        let uri: Uri = uri
            .parse()
            .map_err(|error| ComponentError::metadata(format!("metadata endpoint: {uri} is no URL: {error}")))?;
        if uri.host().is_none() {
            return Err(ComponentError::metadata(format!("metadata endpoint: {uri} names no server")));
        }
        let mut key = HeaderValue::try_from(key)
            .map_err(|_| ComponentError::metadata("metadata key holds what no header can hold"))?;
        key.set_sensitive(true);
        Ok(Self {
            client: Client::new(&tls::Settings::default())?,
            uri,
            key: (name, key),
            model: or(&config.model, provider.model).to_owned(),
            takes_metadata: provider.takes_metadata,
            max_tokens: config.max_tokens,
            cache: (!config.cache_ttl.is_zero()).then(|| Cache::new(config.cache_ttl)),
        })
    }

    async fn ask(&self, question: Bytes) -> Result<Response> {
        let (name, key) = &self.key;
        let request = HttpRequest::post(&self.uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(name, key)
            .body(Full::new(question))
            .map_err(|error| ComponentError::new(ErrorKind::Internal, error.to_string()))?;
        // How long a model may think is for the policies to say.
        let answer = self.client.exchange(request, MAX_ANSWER_BYTES, None).await?;
        if answer.status() != StatusCode::OK {
            return Err(refused(answer.status(), answer.body()));
        }
        wire::decode(answer.body(), &self.model)
    }
}

#[async_trait]
impl Conversation for Server {
    async fn converse(&self, request: &Request) -> Result<Response> {
        let question = wire::encode(request, &self.model, self.takes_metadata, self.max_tokens);
        if let Some(answer) = self.cache.as_ref().and_then(|cache| cache.get(&question)) {
            return Ok(answer);
        }
        let answer = self.ask(question.clone()).await?;
        let is_empty = answer.choices.iter().all(|choice| choice.content.is_empty() && choice.tool_calls.is_empty());
        if is_empty && !request.tools.is_empty() && request.tool_choice.as_deref() == Some("required") {
            let tools = request.tools.len();
            let message =
                format!("LLM returned empty response with no tool calls despite {tools} tools being available");
            return Err(ComponentError::new(ErrorKind::Internal, message));
        }
        if let Some(cache) = &self.cache {
            cache.put(question, answer.clone());
        }
        Ok(answer)
    }
}

/// What the server's status means, with its own words where it has some.
fn refused(status: StatusCode, body: &[u8]) -> ComponentError {
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ErrorKind::Unavailable,
        status if status.is_client_error() => ErrorKind::InvalidRequest,
        status if status.is_server_error() => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let reason = wire::error_message(body).map(|message| format!(": {message}")).unwrap_or_default();
    ComponentError::new(kind, format!("API returned unexpected status code: {}{reason}", status.as_u16()))
}
