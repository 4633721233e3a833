//! The handle of a session: what a component publishes and subscribes through.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time,
};
use trilby_component::{CancellationToken, ComponentError, ErrorKind, Result};

use super::{
    connection::{self, Connection},
    endpoint::Endpoint,
    filter,
    packet::{MAX_PACKET_BYTES, MAX_TEXT_BYTES, Publish, Qos},
};

/// How long a publish or a subscribe waits for the server, as Dapr's do.
const LIMIT: Duration = Duration::from_secs(20);
/// Messages of one subscription that wait for it to take them. When there is no room the connection is not read.
const FEED: usize = 32;
/// Requests that wait for the connection to take them.
const COMMANDS: usize = 64;

/// Who we are to the server.
#[derive(Clone)]
pub(crate) struct Identity {
    /// Only one connection can have it at a time.
    pub(crate) client_id: String,
    /// Whether the server forgets us when the connection ends.
    pub(crate) clean_session: bool,
}

/// A session with a server, over as many connections as that takes.
pub(crate) struct Client {
    commands: mpsc::Sender<Command>,
    receipts: mpsc::Sender<Receipt>,
    connected: watch::Receiver<bool>,
    closing: CancellationToken,
    /// The task that owns the connection.
    task: Mutex<JoinSet<()>>,
    server: String,
}

/// Messages of one subscription. Dropped, what was in it is lost until the next connection; see [`Client::detach`].
pub(crate) struct Feed {
    filter: String,
    messages: mpsc::Receiver<Incoming>,
}

/// A message that came.
pub(crate) struct Incoming {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retained: bool,
    /// What to give back once it is handled; `None` if the server does not care.
    pub(crate) receipt: Option<Receipt>,
}

/// Says which message of which connection is handled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    pub(super) id: u16,
    pub(super) connection: u64,
}

/// What the connection is asked to do.
pub(super) enum Command {
    Publish { message: Publish, done: oneshot::Sender<()> },
    Subscribe { filter: String, qos: Qos, feed: mpsc::Sender<Incoming>, done: oneshot::Sender<Granted> },
    Detach { filter: String, rest: Vec<Incoming>, unsubscribe: bool },
}

/// Whether the server accepted a subscription.
pub(super) type Granted = bool;

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// `Unavailable` if the server cannot be reached, `Denied` if it refuses us.
    pub(crate) async fn open(endpoint: Endpoint, identity: Identity) -> Result<Self> {
        if identity.client_id.len() > MAX_TEXT_BYTES
            || endpoint.username.len().max(endpoint.password.len()) > MAX_TEXT_BYTES
        {
            return Err(ComponentError::metadata(format!(
                "consumerID, user and password have {MAX_TEXT_BYTES} bytes at most"
            )));
        }
        let server = endpoint.name();
        let link = connection::connect(&endpoint, &identity).await?;
        let (commands, todo) = mpsc::channel(COMMANDS);
        // As many as can be in hand wait here at most, and never for long: the connection takes them first.
        let (receipts, handled) = mpsc::channel(COMMANDS);
        let (state, connected) = watch::channel(true);
        let closing = CancellationToken::new();
        let connection = Connection { endpoint, identity, todo, handled, connected: state, closing: closing.clone() };
        let mut task = JoinSet::new();
        task.spawn(connection.run(link));
        Ok(Self { commands, receipts, connected, closing, task: Mutex::new(task), server })
    }

    /// Publishes one message; returns when the server has it, as surely as `qos` says.
    ///
    /// # Errors
    /// `InvalidRequest` if it is no topic or too long; `Unavailable` if the server does not take it in time.
    pub(crate) async fn publish(&self, topic: &str, payload: Bytes, qos: Qos, retain: bool) -> Result<()> {
        if topic.is_empty() {
            return Err(ComponentError::request("topic name is empty"));
        }
        if topic.len() > MAX_TEXT_BYTES || topic.contains(['+', '#', '\0']) {
            return Err(ComponentError::request(format!(
                "mqtt cannot publish to {topic:?}: no wildcards, 65535 bytes"
            )));
        }
        let message = Publish { topic: topic.to_owned(), payload, qos, retain, again: false, id: 0 };
        if message.length() > MAX_PACKET_BYTES {
            return Err(ComponentError::request(format!("a message of mqtt has {MAX_PACKET_BYTES} bytes at most")));
        }
        let (done, outcome) = oneshot::channel();
        self.ask(Command::Publish { message, done }, outcome).await
    }

    /// Opens a subscription; what comes for `filter` from then on is in the feed.
    ///
    /// # Errors
    /// `InvalidRequest` if it is no filter; `Denied` if the server refuses it; `Unavailable` if it does not answer.
    pub(crate) async fn subscribe(&self, filter: &str, qos: Qos) -> Result<Feed> {
        let plain = filter::without_group(filter);
        if plain.is_empty() {
            return Err(ComponentError::request("topic name is empty"));
        }
        if filter.len() > MAX_TEXT_BYTES || filter.contains('\0') {
            return Err(ComponentError::request(format!("mqtt cannot subscribe to {filter:?}: 65535 bytes at most")));
        }
        let (feed, messages) = mpsc::channel(FEED);
        let (done, outcome) = oneshot::channel();
        let command = Command::Subscribe { filter: filter.to_owned(), qos, feed, done };
        if !self.ask(command, outcome).await? {
            let message = format!("mqtt error from subscribe: the server at {} refuses {filter:?}", self.server);
            return Err(ComponentError::new(ErrorKind::Denied, message));
        }
        Ok(Feed { filter: filter.to_owned(), messages })
    }

    /// Ends a subscription. What is in the feed, and `rest`, which was taken from it and not handled, wait for another
    /// subscription or for another connection.
    pub(crate) async fn detach(&self, mut feed: Feed, mut rest: Vec<Incoming>, unsubscribe: bool) {
        feed.close();
        while let Ok(message) = feed.messages.try_recv() {
            rest.push(message);
        }
        // If the session has ended there is nobody to tell.
        let _ = self.commands.send(Command::Detach { filter: feed.filter, rest, unsubscribe }).await;
    }

    /// Tells the server that a message is handled. Nothing happens if the connection over which it came is gone: then
    /// the server sends it again.
    pub(crate) async fn acknowledge(&self, receipt: Receipt) {
        let _ = self.receipts.send(receipt).await;
    }

    /// # Errors
    /// `Unavailable` if there is no connection.
    pub(crate) fn ping(&self) -> Result<()> {
        if *self.connected.borrow() { Ok(()) } else { Err(self.lost()) }
    }

    /// Ends the session in good order.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        let mut task = mem::take(&mut *self.task.lock().unwrap_or_else(PoisonError::into_inner));
        while task.join_next().await.is_some() {}
    }

    async fn ask<T>(&self, command: Command, outcome: oneshot::Receiver<T>) -> Result<T> {
        let answer = async {
            self.commands.send(command).await.map_err(|_| self.closed())?;
            outcome.await.map_err(|_| self.closed())
        };
        time::timeout(LIMIT, answer).await.unwrap_or_else(|_| Err(self.lost()))
    }

    fn lost(&self) -> ComponentError {
        ComponentError::new(ErrorKind::Unavailable, format!("mqtt server at {} does not answer", self.server))
    }

    fn closed(&self) -> ComponentError {
        ComponentError::new(ErrorKind::Unavailable, "component is closed")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Feed {
    /// The next message; `None` if the session has ended.
    pub(crate) async fn next(&mut self) -> Option<Incoming> {
        self.messages.recv().await
    }

    /// Lets nothing more in: what comes waits in the session.
    pub(crate) fn close(&mut self) {
        self.messages.close();
    }
}
