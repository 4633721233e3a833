//! Sends messages over one channel, which is opened anew when it was closed.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    BasicProperties, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use tokio::time;
use trilby_component::{ComponentError, ErrorKind, Result};

use super::{
    explain,
    link::{self, Link, Renewable},
};

/// How often Dapr tries to publish a message.
const ATTEMPTS: u32 = 3;

/// The publishing side of a component.
pub(crate) struct Publisher {
    link: Arc<Link>,
    /// Whether to wait until the server has taken charge of a message.
    confirms: bool,
    /// Pause before an attempt after the first two.
    pause: Duration,
    channel: Renewable<Channel>,
}

/// A channel, and what was declared on it.
pub(crate) struct Channel {
    open: link::Channel,
    declared: Mutex<HashSet<String>>,
}

impl Publisher {
    pub(crate) fn new(link: Arc<Link>, confirms: bool, pause: Duration) -> Self {
        Self { link, confirms, pause, channel: Renewable::default() }
    }

    /// Does `work` on the channel; if the server cannot be reached, again on a new one, three times in all.
    ///
    /// # Errors
    /// As of the last attempt.
    pub(crate) async fn attempt<F>(&self, work: impl Fn(Arc<Channel>) -> F) -> Result<()>
    where
        F: Future<Output = lapin::Result<Confirmation>>,
    {
        let mut attempt = 1;
        loop {
            let error = match self.attempt_once(&work).await {
                Ok(Confirmation::Nack(_)) => {
                    ComponentError::new(ErrorKind::Unavailable, "did not receive confirmation of publishing")
                }
                Ok(_) => return Ok(()),
                Err(error) => explain(&error),
            };
            // What the server refuses it will refuse again.
            if attempt == ATTEMPTS || error.kind() != ErrorKind::Unavailable {
                return Err(error);
            }
            // A connection that was lost while nobody used it is found out by the first attempt: no need to wait.
            if attempt > 1 {
                time::sleep(self.pause).await;
            }
            attempt += 1;
        }
    }

    /// Opens the channel ahead of the first message.
    ///
    /// # Errors
    /// `Unavailable` if the server cannot be reached, `Denied` if it refuses the login.
    pub(crate) async fn open(&self) -> Result<Arc<Channel>> {
        self.channel().await.map_err(|error| explain(&error))
    }

    async fn attempt_once<F>(&self, work: impl Fn(Arc<Channel>) -> F) -> lapin::Result<Confirmation>
    where
        F: Future<Output = lapin::Result<Confirmation>>,
    {
        work(self.channel().await?).await
    }

    async fn channel(&self) -> lapin::Result<Arc<Channel>> {
        let open = async || {
            let open = self.link.channel().await?;
            if self.confirms {
                open.answer(open.inner.confirm_select(ConfirmSelectOptions::default())).await?;
            }
            Ok(Channel { open, declared: Mutex::default() })
        };
        self.channel.get(|channel| channel.open.works(), open).await
    }
}

impl Channel {
    /// Does `declare` unless it was done for this name before, on this channel.
    ///
    /// # Errors
    /// Those of `declare`.
    pub(crate) async fn once(
        &self,
        name: &str,
        declare: impl AsyncFnOnce(&lapin::Channel) -> lapin::Result<()>,
    ) -> lapin::Result<()> {
        if self.declared.lock().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return Ok(());
        }
        self.open.answer(declare(&self.open.inner)).await?;
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(())
    }

    /// Sends one message, and waits for the server where that was asked for.
    ///
    /// # Errors
    /// The connection is lost, or the server closed the channel.
    pub(crate) async fn publish(
        &self,
        exchange: ShortString,
        routing_key: ShortString,
        data: &[u8],
        properties: BasicProperties,
    ) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions::default();
        let publish =
            async { self.open.inner.basic_publish(exchange, routing_key, options, data, properties).await?.await };
        self.open.answer(publish).await
    }
}
