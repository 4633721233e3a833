//! The statements on the state table: what a read returns and what a write does.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, TransactionBehavior, params};
use trilby_component::{
    ComponentError, ErrorKind, Result,
    json::Style,
    state::{DeleteRequest, Item, Operation, SetRequest, TTL_EXPIRE_TIME, Value},
};
use uuid::Uuid;

use super::{
    super::{condition::Condition, ttl},
    failure,
    schema::Identifier,
};

/// A write, ready for the thread that applies it.
pub(super) struct Change {
    key: String,
    condition: Condition,
    /// What the key holds from now on; `None` deletes it.
    columns: Option<Columns>,
}

struct Columns {
    /// JSON, or base64 of anything else.
    value: String,
    is_binary: bool,
    etag: String,
    ttl_seconds: Option<u32>,
}

impl Change {
    pub(super) fn of(operation: &Operation) -> Result<Self> {
        match operation {
            Operation::Upsert(request) => Self::upsert(request),
            Operation::Delete(request) => Self::delete(request),
        }
    }

    pub(super) fn upsert(request: &SetRequest) -> Result<Self> {
        if request.key.is_empty() {
            return Err(ComponentError::request("missing key in set option"));
        }
        let ttl_seconds = ttl::parse(&request.metadata)?;
        let encoded = request.value.encode(Style::Standard)?;
        let (value, is_binary) = match &request.value {
            Value::Json(_) => (String::from_utf8_lossy(&encoded).into_owned(), false),
            Value::Bytes(bytes) => (BASE64_STANDARD.encode(bytes), true),
        };
        let columns = Columns { value, is_binary, etag: Uuid::new_v4().to_string(), ttl_seconds };
        Ok(Self { key: request.key.clone(), condition: Condition::of_set(request), columns: Some(columns) })
    }

    pub(super) fn delete(request: &DeleteRequest) -> Result<Self> {
        if request.key.is_empty() {
            return Err(ComponentError::request("missing key in delete operation"));
        }
        Ok(Self { key: request.key.clone(), condition: Condition::of_delete(request), columns: None })
    }
}

/// The statements, with the table names in them. Each connection keeps them prepared.
pub(super) struct Table {
    get: String,
    put: String,
    put_absent: String,
    update: String,
    delete: String,
    delete_etag: String,
    begin_sweep: String,
    sweep: String,
}

impl Table {
    pub(super) fn new(state: &Identifier, metadata: &Identifier) -> Self {
        let live = "(expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)";

        let columns = "(key, value, is_binary, etag, expiration_time, update_time)";
        // A missing TTL is NULL, and the date of a NULL modifier is NULL: never.
        let row = "?1, ?2, ?3, ?4, DATETIME(CURRENT_TIMESTAMP, ?5), CURRENT_TIMESTAMP";
        Self {
            get: format!(
                "SELECT value, is_binary, etag, strftime('%Y-%m-%dT%H:%M:%SZ', expiration_time)
                 FROM {state} WHERE key = ?1 AND {live}"
            ),
            put: format!("INSERT OR REPLACE INTO {state} {columns} VALUES ({row})"),
            // An expired row that nobody has swept yet does not count, and is replaced.
            put_absent: format!(
                "INSERT OR REPLACE INTO {state} {columns} SELECT {row}
                 WHERE NOT EXISTS (SELECT 1 FROM {state} WHERE key = ?1 AND {live})"
            ),
            update: format!(
                "UPDATE {state} SET value = ?2, is_binary = ?3, etag = ?4,
                     expiration_time = DATETIME(CURRENT_TIMESTAMP, ?5), update_time = CURRENT_TIMESTAMP
                 WHERE key = ?1 AND etag = ?6 AND {live}"
            ),
            delete: format!("DELETE FROM {state} WHERE key = ?1"),
            delete_etag: format!("DELETE FROM {state} WHERE key = ?1 AND etag = ?2"),
            begin_sweep: format!(
                "INSERT INTO {metadata} (key, value) VALUES ('last-cleanup', CURRENT_TIMESTAMP)
                 ON CONFLICT (key) DO UPDATE SET value = CURRENT_TIMESTAMP
                     WHERE (unixepoch(CURRENT_TIMESTAMP) - unixepoch(value)) * 1000 > ?1"
            ),
            sweep: format!(
                "DELETE FROM {state} WHERE expiration_time IS NOT NULL AND expiration_time < CURRENT_TIMESTAMP"
            ),
        }
    }

    pub(super) fn get(&self, connection: &Connection, key: &str) -> Result<Option<Item>> {
        let mut statement = connection.prepare_cached(&self.get).map_err(failure)?;
        let found = statement.query_row([key], |row| Ok(read_item(row))).optional().map_err(failure)?;
        found.transpose()
    }

    /// Reads the items of `keys` as they are at one point in time, in their order.
    pub(super) fn get_many(&self, connection: &Connection, keys: &[String]) -> Result<Vec<Result<Option<Item>>>> {
        // A statement for each key and not one `IN` for all: SQLite runs in this process, so there is no trip to save,
        // and the statement is prepared already.
        let snapshot = Transaction::new_unchecked(connection, TransactionBehavior::Deferred).map_err(failure)?;
        let items = keys.iter().map(|key| self.get(&snapshot, key)).collect();
        snapshot.commit().map_err(failure)?;
        Ok(items)
    }

    /// Applies all changes in order or none, within the transaction that is under way.
    pub(super) fn apply(&self, connection: &Connection, changes: &[Change]) -> Result<()> {
        // One statement needs no way back: it happens or not.
        if let [change] = changes {
            return self.apply_one(connection, change);
        }
        connection.execute_batch("SAVEPOINT changes").map_err(failure)?;
        let result = changes.iter().try_for_each(|change| self.apply_one(connection, change));
        let end = if result.is_ok() { "RELEASE changes" } else { "ROLLBACK TO changes; RELEASE changes" };
        // If SQLite rolled everything back by itself there is no savepoint left; the reason is in the result.
        if connection.is_autocommit() {
            return result;
        }
        connection.execute_batch(end).map_err(failure)?;
        result
    }

    fn apply_one(&self, connection: &Connection, Change { key, condition, columns }: &Change) -> Result<()> {
        let run = |sql: &str, params: &[&dyn ToSql]| -> Result<usize> {
            connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).map_err(failure)
        };
        let changed = match (columns, condition) {
            (None, Condition::Etag(etag)) => run(&self.delete_etag, params![key, etag])?,
            // To delete what is not there succeeds, and first-write asks nothing of a delete in this store.
            (None, _) => return run(&self.delete, params![key]).map(drop),
            (Some(Columns { value, is_binary, etag, ttl_seconds }), condition) => {
                let life = ttl_seconds.map(|seconds| format!("+{seconds} seconds"));
                match condition {
                    Condition::Any => run(&self.put, params![key, value, is_binary, etag, life])?,
                    Condition::Absent => run(&self.put_absent, params![key, value, is_binary, etag, life])?,
                    Condition::Etag(old) => run(&self.update, params![key, value, is_binary, etag, life, old])?,
                }
            }
        };
        // Dapr gives no reason here. See http/state-sq.jsonl.
        if changed == 0 { Err(ComponentError::etag_mismatch("")) } else { Ok(()) }
    }

    /// Deletes expired rows, unless a process that shares the file did so less than `interval` ago.
    pub(super) fn sweep(&self, connection: &Connection, interval: Duration) -> rusqlite::Result<usize> {
        // The margin is Dapr's: without it a timer that is early by a moment would skip every other turn.
        let at_least_millis = interval.saturating_sub(Duration::from_millis(100)).as_millis();
        let at_least_millis = i64::try_from(at_least_millis).unwrap_or(i64::MAX);
        match connection.execute(&self.begin_sweep, [at_least_millis])? {
            0 => Ok(0),
            _ => connection.execute(&self.sweep, []),
        }
    }
}

/// Reads the columns of `Table::get`.
fn read_item(row: &Row<'_>) -> Result<Item> {
    let stored = row.get_ref(0).map_err(failure)?;
    let stored = stored.as_bytes().map_err(|error| failure(error.into()))?;
    let is_binary: bool = row.get(1).map_err(failure)?;
    let value = if is_binary {
        BASE64_STANDARD.decode(stored).map_err(|error| {
            ComponentError::new(ErrorKind::Internal, format!("failed to decode binary data: {error}"))
        })?
    } else {
        stored.to_vec()
    };
    let expiry: Option<String> = row.get(3).map_err(failure)?;
    Ok(Item {
        value: Bytes::from(value),
        etag: Some(row.get(2).map_err(failure)?),
        metadata: expiry.into_iter().map(|at| (TTL_EXPIRE_TIME.to_owned(), at)).collect(),
    })
}
