//! What an application can do and see through a door. Cases speak only this, so each runs through every door.

use std::fmt;

use async_trait::async_trait;
use tokio::sync::mpsc;
use trilby_component::lock::UnlockStatus;
use trilby_core::Api;

/// What a door told the application when a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What a program branches on at this door.
    pub kind: FailureKind,
    /// Status, code and message, for people.
    pub text: String,
}

/// The kinds that every door can tell apart, from its status, code or case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Another writer was faster. HTTP 409, gRPC `ABORTED`.
    Conflict,
    /// The request can never succeed. HTTP 400, gRPC `INVALID_ARGUMENT`.
    Invalid,
    /// Not allowed. HTTP 403, gRPC `PERMISSION_DENIED`.
    Denied,
    /// Anything else.
    Other,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

/// The result of a call through a door.
pub type Answer<T> = Result<T, Failure>;

/// An item as an application reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The value's bytes.
    pub value: Vec<u8>,
    /// The etag, if the store has them.
    pub etag: Option<String>,
    /// When it expires, if it does and the store says so.
    pub expires: Option<String>,
}

/// A write, with what an application can ask of it.
#[derive(Debug, Clone, Default)]
pub struct Write {
    /// The app's key.
    pub key: String,
    /// JSON text.
    pub json: String,
    /// Only write over this version.
    pub etag: Option<String>,
    /// Without an etag: only write if the item does not exist.
    pub first_write: bool,
    /// Life of the item in seconds; -1 takes a life away.
    pub ttl_seconds: Option<i64>,
}

impl Write {
    /// An unconditional write.
    pub fn new(key: impl Into<String>, json: impl Into<String>) -> Self {
        Self { key: key.into(), json: json.into(), ..Self::default() }
    }

    /// Only over this version.
    #[must_use]
    pub fn over(mut self, etag: impl Into<String>) -> Self {
        self.etag = Some(etag.into());
        self
    }

    /// First writer wins.
    #[must_use]
    pub fn first(mut self) -> Self {
        self.first_write = true;
        self
    }

    /// Expires after so many seconds, or never with -1.
    #[must_use]
    pub fn living(mut self, seconds: i64) -> Self {
        self.ttl_seconds = Some(seconds);
        self
    }
}

/// One step of a transaction.
#[derive(Debug, Clone)]
pub enum Step {
    /// Write an item.
    Upsert(Write),
    /// Delete a key, if it has this etag where one is given.
    Delete(String, Option<String>),
}

/// State through one door.
#[async_trait]
pub trait StateClient: Send + Sync {
    /// Reads an item.
    async fn get(&self, store: &str, key: &str) -> Answer<Option<Item>>;
    /// Reads many; one result a key, in the order of the keys.
    async fn bulk_get(&self, store: &str, keys: &[&str]) -> Answer<Vec<(String, Option<Item>)>>;
    /// Writes items in one request.
    async fn save(&self, store: &str, writes: &[Write]) -> Answer<()>;
    /// Deletes an item, if it has this etag where one is given.
    async fn delete(&self, store: &str, key: &str, etag: Option<&str>) -> Answer<()>;
    /// All or nothing.
    async fn transact(&self, store: &str, steps: &[Step]) -> Answer<()>;
}

/// Secrets through one door.
#[async_trait]
pub trait SecretClient: Send + Sync {
    /// Reads one secret.
    async fn get_secret(&self, store: &str, name: &str) -> Answer<Vec<(String, String)>>;
}

/// Cryptography through one door.
#[async_trait]
pub trait CryptoClient: Send + Sync {
    /// Encrypts a document with a key of 256 bits.
    async fn encrypt(&self, provider: &str, key: &str, plaintext: &[u8]) -> Answer<Vec<u8>>;
    /// Decrypts a document with the key that it names.
    async fn decrypt(&self, provider: &str, document: &[u8]) -> Answer<Vec<u8>>;
}

/// Conversation through one door.
#[async_trait]
pub trait ConversationClient: Send + Sync {
    /// Says one thing, perhaps without personal data, and returns the first answer.
    async fn converse(&self, model: &str, text: &str, scrub: bool) -> Answer<String>;
}

/// A message to publish.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// What is published.
    pub data: Vec<u8>,
    /// Its media type.
    pub content_type: String,
    /// Metadata of the request.
    pub metadata: Vec<(String, String)>,
}

impl Message {
    /// Text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { data: text.into(), content_type: "text/plain".into(), metadata: Vec::new() }
    }

    /// JSON.
    #[must_use]
    pub fn json(text: &str) -> Self {
        Self { content_type: "application/json".into(), ..Self::text(text) }
    }

    /// With metadata.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Pub/sub through one door.
#[async_trait]
pub trait PubSubClient: Send + Sync {
    /// Publishes a message.
    async fn publish(&self, pubsub: &str, topic: &str, message: &Message) -> Answer<()>;
    /// Publishes messages in one request; answers with the ids of those that failed. The ids are their positions.
    async fn publish_bulk(&self, pubsub: &str, topic: &str, messages: &[Message]) -> Answer<Vec<String>>;
    /// The blocks of an app that listens to what is published; `None` if nobody does.
    fn listener(&self) -> Option<&Api>;
}

/// Bindings through one door.
#[async_trait]
pub trait BindingClient: Send + Sync {
    /// Calls an output binding with JSON data; an answer without data is empty.
    async fn invoke_binding(
        &self,
        binding: &str,
        operation: &str,
        json: &str,
        metadata: &[(&str, &str)],
    ) -> Answer<Vec<u8>>;
}

/// Locks through one door.
#[async_trait]
pub trait LockClient: Send + Sync {
    /// Takes a lock; `false` if somebody holds it.
    async fn try_lock(&self, store: &str, resource: &str, owner: &str, expiry_seconds: u32) -> Answer<bool>;
    /// Gives it back, and says what came of that.
    async fn unlock(&self, store: &str, resource: &str, owner: &str) -> Answer<UnlockStatus>;
}

/// Keys of configuration and their values.
pub type Values = Vec<(String, String)>;

/// A subscription to changes of configuration.
pub struct Watching {
    /// What ends it; `None` if it lasts as long as the app.
    pub id: Option<String>,
    /// The changes as they arrive.
    pub changes: mpsc::Receiver<Values>,
    /// Whether `changes` ends with the subscription. Apps that are called just hear no more.
    pub is_stream: bool,
}

/// Configuration through one door.
#[async_trait]
pub trait ConfigurationClient: Send + Sync {
    /// Reads the values of keys.
    async fn get_configuration(&self, store: &str, keys: &[&str]) -> Answer<Values>;
    /// Watches keys.
    async fn watch_configuration(&self, store: &str, keys: &[&str]) -> Answer<Watching>;
    /// The key that the app watches of itself, if it cannot choose later.
    fn watched_key(&self) -> Option<&'static str> {
        None
    }
    /// Ends a subscription.
    async fn unwatch_configuration(&self, store: &str, id: &str) -> Answer<()>;
}

/// Everything that a door offers to the suite.
pub trait Client:
    StateClient
    + SecretClient
    + PubSubClient
    + CryptoClient
    + ConversationClient
    + BindingClient
    + LockClient
    + ConfigurationClient
{
}

impl<T> Client for T where
    T: StateClient
        + SecretClient
        + PubSubClient
        + CryptoClient
        + ConversationClient
        + BindingClient
        + LockClient
        + ConfigurationClient
{
}
