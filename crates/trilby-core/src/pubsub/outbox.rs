//! The outbox: events that are published if, and only if, a state transaction was done.
//!
//! Before the transaction each event goes to an internal topic, and the transaction also writes a marker under the
//! event's id. Whoever reads the internal topic looks for the marker: if it is there, the event goes on to where the app
//! wants it, and the marker is deleted. So a process that dies at any point leaves nothing undone, and another one of
//! the same app takes over. Topic, marker and envelope are Dapr's.

use std::{
    collections::VecDeque,
    str,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{select, sync::OnceCell, task::JoinSet, time};
use trilby_component::{
    CancellationToken, ComponentError, ErrorKind, Properties,
    properties::is_truthy,
    pubsub::{Message, NotHandled, PublishRequest, Sink, SubscribeRequest, Subscription},
    state::{DeleteRequest, GetRequest, Operation, SetRequest, StateStore, Value, WriteOptions},
};
use uuid::Uuid;

use super::{
    broker::Broker,
    envelope::{self, Sender},
    errors, json,
};
use crate::{
    Ctx, Identity, Result,
    handle::Handle,
    metrics::{Meter, Op},
    resiliency::Block,
    wiring::Wiring,
};

/// What a marker holds.
const MARK: &[u8] = b"\"0\"";
/// Operations with this in their metadata say what is published, and are not performed.
const PROJECTION: &str = "outbox.projection";
/// Metadata of an operation for the media type of its event, beside `contentType`, which stores read too.
pub const OUTBOX_CONTENT_TYPE: &str = "outbox.contentType";
/// How long a marker is looked for, and the pauses: at first, and at most; each is three times the one before.
const PATIENCE: Duration = Duration::from_secs(11);
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(3)];
/// How long to wait before the internal topic is subscribed to again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// Most transactions that failed and are remembered.
const MAX_ABORTED: usize = 1000;

/// What a state store's metadata say of its outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxSettings {
    /// The broker of the events. `outboxPublishPubsub`.
    pub publish_pubsub: String,
    /// The topic of the events. `outboxPublishTopic`.
    pub publish_topic: String,
    /// The broker of the internal topic. `outboxPubsub`; default that of the events.
    pub pubsub: String,
    /// Whether an event without marker is thrown away, instead of being left to the broker for later.
    /// `outboxDiscardWhenMissingState`; default no.
    pub discards_when_missing: bool,
}

impl OutboxSettings {
    /// Reads them; `None` if the store has no outbox.
    #[must_use]
    pub fn parse(properties: &Properties) -> Option<Self> {
        let publish_pubsub = properties.get("outboxPublishPubsub")?.to_owned();
        Some(Self {
            publish_topic: properties.get("outboxPublishTopic")?.to_owned(),
            pubsub: properties.get("outboxPubsub").unwrap_or(&publish_pubsub).to_owned(),
            discards_when_missing: properties.get("outboxDiscardWhenMissingState").is_some_and(is_truthy),
            publish_pubsub,
        })
    }
}

/// A state store with an outbox.
pub struct OutboxComponent {
    /// The resource's name.
    pub name: String,
    /// The store.
    pub store: Arc<dyn StateStore>,
    /// What its metadata say.
    pub settings: OutboxSettings,
}

/// The outbox of one state store, for one app.
pub struct Outbox {
    app: Identity,
    settings: OutboxSettings,
    store: Handle<dyn StateStore>,
    /// The broker of the internal topic.
    internal: Option<Arc<Broker>>,
    /// The broker of the events.
    external: Option<Arc<Broker>>,
    /// Ids of events whose transaction has failed here: nobody need wait for their marker.
    aborted: Mutex<VecDeque<String>>,
    opened: OnceCell<()>,
    reading: Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

/// Events that wait for their transaction.
#[derive(Debug, Default)]
pub(crate) struct Pending(Vec<String>);

impl Pending {
    /// What the transaction must write besides. Keys are not the app's and have no prefix, as in Dapr.
    pub(crate) fn markers(&self) -> impl Iterator<Item = Operation> + '_ {
        self.0.iter().map(|id| {
            Operation::Upsert(SetRequest {
                key: id.clone(),
                value: Value::Json(Bytes::from_static(MARK)),
                etag: None,
                options: WriteOptions::default(),
                metadata: Default::default(),
            })
        })
    }
}

impl Outbox {
    pub(super) fn new(
        wiring: &Wiring<'_>,
        component: OutboxComponent,
        broker: impl Fn(&str) -> Option<Arc<Broker>>,
    ) -> Arc<Self> {
        let OutboxComponent { name, store, settings } = component;
        let policy = wiring.policies.component_outbound(Block::State, &name);
        Arc::new(Self {
            app: wiring.app.clone(),
            internal: broker(&settings.pubsub),
            external: broker(&settings.publish_pubsub),
            settings,
            // Dapr does not count what its outbox does.
            store: Handle::new(&name, store, Meter::unlisted(), policy),
            aborted: Mutex::default(),
            opened: OnceCell::new(),
            reading: Mutex::default(),
            stop: CancellationToken::new(),
        })
    }

    /// Sends what the operations write to the internal topic. Operations that only say what is published are taken out.
    ///
    /// # Errors
    /// [`Code::PubSubOutbox`](crate::Code::PubSubOutbox); the transaction must not be begun then.
    pub(crate) async fn publish(self: &Arc<Self>, ctx: &Ctx, operations: &mut Vec<Operation>) -> Result<Pending> {
        // A broker may forget what nobody reads.
        self.open().await;
        let projections: Vec<_> = operations
            .extract_if(.., |operation| matches!(operation, Operation::Upsert(item) if is_projection(item)))
            .collect();
        let mut pending = Pending::default();
        for item in operations.iter().filter_map(upserted) {
            let projected = projections.iter().filter_map(upserted).rfind(|other| other.key == item.key);
            let id = format!("outbox-{}", Uuid::new_v4());
            let event = self.envelope(ctx, &id, projected.unwrap_or(item), item);
            pending.0.push(id);
            if let Err(cause) = self.send(ctx, &self.internal, &self.settings.pubsub, self.topic(), event).await {
                self.abort(pending);
                return Err(errors::outbox(&self.app.id, &cause));
            }
        }
        Ok(pending)
    }

    /// Says that the transaction was certainly not done.
    pub(crate) fn abort(&self, pending: Pending) {
        let mut aborted = self.aborted();
        aborted.extend(pending.0);
        let surplus = aborted.len().saturating_sub(MAX_ABORTED);
        aborted.drain(..surplus);
    }

    /// Begins to read the internal topic, if nobody did.
    pub(super) async fn open(self: &Arc<Self>) {
        self.opened.get_or_init(|| self.begin()).await;
    }

    /// Ends that, after what is under way.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        let mut reading = std::mem::take(&mut *self.reading.lock().unwrap_or_else(PoisonError::into_inner));
        while reading.join_next().await.is_some() {}
    }

    async fn begin(self: &Arc<Self>) {
        let Some(broker) = self.internal.clone() else {
            let pubsub = self.settings.pubsub.as_str();
            tracing::warn!(store = self.store.name(), pubsub, "outbox not read: there is no such broker");
            return;
        };
        // Without this outbox there is nobody to read for.
        let sink: Arc<dyn Sink> = Arc::new(Reader(Arc::downgrade(self)));
        let request = SubscribeRequest { topic: broker.complete(self.topic()), ..SubscribeRequest::default() };
        let stop = self.stop.clone();
        let first = subscribe(&broker, &request, &sink, &stop).await;
        let reading = async move {
            let mut opened = first;
            loop {
                let ended = match opened {
                    Ok(reading) => reading.await,
                    Err(error) => Err(error),
                };
                if stop.is_cancelled() {
                    return;
                }
                if let Err(error) = ended {
                    tracing::error!(topic = request.topic, %error, "outbox not read, trying again");
                }
                select! {
                    () = time::sleep(OPEN_AGAIN) => {}
                    () = stop.cancelled() => return,
                }
                opened = subscribe(&broker, &request, &sink, &stop).await;
            }
        };
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).spawn(reading);
    }

    /// The internal topic, prefix not included.
    fn topic(&self) -> String {
        format!("{}{}{}outbox", self.app.namespace_or_default(), self.app.id, self.settings.publish_topic)
    }

    /// The event of `item`, whose metadata are attributes; `source` is what it is about.
    fn envelope(&self, ctx: &Ctx, id: &str, source: &SetRequest, item: &SetRequest) -> Bytes {
        let sender = Sender {
            app_id: &self.app.id,
            pubsub: &self.settings.pubsub,
            topic: "",
            trace: &ctx.trace,
            broker_expires: true,
        };
        let content_type = [OUTBOX_CONTENT_TYPE, "contentType"].iter().find_map(|name| source.metadata.get(*name));
        let content_type = content_type.map_or("", String::as_str);
        let (parent, _) = sender.trace();
        let event = envelope::with_id(&sender, content_type, &data(&source.value, content_type), id);
        let own =
            item.metadata.iter().filter(|(name, _)| !matches!(name.as_str(), "data" | "id" | OUTBOX_CONTENT_TYPE));
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        envelope::amend(&event, [("traceparent", ""), ("traceid", parent)].into_iter().chain(own)).unwrap_or(event)
    }

    async fn send(
        &self,
        ctx: &Ctx,
        broker: &Option<Arc<Broker>>,
        pubsub: &str,
        topic: String,
        data: Bytes,
    ) -> Result<(), ComponentError> {
        let Some(broker) = broker else {
            return Err(ComponentError::new(ErrorKind::NotFound, format!("pubsub '{pubsub}' not found")));
        };
        if !broker.scopes.allow_publishing(&topic) {
            let message = format!("topic {topic} is not allowed for app id {}", self.app.id);
            return Err(ComponentError::new(ErrorKind::Denied, message));
        }
        broker.send(ctx, &PublishRequest { topic: broker.complete(topic), data, ..PublishRequest::default() }).await
    }

    /// One event that has come out of the internal topic.
    async fn pass_on(&self, message: &Message) -> Result<(), String> {
        let text = str::from_utf8(&message.data).map_err(|error| error.to_string())?;
        let members = json::members(text).map_err(|error| error.to_string())?;
        let id = members.iter().rfind(|(name, _)| name == "id").and_then(|(_, value)| json::string(value));
        let id = id.ok_or("an event of the outbox has no id")?;
        if self.forget_aborted(&id) {
            return Ok(());
        }
        let ctx = Ctx::default();
        let (pubsub, topic) = (&self.settings.publish_pubsub, &self.settings.publish_topic);
        match self.find_marker(&ctx, &id).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(reason) => {
                let discarded = self.settings.discards_when_missing && !self.stop.is_cancelled();
                tracing::error!(pubsub, topic, reason, discarded, "event of the outbox not published");
                return if discarded { Ok(()) } else { Err(reason) };
            }
        }
        let event = envelope::amend(&message.data, [("topic", topic.as_str()), ("pubsubname", pubsub)].into_iter());
        let event = event.map_err(|error| error.to_string())?;
        let sent = self.send(&ctx, &self.external, pubsub, topic.clone(), event).await;
        sent.map_err(|error| error.to_string())?;

        let marker = DeleteRequest { key: id.into_owned(), ..DeleteRequest::default() };
        let mut pauses = Pauses::begin();
        loop {
            let deleted = self.store.call(&ctx, Op::Delete, |store| store.delete(&marker)).await;
            match deleted {
                Ok(()) => return Ok(()),
                Err(error) if !pauses.wait(&self.stop).await => return Err(error.to_string()),
                Err(_) => {}
            }
        }
    }

    /// Waits until the marker is there. False if it is known that it will never be.
    async fn find_marker(&self, ctx: &Ctx, id: &str) -> Result<bool, String> {
        let marker = GetRequest { key: id.to_owned(), ..GetRequest::default() };
        let mut pauses = Pauses::begin();
        loop {
            let found = self.store.call(ctx, Op::Get, |store| store.get(&marker)).await;
            let reason = match found {
                Ok(Some(item)) if !item.value.is_empty() => return Ok(true),
                Ok(_) => {
                    let OutboxSettings { publish_topic, publish_pubsub, .. } = &self.settings;
                    format!(
                        "cannot publish outbox message to topic {publish_topic} with pubsub {publish_pubsub}: \
                         outbox state not found"
                    )
                }
                Err(error) => error.to_string(),
            };
            if self.forget_aborted(id) {
                return Ok(false);
            }
            if !pauses.wait(&self.stop).await {
                return Err(reason);
            }
        }
    }

    fn forget_aborted(&self, id: &str) -> bool {
        let mut aborted = self.aborted();
        let found = aborted.iter().position(|aborted| aborted == id);
        found.and_then(|at| aborted.remove(at)).is_some()
    }

    fn aborted(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.aborted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn subscribe(
    broker: &Broker,
    request: &SubscribeRequest,
    sink: &Arc<dyn Sink>,
    stop: &CancellationToken,
) -> Result<Subscription, ComponentError> {
    broker.handle.begin(|broker| broker.subscribe(request, Arc::clone(sink), stop.clone())).await
}

/// What reads the internal topic. It does not keep the outbox alive, which keeps it.
struct Reader(std::sync::Weak<Outbox>);

#[async_trait]
impl Sink for Reader {
    async fn deliver(&self, message: Message) -> Result<(), NotHandled> {
        let Some(outbox) = self.0.upgrade() else { return Err(NotHandled("the app has gone".to_owned())) };
        outbox.pass_on(&message).await.map_err(NotHandled)
    }

    async fn deliver_bulk(&self, messages: Vec<Message>) -> Vec<Result<(), NotHandled>> {
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            outcomes.push(self.deliver(message).await);
        }
        outcomes
    }
}

/// Growing pauses within [`PATIENCE`].
struct Pauses {
    since: time::Instant,
    next: Duration,
}

impl Pauses {
    fn begin() -> Self {
        Self { since: time::Instant::now(), next: PAUSES[0] }
    }

    /// False if there is no more time.
    async fn wait(&mut self, stop: &CancellationToken) -> bool {
        if self.since.elapsed() + self.next > PATIENCE {
            return false;
        }
        select! {
            () = time::sleep(self.next) => {}
            () = stop.cancelled() => return false,
        }
        self.next = (self.next * 3).min(PAUSES[1]);
        true
    }
}

fn upserted(operation: &Operation) -> Option<&SetRequest> {
    match operation {
        Operation::Upsert(item) => Some(item),
        Operation::Delete(_) => None,
    }
}

fn is_projection(item: &SetRequest) -> bool {
    item.metadata.get(PROJECTION).is_some_and(|value| is_truthy(value))
}

/// The data of an event. JSON is text unless the content type says what it is; Dapr then writes what is not a string as
/// Go prints it, which we do not imitate.
fn data(value: &Value, content_type: &str) -> Bytes {
    match value {
        Value::Bytes(bytes) => bytes.clone(),
        Value::Json(text) if content_type.eq_ignore_ascii_case("application/json") => text.clone(),
        Value::Json(text) => match str::from_utf8(text).ok().map(str::trim).and_then(json::string) {
            Some(string) => Bytes::copy_from_slice(string.as_bytes()),
            None => text.clone(),
        },
    }
}

#[cfg(test)]
mod tests;
