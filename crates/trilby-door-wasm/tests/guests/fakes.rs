//! Components that live in memory and do as little as a test can ask for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use trilby_component::{
    CancellationToken, ComponentError, ErrorKind, Metadata, Result,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
    configuration::{ConfigurationStore, Item, Items, Sink as ConfigurationSink, Watch},
    conversation::{Choice, Conversation, Request, Response, ToolCall, Usage},
    crypto::{CipherRequest, CipherResult, CryptoProvider, KeyFormat, PublicKey},
    lock::{LockStore, UnlockStatus},
    pubsub::{Feature, PubSub, PublishRequest, Sink, SubscribeRequest, Subscription},
};
use trilby_core::{
    Blocks, Identity, Wiring,
    bindings::{BindingComponent, BindingsApi},
    configuration::{ConfigurationApi, ConfigurationComponent},
    conversation::{ConversationApi, ConversationComponent},
    crypto::{CryptoApi, CryptoComponent},
    lock::{LockApi, LockComponent},
    pubsub::{PubSubApi, PubSubComponent, Scopes},
    state::KeyPrefix,
};

/// The components of all apps, one of each kind.
#[derive(Clone, Default)]
pub(crate) struct Fakes {
    pub(crate) broker: Arc<Broker>,
    locks: Arc<Locks>,
}

impl Fakes {
    /// Blocks with these components, and without the others.
    pub(crate) fn blocks(&self, wiring: &Wiring<'_>, app: &Identity) -> Blocks {
        let broker = PubSubComponent {
            name: "pubsub".into(),
            broker: self.broker.clone(),
            scopes: Scopes::default(),
            topic_prefix: String::new(),
        };
        let binding = BindingComponent {
            name: "echo".into(),
            binding: Arc::new(Binding { input: None, output: Some(Arc::new(Echo)) }),
            route: "echo".into(),
            direction: None,
        };
        let configuration = ConfigurationComponent { name: "configstore".into(), store: Arc::new(Settings) };
        let locks =
            LockComponent { name: "lockstore".into(), store: self.locks.clone(), key_prefix: KeyPrefix::default() };
        Blocks {
            pubsub: PubSubApi::new(wiring, [broker], Vec::new()),
            bindings: BindingsApi::new(wiring, [binding]),
            configuration: ConfigurationApi::new(wiring, [configuration]),
            lock: LockApi::new(wiring, [locks]),
            crypto: CryptoApi::new(wiring, [CryptoComponent { name: "vault".into(), provider: Arc::new(Vault) }]),
            conversation: ConversationApi::new(
                wiring,
                [ConversationComponent { name: "model".into(), model: Arc::new(Parrot) }],
            ),
            ..Blocks::empty(app.clone())
        }
    }
}

/// Keeps what is published. A topic called `down` is not there.
#[derive(Default)]
pub(crate) struct Broker {
    published: Mutex<Vec<PublishRequest>>,
    fails: AtomicBool,
}

impl Broker {
    pub(crate) fn take(&self) -> Vec<PublishRequest> {
        std::mem::take(&mut self.published.lock().expect("no test panics while it holds this"))
    }

    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }
}

#[async_trait]
impl PubSub for Broker {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn publish(&self, request: &PublishRequest) -> Result<()> {
        let fails = self.fails.load(Ordering::Relaxed);
        if fails || request.topic == "down" || request.data.ends_with(b"refuse\"}") {
            return Err(ComponentError::new(ErrorKind::Unavailable, "the broker is away"));
        }
        self.published.lock().expect("no test panics while it holds this").push(request.clone());
        Ok(())
    }

    async fn subscribe(&self, _: &SubscribeRequest, _: Arc<dyn Sink>, _: CancellationToken) -> Result<Subscription> {
        Err(ComponentError::unsupported("nothing comes out of this broker"))
    }
}

/// Answers with what it was asked.
struct Echo;

#[async_trait]
impl OutputBinding for Echo {
    fn operations(&self) -> &[&'static str] {
        &["create", "fail"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        if request.operation == "fail" {
            return Err(ComponentError::new(ErrorKind::Denied, "it says no").into());
        }
        let metadata = [("mark".to_owned(), request.metadata.get("mark").cloned().unwrap_or_default())].into();
        Ok(InvokeResponse { data: Some(request.data.clone()), content_type: Some("text/plain".into()), metadata })
    }
}

struct Settings;

#[async_trait]
impl ConfigurationStore for Settings {
    async fn get(&self, keys: &[String], _: &Metadata) -> Result<Items> {
        let item = Item { value: "10".into(), version: "3".into(), metadata: [("by".into(), "ops".into())].into() };
        let mut items = Items::from([("discount".to_owned(), item)]);
        items.retain(|key, _| keys.is_empty() || keys.contains(key));
        Ok(items)
    }

    async fn watch(
        &self,
        _: &[String],
        _: &Metadata,
        _: Arc<dyn ConfigurationSink>,
        _: CancellationToken,
    ) -> Result<Watch> {
        Err(ComponentError::unsupported("nothing changes here"))
    }
}

#[derive(Default)]
struct Locks(Mutex<HashMap<String, String>>);

#[async_trait]
impl LockStore for Locks {
    async fn try_lock(&self, resource: &str, owner: &str, _: Duration) -> Result<bool> {
        let mut locks = self.0.lock().expect("no test panics while it holds this");
        let is_free = !locks.contains_key(resource);
        if is_free {
            locks.insert(resource.to_owned(), owner.to_owned());
        }
        Ok(is_free)
    }

    async fn unlock(&self, resource: &str, owner: &str) -> Result<UnlockStatus> {
        let mut locks = self.0.lock().expect("no test panics while it holds this");
        Ok(match locks.get(resource) {
            None => UnlockStatus::LockDoesNotExist,
            Some(holder) if holder != owner => UnlockStatus::LockBelongsToOthers,
            Some(_) => {
                locks.remove(resource);
                UnlockStatus::Success
            }
        })
    }
}

/// Turns every bit round: the world's worst cipher, and its own inverse.
struct Vault;

impl Vault {
    fn turn(request: &CipherRequest) -> Result<CipherResult> {
        if request.key != "mykey" {
            return Err(ComponentError::new(ErrorKind::NotFound, format!("no key {}", request.key)));
        }
        let output = request.input.iter().map(|byte| !byte).collect();
        Ok(CipherResult { output, tag: request.nonce.clone() })
    }
}

#[async_trait]
impl CryptoProvider for Vault {
    async fn public_key(&self, name: &str, format: KeyFormat) -> Result<Option<PublicKey>> {
        let text = match format {
            KeyFormat::Pem => "-----BEGIN",
            KeyFormat::Json => "{}",
        };
        Ok((name == "mykey").then(|| PublicKey { name: "mykey/1".into(), text: text.into() }))
    }

    async fn encrypt(&self, request: &CipherRequest) -> Result<CipherResult> {
        Self::turn(request)
    }

    async fn decrypt(&self, request: &CipherRequest) -> Result<CipherResult> {
        Self::turn(request)
    }

    async fn wrap_key(&self, request: &CipherRequest) -> Result<CipherResult> {
        Self::turn(request)
    }

    async fn unwrap_key(&self, request: &CipherRequest) -> Result<CipherResult> {
        Self::turn(request)
    }

    async fn sign(&self, digest: &[u8], _: &str, _: &str) -> Result<Bytes> {
        Ok(digest.iter().rev().copied().collect())
    }

    async fn verify(&self, digest: &[u8], signature: &[u8], _: &str, _: &str) -> Result<bool> {
        Ok(digest.iter().rev().eq(signature))
    }
}

/// Says what it heard last, and asks for the first tool.
struct Parrot;

#[async_trait]
impl Conversation for Parrot {
    async fn converse(&self, request: &Request) -> Result<Response> {
        let heard = request.messages.iter().map(|message| format!("{:?}: {}", message.role, message.content.join(" ")));
        let choice = Choice {
            finish_reason: "stop".into(),
            content: heard.collect::<Vec<_>>().join("; "),
            tool_calls: request.tools.first().map(asked).into_iter().collect(),
            ..Choice::default()
        };
        let usage = Usage { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3, ..Usage::default() };
        Ok(Response { choices: vec![choice], model: Some("parrot".into()), usage: Some(usage) })
    }
}

fn asked(tool: &trilby_component::conversation::Tool) -> ToolCall {
    ToolCall { id: "call-1".into(), name: tool.name.clone(), arguments: tool.parameters.to_string() }
}
