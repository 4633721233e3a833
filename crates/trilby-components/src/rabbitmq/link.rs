//! A connection that is made when it is first needed, and again after it was lost.

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use lapin::Connection;
use tokio::{sync::OnceCell, time};
use trilby_component::Result;

use super::{Endpoint, explain};

/// How often to see whether the connection is still there, while something is asked of it.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The connection of a component. All its channels share it.
pub(crate) struct Link {
    endpoint: Endpoint,
    connection: Renewable<Connection>,
}

impl Link {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connection: Renewable::default() }
    }

    /// A new channel, on a new connection if there is none at work.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses it.
    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        let connection =
            self.connection.get(|connection| connection.status().connected(), || self.endpoint.connect()).await?;
        let inner = unless_lost(&connection, connection.create_channel()).await?;
        Ok(Channel { inner, connection })
    }

    /// Whether the server answers: a round trip of its own, since a lost connection may not have been noticed yet.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn ping(&self) -> Result<()> {
        let ping = async { self.channel().await?.close().await };
        ping.await.map_err(|error| explain(&error))
    }

    /// Ends the connection and with it every channel.
    pub(crate) async fn close(&self) {
        if let Some(connection) = self.connection.take() {
            // A connection that is lost already is as good as one that is closed.
            let _ = unless_lost(&connection, connection.close(200, "".into())).await;
        }
    }
}

/// A channel, and the connection that it needs.
pub(super) struct Channel {
    pub(super) inner: lapin::Channel,
    connection: Arc<Connection>,
}

impl Channel {
    pub(super) fn works(&self) -> bool {
        self.inner.status().connected() && self.connection.status().connected()
    }

    /// Waits for the answer to a request that was made on this channel.
    ///
    /// # Errors
    /// Those of the request; an aborted connection if that is lost meanwhile.
    pub(super) async fn answer<T>(&self, request: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
        unless_lost(&self.connection, request).await
    }

    /// # Errors
    /// The connection is lost.
    pub(super) async fn close(&self) -> lapin::Result<()> {
        self.answer(self.inner.close(200, "".into())).await
    }
}

/// Waits for the answer to a request. The driver forgets a request that is made just when the connection is lost, and
/// never answers it.
async fn unless_lost<T>(connection: &Connection, request: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    tokio::pin!(request);
    loop {
        match time::timeout(CHECK_INTERVAL, &mut request).await {
            Ok(answer) => return answer,
            Err(_) if connection.status().connected() => {}
            Err(_) => return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
        }
    }
}

/// A value that can break: then the next who asks makes a new one, and all who ask meanwhile share that.
pub(super) struct Renewable<T> {
    slot: RwLock<Arc<OnceCell<Arc<T>>>>,
}

impl<T> Default for Renewable<T> {
    fn default() -> Self {
        Self { slot: RwLock::default() }
    }
}

impl<T> Renewable<T> {
    /// # Errors
    /// Those of `make`; the next call tries again.
    pub(super) async fn get<F: Future<Output = lapin::Result<T>>>(
        &self,
        works: impl Fn(&T) -> bool,
        make: impl Fn() -> F,
    ) -> lapin::Result<Arc<T>> {
        let slot = self.slot(works);
        slot.get_or_try_init(|| async { make().await.map(Arc::new) }).await.cloned()
    }

    /// The value, if there is one; the next who asks makes a new one.
    pub(super) fn take(&self) -> Option<Arc<T>> {
        let slot = std::mem::take(&mut *self.slot.write().unwrap_or_else(PoisonError::into_inner));
        slot.get().cloned()
    }

    fn slot(&self, works: impl Fn(&T) -> bool) -> Arc<OnceCell<Arc<T>>> {
        let is_broken = |slot: &OnceCell<Arc<T>>| slot.get().is_some_and(|value| !works(value));
        let slot = Arc::clone(&self.slot.read().unwrap_or_else(PoisonError::into_inner));
        if !is_broken(&slot) {
            return slot;
        }
        let mut current = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        // Another caller may have seen to it.
        if Arc::ptr_eq(&current, &slot) {
            *current = Arc::default();
        }
        Arc::clone(&current)
    }
}
