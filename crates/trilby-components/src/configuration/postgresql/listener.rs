//! A connection of its own that listens to a channel: those of the pool serve operations, and no one reads them between
//! two of these.

use std::{collections::VecDeque, pin::pin, time::Duration};

use futures_util::StreamExt as _;
use tokio::{select, time};
use tokio_postgres::{AsyncMessage, Client, Error};
use trilby_component::{ComponentError, ErrorKind, Result};

use crate::state::postgresql::database::{Database, Messages};

/// How often a silent connection is asked whether it still lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Dropping it closes the connection.
pub(super) struct Listener {
    client: Client,
    /// Read while statements run as well: nothing else moves the connection on.
    messages: Messages,
    /// Payloads that arrived while a statement ran.
    heard: VecDeque<String>,
}

impl Listener {
    /// Connects and listens: notifications from now on are heard. `channel` is a name without quotes.
    pub(super) async fn open(database: &Database, channel: &str) -> Result<Self> {
        let open = async {
            let (client, messages) = database.connect().await?;
            let mut listener = Self { client, messages, heard: VecDeque::new() };
            listener.run(&format!("LISTEN \"{channel}\"")).await.map_err(|error| explain(database, error))?;
            Ok(listener)
        };
        database.within(open).await
    }

    /// The payload of the next notification.
    ///
    /// # Errors
    /// If the connection is lost; it is of no use after that.
    pub(super) async fn next(&mut self, database: &Database) -> Result<String> {
        loop {
            if let Some(payload) = self.heard.pop_front() {
                return Ok(payload);
            }
            match time::timeout(HEARTBEAT, next_payload(&mut self.messages)).await {
                Ok(payload) => return payload.map_err(|error| explain(database, error)),
                Err(_) => {
                    let beat = self.run("SELECT 1");
                    database.within(async { beat.await.map_err(|error| explain(database, error)) }).await?;
                }
            }
        }
    }

    /// Runs a statement.
    async fn run(&mut self, sql: &str) -> Result<(), Option<Error>> {
        let mut running = pin!(self.client.batch_execute(sql));
        loop {
            select! {
                done = &mut running => return done.map_err(Some),
                payload = next_payload(&mut self.messages) => self.heard.push_back(payload?),
            }
        }
    }
}

/// What was notified next; an error, with its reason if it has one, once the connection has ended.
async fn next_payload(messages: &mut Messages) -> Result<String, Option<Error>> {
    loop {
        match messages.next().await {
            Some(Ok(AsyncMessage::Notification(notification))) => return Ok(notification.payload().to_owned()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Some(error)),
            None => return Err(None),
        }
    }
}

fn explain(database: &Database, error: Option<Error>) -> ComponentError {
    match error {
        Some(error) => database.explain(&error),
        None => ComponentError::new(ErrorKind::Unavailable, "the server has closed the connection"),
    }
}
