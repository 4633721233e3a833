//! Where the database is: Dapr's `connectionString`, which is a path or a `file:` URI whose query SQLite and Dapr's
//! driver share.

use std::{
    thread,
    time::{Duration, Instant},
};

use percent_encoding::percent_decode_str;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use trilby_component::{ComponentError, Result};

use super::failure;

/// More readers than this gain nothing: a read takes microseconds.
const MOST_READERS: usize = 4;

/// How long to wait before a lock is tried again where SQLite does not wait by itself.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Settings that have a metadata property, and so no place among the `_pragma`s.
const FORBIDDEN_PRAGMAS: [(&str, &str); 3] = [
    ("busy_timeout", "use the metadata property busyTimeout"),
    ("journal_mode", "use the metadata property disableWAL"),
    ("foreign_keys", "the tables have none"),
];

/// A connection string, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// What SQLite opens. Parameters that it does not know, it ignores.
    uri: String,
    /// `_pragma` parameters: statements for each new connection.
    pragmas: Vec<String>,
    kind: Kind,
    /// Connections of one process share a cache. They then lock tables and fail at once where others wait, so that
    /// there may be only one.
    has_shared_cache: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file that is read and written.
    File,
    /// A file that is only read.
    ReadOnlyFile,
    /// Lives in and with one connection.
    Memory,
}

impl Location {
    /// Reads a connection string.
    ///
    /// `:memory:` is a database of its own for each store. (Dapr's are one for each process, through SQLite's shared
    /// cache; two runtimes in one process must not meet there.)
    ///
    /// # Errors
    /// `InvalidMetadata` if it sets a pragma that has a metadata property.
    pub(super) fn parse(connection_string: &str) -> Result<Self> {
        let is_uri = connection_string.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"));
        let uri = if is_uri { connection_string.to_owned() } else { format!("file:{connection_string}") };
        let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));

        let is_memory = path["file:".len()..].to_ascii_lowercase().starts_with(":memory:");
        let mut kind = if is_memory { Kind::Memory } else { Kind::File };
        let mut pragmas = Vec::new();
        let mut has_shared_cache = false;
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            match (name, value.as_ref()) {
                ("_pragma", pragma) => pragmas.push(allowed(pragma)?),
                ("mode", "memory") => kind = Kind::Memory,
                ("mode", "ro") | ("immutable", "1") => kind = Kind::ReadOnlyFile,
                ("cache", "shared") => has_shared_cache = true,
                _ => {}
            }
        }
        Ok(Self { uri, pragmas, kind, has_shared_cache })
    }

    /// Opens the connection that writes.
    pub(super) fn open_writer(&self, busy_timeout: Duration, disable_wal: bool) -> Result<Connection> {
        let connection = self.open(busy_timeout)?;
        let journal_mode = match self.kind {
            Kind::Memory => Some("MEMORY"),
            Kind::File if disable_wal => Some("DELETE"),
            Kind::File => Some("WAL"),
            Kind::ReadOnlyFile => None,
        };
        if let Some(mode) = journal_mode {
            set_journal_mode(&connection, mode, busy_timeout).map_err(failure)?;
        }
        Ok(connection)
    }

    /// Opens the connections that read; none if the one that writes has to do it.
    pub(super) fn open_readers(&self, busy_timeout: Duration) -> Result<Vec<Connection>> {
        if self.kind == Kind::Memory || self.has_shared_cache {
            return Ok(Vec::new());
        }
        let count = thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_READERS));
        (0..count).map(|_| self.open(busy_timeout)).collect()
    }

    fn open(&self, busy_timeout: Duration) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.uri, flags).map_err(failure)?;
        connection.busy_timeout(busy_timeout).map_err(failure)?;
        for pragma in &self.pragmas {
            connection.execute_batch(&format!("PRAGMA {pragma}")).map_err(failure)?;
        }
        Ok(connection)
    }
}

/// Changes the journal mode, which a file keeps.
///
/// SQLite does not wait for a lock here, whatever its busy timeout: of several processes that open a new file at once,
/// all but one would fail.
fn set_journal_mode(connection: &Connection, mode: &str, patience: Duration) -> rusqlite::Result<()> {
    let start = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", mode) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && start.elapsed() < patience => {
                thread::sleep(RETRY_INTERVAL);
            }
            result => return result,
        }
    }
}

fn allowed(pragma: &str) -> Result<String> {
    let lower = pragma.to_ascii_lowercase();
    match FORBIDDEN_PRAGMAS.iter().find(|(name, _)| lower.starts_with(name)) {
        None => Ok(pragma.to_owned()),
        Some((name, fix)) => Err(ComponentError::metadata(format!(
            "found forbidden option '_pragma={name}' in the connection string; {fix}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(connection_string: &str) -> Location {
        Location::parse(connection_string).expect("valid")
    }

    #[test]
    fn a_path_becomes_a_uri_and_keeps_its_query() {
        for (text, uri) in [
            ("state.db", "file:state.db"),
            ("/tmp/state.db", "file:/tmp/state.db"),
            ("file:state.db", "file:state.db"),
            ("FILE:state.db", "FILE:state.db"),
            ("state.db?_txlock=immediate", "file:state.db?_txlock=immediate"),
            (":memory:", "file::memory:"),
        ] {
            assert_eq!(parse(text).uri, uri, "{text}");
        }
    }

    #[test]
    fn the_kind_of_database_is_recognized() {
        for (text, kind) in [
            ("state.db", Kind::File),
            ("ž", Kind::File),
            ("file:state.db?mode=rwc", Kind::File),
            ("file:state.db?mode=ro", Kind::ReadOnlyFile),
            ("state.db?immutable=1", Kind::ReadOnlyFile),
            (":memory:", Kind::Memory),
            (":MEMORY:?x=y", Kind::Memory),
            ("file::memory:?cache=shared", Kind::Memory),
            ("file:name?mode=memory", Kind::Memory),
        ] {
            assert_eq!(parse(text).kind, kind, "{text}");
        }
    }

    #[test]
    fn pragmas_are_decoded_and_those_with_a_property_of_their_own_refused() {
        let location = parse("state.db?_pragma=synchronous(NORMAL)&_pragma=cache_size%28-64%29");
        assert_eq!(location.pragmas, ["synchronous(NORMAL)", "cache_size(-64)"]);
        let error = Location::parse("state.db?_pragma=Busy_Timeout(1)").expect_err("forbidden");
        assert_eq!(
            error.to_string(),
            "found forbidden option '_pragma=busy_timeout' in the connection string; \
             use the metadata property busyTimeout"
        );
    }
}
