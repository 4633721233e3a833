//! A component's line to Redis: connects when needed, repeats what a lost connection cost, and says what went wrong.

use std::{
    future::Future,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use redis::{Cmd, ErrorKind as Failure, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, aio::PubSub};
use tokio::{sync::OnceCell, time};
use trilby_component::{ComponentError, ErrorKind, Result};

use super::{
    config::Config,
    endpoint::{Connection, Endpoint},
};

/// Something to ask Redis.
pub(crate) trait Request: Sync {
    type Reply;

    /// Whether doing it twice leaves the same as doing it once.
    fn is_repeatable(&self) -> bool;

    fn send(&self, connection: &mut Connection) -> impl Future<Output = RedisResult<Self::Reply>> + Send;
}

/// Something that may be done twice, such as a command that only reads.
pub(crate) struct Repeatable<T>(pub(crate) T);

impl Request for Cmd {
    type Reply = Value;

    fn is_repeatable(&self) -> bool {
        false
    }

    async fn send(&self, connection: &mut Connection) -> RedisResult<Value> {
        self.query_async(connection).await
    }
}

impl Request for Repeatable<Cmd> {
    type Reply = Value;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn send(&self, connection: &mut Connection) -> RedisResult<Value> {
        self.0.send(connection).await
    }
}

/// Commands sent together; they must ignore errors, as an error in one is its own reply.
impl Request for Pipeline {
    type Reply = Vec<RedisResult<Value>>;

    fn is_repeatable(&self) -> bool {
        false
    }

    async fn send(&self, connection: &mut Connection) -> RedisResult<Self::Reply> {
        self.query_async(connection).await
    }
}

impl Request for Repeatable<Pipeline> {
    type Reply = Vec<RedisResult<Value>>;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn send(&self, connection: &mut Connection) -> RedisResult<Self::Reply> {
        let replies = self.0.send(connection).await?;
        let unready = replies.iter().filter_map(|reply| reply.as_ref().err()).find(|error| had_no_effect(error));
        match unready {
            Some(error) => Err(error.clone()),
            None => Ok(replies),
        }
    }
}

/// One shared connection, replaced when it is lost.
pub(crate) struct Link {
    endpoint: Endpoint,
    /// Whoever comes first connects and the others wait for that. A lost connection is replaced by an empty cell.
    slot: RwLock<Arc<OnceCell<Connection>>>,
    retries: u32,
    min_pause: Duration,
    max_pause: Duration,
}

impl Link {
    /// Does not connect yet.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let endpoint = Endpoint::new(config, config.addresses()?)
            .map_err(|error| ComponentError::metadata(format!("redis cannot be used as configured: {error}")))?;
        Ok(Self {
            endpoint,
            slot: RwLock::default(),
            retries: config.retries(),
            min_pause: config.min_pause(),
            max_pause: config.max_pause(),
        })
    }

    /// Sends `request` and waits up to `limit` for the reply. Repeats it if it certainly had no effect, or if it may.
    pub(crate) async fn call<R: Request>(&self, request: &R, limit: Option<Duration>) -> Result<R::Reply> {
        let mut attempt = 0;
        loop {
            let slot = self.slot();
            let error = match within(limit, self.attempt(&slot, request)).await {
                Some(Ok(reply)) => return Ok(reply),
                Some(Err(error)) => error,
                None => {
                    // The server may be gone without a word; the next request finds out on a fresh connection. In a
                    // cluster it is one of many, and the driver sees to each.
                    if !self.is_cluster() {
                        self.forget(&slot);
                    }
                    return Err(self.timed_out(limit.unwrap_or_default()));
                }
            };
            let can_help = had_no_effect(&error) || (request.is_repeatable() && error.is_connection_dropped());
            if attempt == self.retries || !can_help {
                return Err(self.explain(&error));
            }
            time::sleep(self.pause(attempt)).await;
            attempt += 1;
        }
    }

    /// A connection of its own that hears what is published; not for clusters.
    pub(crate) async fn listen(&self) -> Result<PubSub> {
        self.endpoint.listen().await.map_err(|error| self.explain(&error))
    }

    /// Whether the servers are a cluster, where one request cannot reach every key.
    pub(crate) fn is_cluster(&self) -> bool {
        self.endpoint.is_cluster()
    }

    /// Lets go of the connection. A later request would connect again.
    pub(crate) fn close(&self) {
        self.forget(&self.slot());
    }

    /// What `error` means for the caller.
    pub(crate) fn explain(&self, error: &RedisError) -> ComponentError {
        let name = self.endpoint.name();
        let code = error.code().unwrap_or_default();
        let (kind, message) = match error.kind() {
            Failure::AuthenticationFailed => (ErrorKind::Denied, format!("redis at {name} refused the login: {error}")),
            _ if matches!(code, "NOAUTH" | "WRONGPASS" | "NOPERM") => {
                (ErrorKind::Denied, format!("redis at {name} refused the request: {}", words(error)))
            }
            Failure::Server(ServerErrorKind::CrossSlot) => (
                ErrorKind::InvalidRequest,
                "the keys of a transaction are in different slots of the redis cluster; give them one {hash tag}"
                    .to_owned(),
            ),
            Failure::Io | Failure::ClusterConnectionNotFound | Failure::MasterNameNotFoundBySentinel => {
                (ErrorKind::Unavailable, format!("error connecting to redis at {name}: {error}"))
            }
            _ if had_no_effect(error) => {
                (ErrorKind::Unavailable, format!("redis at {name} is not ready: {}", words(error)))
            }
            _ => (ErrorKind::Internal, words(error)),
        };
        ComponentError::new(kind, message).with_source(error.clone())
    }

    /// What an error of the first request means: a server that answers, and refuses even that, was asked for a database
    /// or an arrangement that it does not have.
    pub(crate) fn refused_to_open(&self, error: ComponentError) -> ComponentError {
        if error.kind() != ErrorKind::Internal {
            return error;
        }
        let message = format!("redis at {} cannot be used as configured: {error}", self.endpoint.name());
        ComponentError::metadata(message).with_source(error)
    }

    async fn attempt<R: Request>(&self, slot: &Arc<OnceCell<Connection>>, request: &R) -> RedisResult<R::Reply> {
        let reply = async {
            let mut connection = slot.get_or_try_init(|| self.endpoint.connect()).await?.clone();
            request.send(&mut connection).await
        };
        reply.await.inspect_err(|error| {
            // A server that lost its role refuses writes: the sentinels know the new one.
            if error.is_unrecoverable_error() || error.kind() == Failure::Server(ServerErrorKind::ReadOnly) {
                self.forget(slot);
            }
        })
    }

    /// Where the connection is, or will be.
    fn slot(&self) -> Arc<OnceCell<Connection>> {
        let slot = self.current();
        if slot.get().is_some_and(Connection::is_lost) {
            self.forget(&slot);
            return self.current();
        }
        slot
    }

    fn current(&self) -> Arc<OnceCell<Connection>> {
        Arc::clone(&self.slot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the next request connect again, unless another one that failed has already seen to it.
    fn forget(&self, failed: &Arc<OnceCell<Connection>>) {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&slot, failed) {
            *slot = Arc::default();
        }
    }

    fn pause(&self, attempt: u32) -> Duration {
        self.min_pause.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.max_pause)
    }

    fn timed_out(&self, limit: Duration) -> ComponentError {
        let message = format!("redis at {} did not answer within {limit:?}", self.endpoint.name());
        ComponentError::new(ErrorKind::Timeout, message)
    }
}

/// Waits for `future`, `None` if it takes longer than `limit`.
async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    match limit {
        None => Some(future.await),
        Some(limit) => time::timeout(limit, future).await.ok(),
    }
}

/// Whether the request never reached a server that was ready for it.
fn had_no_effect(error: &RedisError) -> bool {
    error.is_connection_refusal()
        // Answers have no time limit of their own here, so it was the connecting that took too long.
        || error.is_timeout()
        || matches!(
            error.kind(),
            Failure::ClusterConnectionNotFound
                | Failure::MasterNameNotFoundBySentinel
                | Failure::Server(
                    ServerErrorKind::BusyLoading
                        | ServerErrorKind::ClusterDown
                        | ServerErrorKind::MasterDown
                        | ServerErrorKind::ReadOnly
                        | ServerErrorKind::TryAgain
                )
        )
}

/// The server's error in its own words, as Dapr passes it on.
fn words(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}
