//! `state.sqlite`: items in a SQLite file, in the layout of Dapr's own store, so that both may use one file.
//!
//! JSON is stored as text, anything else as base64 beside an `is_binary` flag; etags are UUIDs; expired rows are never
//! read and are deleted every `cleanupInterval`. An acknowledged write survives the end of the process, and, with
//! SQLite's default `synchronous` setting, that of the machine's power. Not for network file systems.

mod executor;
mod location;
mod queue;
mod schema;
mod table;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode};
use serde::Deserialize;
use trilby_component::{
    ComponentError, ErrorKind, Metadata, OpenRequest, Result,
    properties::duration,
    state::{DeleteRequest, Feature, GetRequest, Item, Operation, SetRequest, StateStore},
};

use self::{
    executor::{Chore, Executor},
    location::Location,
    schema::{Identifier, migrate},
    table::{Change, Table},
};

/// What `spec.metadata` may hold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// A path, relative to the working directory, or a `file:` URI, or `:memory:`. The file is created if it does not
    /// exist, its folder is not. `_pragma=NAME(VALUE)` parameters apply to each connection. Required. Dapr's
    /// `connectionString`, or `url`.
    #[serde(alias = "url")]
    pub connection_string: String,
    /// Longest time that one call may take, waiting included; at least one second. Default 20 s. Dapr's `timeout`, or
    /// `timeoutInSeconds`.
    #[serde(with = "duration", alias = "timeoutInSeconds")]
    pub timeout: Duration,
    /// How long to wait for another process that has the file locked; zero does not wait. Default 2 s. Dapr's
    /// `busyTimeout`.
    #[serde(with = "duration")]
    pub busy_timeout: Duration,
    /// Use a rollback journal in place of a write-ahead log, as network file systems need. Readers and writers then
    /// wait for each other. Default false. Dapr's `disableWAL`.
    #[serde(rename = "disableWAL")]
    pub disable_wal: bool,
    /// The table with the items, created if missing: letters, digits, underscores. Default `state`. Dapr's `tableName`.
    pub table_name: String,
    /// The table with the version of the schema and the time of the last clean-up. Default `metadata`. Dapr's
    /// `metadataTableName`.
    pub metadata_table_name: String,
    /// How often expired rows are deleted; zero never does. Default zero. Dapr's `cleanupInterval`, or
    /// `cleanupIntervalInSeconds`.
    #[serde(with = "duration", alias = "cleanupIntervalInSeconds")]
    pub cleanup_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connection_string: String::new(),
            timeout: Duration::from_secs(20),
            busy_timeout: Duration::from_secs(2),
            disable_wal: false,
            table_name: "state".to_owned(),
            metadata_table_name: "metadata".to_owned(),
            cleanup_interval: Duration::ZERO,
        }
    }
}

/// Opens the file and creates what is missing in it.
///
/// # Errors
/// `InvalidMetadata` if the metadata cannot be read into [`Config`] or asks for what is not allowed; `Unavailable` if
/// the file cannot be opened or is locked for longer than `busyTimeout`; `Denied` if it cannot be written.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn StateStore>> {
    let config: Config = request.properties.parse()?;
    let opened = tokio::task::spawn_blocking(move || Sqlite::open(config)).await;
    let store = opened.map_err(|error| ComponentError::new(ErrorKind::Internal, error.to_string()))??;
    Ok(Arc::new(store))
}

struct Sqlite {
    table: Arc<Table>,
    executor: Executor,
}

#[async_trait]
impl StateStore for Sqlite {
    fn features(&self) -> &[Feature] {
        &[Feature::Etag, Feature::Transactional, Feature::Ttl]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        if request.key.is_empty() {
            return Err(ComponentError::request("missing key in get operation"));
        }
        let (table, key) = (Arc::clone(&self.table), request.key.clone());
        self.executor.read(move |connection| table.get(connection, &key)).await
    }

    async fn set(&self, request: &SetRequest) -> Result<()> {
        self.apply(vec![Change::upsert(request)?]).await
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        self.apply(vec![Change::delete(request)?]).await
    }

    async fn bulk_get(&self, requests: &[GetRequest], _parallelism: usize) -> Result<Vec<Result<Option<Item>>>> {
        let table = Arc::clone(&self.table);
        let keys: Vec<_> = requests.iter().map(|request| request.key.clone()).collect();
        self.executor.read(move |connection| table.get_many(connection, &keys)).await
    }

    async fn transact(&self, operations: &[Operation], _metadata: &Metadata) -> Result<()> {
        let changes = operations.iter().map(Change::of).collect::<Result<Vec<_>>>()?;
        if changes.is_empty() { Ok(()) } else { self.apply(changes).await }
    }

    async fn ping(&self) -> Result<()> {
        self.executor.read(|connection| connection.execute_batch("SELECT 1").map_err(failure)).await
    }

    async fn close(&self) {
        self.executor.close().await;
    }
}

impl Sqlite {
    /// Blocks while it waits for the disk.
    fn open(config: Config) -> Result<Self> {
        if config.connection_string.is_empty() {
            let message = "missing connection string; set connectionString to a path, a file: URI or :memory:";
            return Err(ComponentError::metadata(message));
        }
        if config.timeout < Duration::from_secs(1) {
            return Err(ComponentError::metadata("invalid value for 'timeout': must be greater than 1s"));
        }
        let state = Identifier::parse("tableName", config.table_name)?;
        let metadata = Identifier::parse("metadataTableName", config.metadata_table_name)?;
        let location = Location::parse(&config.connection_string)?;

        let named = |error: ComponentError| {
            ComponentError::new(error.kind(), format!("SQLite database {}: {error}", config.connection_string))
        };
        let writer = location.open_writer(config.busy_timeout, config.disable_wal).map_err(named)?;
        migrate(&writer, &state, &metadata).map_err(named)?;
        let readers = location.open_readers(config.busy_timeout).map_err(named)?;

        let table = Arc::new(Table::new(&state, &metadata));
        let chore = sweep_every(config.cleanup_interval, Arc::clone(&table));
        let executor = Executor::start(writer, readers, chore, config.timeout)?;
        Ok(Self { table, executor })
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<()> {
        let table = Arc::clone(&self.table);
        self.executor.write(move |connection| table.apply(connection, &changes)).await
    }
}

fn sweep_every(interval: Duration, table: Arc<Table>) -> Option<Chore> {
    let run = move |connection: &Connection| match table.sweep(connection, interval) {
        Ok(rows) => tracing::debug!(rows, "expired rows deleted"),
        Err(error) => tracing::warn!(%error, "expired rows were not deleted; the next turn tries again"),
    };
    (!interval.is_zero()).then(|| Chore { every: interval, run: Box::new(run) })
}

/// SQLite's error in our terms.
fn failure(error: rusqlite::Error) -> ComponentError {
    let (kind, advice) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Unavailable, "; another connection held it for longer than busyTimeout")
        }
        Some(ErrorCode::CannotOpen) => (ErrorKind::Unavailable, "; does its folder exist, and may it be written?"),
        Some(ErrorCode::DiskFull) => (ErrorKind::Unavailable, ""),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => (ErrorKind::Denied, ""),
        Some(ErrorCode::TooBig) => (ErrorKind::InvalidRequest, ""),
        Some(ErrorCode::NotADatabase) => (ErrorKind::InvalidMetadata, "; correct connectionString"),
        _ => (ErrorKind::Internal, ""),
    };
    ComponentError::new(kind, format!("{error}{advice}")).with_source(error)
}
