//! Deletes expired items from time to time. Of all processes that share a table, whichever comes first does it.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_postgres::types::Type;
use trilby_component::Result;

use super::database::Database;

/// By how much a round may come early, so that two processes with one interval do not skip every other round.
const SLACK: Duration = Duration::from_millis(100);

/// The statements of one version of the store.
pub(super) struct Statements {
    /// Notes the time, unless another process did less than `$1` milliseconds ago.
    pub(super) claim: String,
    pub(super) delete: String,
}

impl Statements {
    /// `key` is the row of the metadata table that holds the time of the last round.
    pub(super) fn new(metadata_table: &str, key: &str, delete: String) -> Self {
        let claim = format!(
            "INSERT INTO {metadata_table} AS noted (key, value) VALUES ('{key}', now()::text)
             ON CONFLICT (key) DO UPDATE SET value = now()::text
             WHERE (EXTRACT('epoch' FROM now() - noted.value::timestamp with time zone) * 1000)::bigint > $1",
            key = key.replace('\'', "''"),
        );
        Self { claim, delete }
    }
}

/// The task that cleans up. It ends with [`stop`](Self::stop), or with the store.
pub(super) struct Cleanup(Mutex<JoinSet<()>>);

impl Cleanup {
    /// Starts the task; without an interval there is none.
    pub(super) fn start(database: &Arc<Database>, statements: Statements, interval: Option<Duration>) -> Self {
        let mut tasks = JoinSet::new();
        if let Some(interval) = interval {
            tasks.spawn(repeat(Arc::clone(database), statements, interval));
        }
        Self(Mutex::new(tasks))
    }

    /// Ends the task and waits for it.
    pub(super) async fn stop(&self) {
        let mut tasks = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

async fn repeat(database: Arc<Database>, statements: Statements, interval: Duration) {
    let mut rounds = time::interval_at(Instant::now() + interval, interval);
    rounds.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        // No time limit: deleting much at once takes long and is nobody's request.
        match clean_up(&database, &statements, interval).await {
            Ok(Some(rows)) => tracing::debug!(rows, "expired items deleted"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "expired items could not be deleted; trying again in the next round"),
        }
    }
}

/// Returns how many items were deleted, `None` if another process was faster.
async fn clean_up(database: &Database, statements: &Statements, interval: Duration) -> Result<Option<u64>> {
    let pause = i64::try_from(interval.saturating_sub(SLACK).as_millis()).unwrap_or(i64::MAX);
    let client = database.lease().await?;
    let deleted = async {
        let claimed = database.execute(&client, &statements.claim, &[(&pause, Type::INT8)]).await?;
        if claimed == 0 {
            return Ok(None);
        }
        database.execute(&client, &statements.delete, &[]).await.map(Some)
    }
    .await;
    client.give_back();
    deleted
}
