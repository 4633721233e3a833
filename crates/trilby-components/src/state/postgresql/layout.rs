//! What the two versions of the store differ in: the table, and how values and etags stand in it.

use std::error::Error;

use bytes::{Bytes, BytesMut};
use tokio_postgres::{
    Row,
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use trilby_component::{Result, state::Value};

use super::{cleanup, migrations::Migrations};

/// Statements over one table.
///
/// A read has the keys as `$1` and returns the columns [`KEY`], [`ETAG`], [`EXPIRY`] and, from [`VALUE`] on, those of the
/// value. A write has the key as `$1`, the seconds to live as `$2`, null for ever, the etag as `$3`, and the columns of
/// the value from `$4` on.
pub(super) struct Statements {
    pub(super) read: String,
    /// Writes an item whether it is there or not.
    pub(super) upsert: String,
    /// Writes an item that is not there, or has expired.
    pub(super) insert: String,
    /// Writes an item that has the etag.
    pub(super) update: String,
    /// `$1` is the key.
    pub(super) delete: String,
    /// `$1` is the key, `$2` the etag.
    pub(super) delete_matching: String,
}

/// Columns of a read: the key, the etag as text, the time of expiry, and where those of the value begin.
pub(super) const KEY: usize = 0;
pub(super) const ETAG: usize = 1;
pub(super) const EXPIRY: usize = 2;
pub(super) const VALUE: usize = 3;

/// One version of the store.
pub(super) trait Layout: Send + Sync + 'static {
    fn statements(&self) -> Statements;

    fn migrations(&self) -> Migrations<'_>;

    fn cleanup(&self) -> cleanup::Statements;

    /// The etag as the statements want it.
    ///
    /// # Errors
    /// `EtagInvalid` or `EtagMismatch` for an etag that no item can have.
    fn parse_etag(&self, etag: &str) -> Result<String>;

    /// The columns of the value.
    ///
    /// # Errors
    /// `InvalidRequest` for JSON that does not parse.
    fn encode(&self, value: &Value) -> Result<Vec<Column>>;

    /// Reads the value from a row of a read.
    ///
    /// # Errors
    /// `Internal` if the row is not one of this store's.
    fn decode(&self, row: &Row) -> Result<Bytes>;
}

/// A column of a value.
#[derive(Debug)]
pub(super) enum Column {
    Text(String),
    Bytes(Bytes),
    Bool(bool),
}

impl Column {
    pub(super) fn kind(&self) -> Type {
        match self {
            Self::Text(_) => Type::TEXT,
            Self::Bytes(_) => Type::BYTEA,
            Self::Bool(_) => Type::BOOL,
        }
    }
}

impl ToSql for Column {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Text(text) => text.to_sql(kind, out),
            Self::Bytes(bytes) => (&bytes[..]).to_sql(kind, out),
            Self::Bool(bool) => bool.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::TEXT, Type::BYTEA, Type::BOOL].contains(kind)
    }

    to_sql_checked!();
}
