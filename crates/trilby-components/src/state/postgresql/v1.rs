//! `state.postgresql` v1: values are `jsonb`, bytes in it as base64 text, and etags are `xmin`, the number of the
//! transaction that last wrote the row.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use tokio_postgres::Row;
use trilby_component::{
    ComponentError, ErrorKind, OpenRequest, Result,
    json::Style,
    state::{StateStore, Value},
};

use super::{
    cleanup,
    config::Config,
    layout::{self, Column, Layout, Statements},
    migrations::{Migrations, Step},
};
use crate::state::go_integer;

/// Connects and brings the tables up to date.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` or `Timeout` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn StateStore>> {
    let config = Config::parse(&request.properties)?;
    let layout = V1 { table: config.table_name.clone(), metadata_table: config.metadata_table_name.clone() };
    super::open(&config, layout).await
}

struct V1 {
    table: String,
    metadata_table: String,
}

impl Layout for V1 {
    fn statements(&self) -> Statements {
        let table = &self.table;
        let expiry = "CURRENT_TIMESTAMP + $2 * interval '1 second'";
        let upsert = format!(
            "INSERT INTO {table} AS t (key, value, isbinary, expiredate) VALUES ($1, $4::jsonb, $5, {expiry})
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, isbinary = excluded.isbinary,
               updatedate = CURRENT_TIMESTAMP, expiredate = excluded.expiredate"
        );
        Statements {
            read: format!(
                "SELECT key, xmin::text, expiredate, value::text, isbinary FROM {table}
                 WHERE key = ANY($1) AND (expiredate IS NULL OR expiredate >= CURRENT_TIMESTAMP)"
            ),
            insert: format!("{upsert} WHERE t.expiredate IS NOT NULL AND t.expiredate < CURRENT_TIMESTAMP"),
            upsert,
            update: format!(
                "UPDATE {table} SET value = $4::jsonb, isbinary = $5, updatedate = CURRENT_TIMESTAMP, expiredate = {expiry}
                 WHERE key = $1 AND xmin::text = $3 AND (expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)"
            ),
            delete: format!("DELETE FROM {table} WHERE key = $1"),
            delete_matching: format!("DELETE FROM {table} WHERE key = $1 AND xmin::text = $2"),
        }
    }

    fn migrations(&self) -> Migrations<'_> {
        let table = &self.table;
        Migrations {
            metadata_table: &self.metadata_table,
            metadata_key: "migrations".to_owned(),
            steps: vec![
                Step::Run(format!(
                    "CREATE TABLE IF NOT EXISTS {table} (
                       key text NOT NULL PRIMARY KEY,
                       value jsonb NOT NULL,
                       isbinary boolean NOT NULL,
                       insertdate TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
                       updatedate TIMESTAMP WITH TIME ZONE NULL
                     )"
                )),
                Step::Run(format!("ALTER TABLE {table} ADD expiredate TIMESTAMP WITH TIME ZONE")),
                Step::NumberRows { table, created_column: "insertdate" },
            ],
        }
    }

    fn cleanup(&self) -> cleanup::Statements {
        let Self { table, metadata_table } = self;
        cleanup::Statements::new(
            metadata_table,
            "last-cleanup",
            format!("DELETE FROM {table} WHERE expiredate IS NOT NULL AND expiredate < now()"),
        )
    }

    fn parse_etag(&self, etag: &str) -> Result<String> {
        let xmin: Result<u32, _> = go_integer::parse(etag, "ParseUint");
        xmin.map(|xmin| xmin.to_string()).map_err(|reason| ComponentError::new(ErrorKind::EtagInvalid, reason))
    }

    fn encode(&self, value: &Value) -> Result<Vec<Column>> {
        let (text, is_binary) = match value {
            Value::Bytes(bytes) => (format!("\"{}\"", BASE64_STANDARD.encode(bytes)), true),
            Value::Json(_) => (String::from_utf8_lossy(&value.encode(Style::Standard)?).into_owned(), false),
        };
        Ok(vec![Column::Text(text), Column::Bool(is_binary)])
    }

    fn decode(&self, row: &Row) -> Result<Bytes> {
        let broken = |error: &dyn std::fmt::Display| {
            ComponentError::new(ErrorKind::Internal, format!("the row is not one of state.postgresql v1: {error}"))
        };
        let text: &str = row.try_get(layout::VALUE).map_err(|error| broken(&error))?;
        let is_binary: bool = row.try_get(layout::VALUE + 1).map_err(|error| broken(&error))?;
        if !is_binary {
            return Ok(Bytes::copy_from_slice(text.as_bytes()));
        }
        let encoded: String = serde_json::from_str(text).map_err(|error| broken(&error))?;
        BASE64_STANDARD.decode(encoded).map(Bytes::from).map_err(|error| broken(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> V1 {
        V1 { table: "state".to_owned(), metadata_table: "dapr_metadata".to_owned() }
    }

    #[test]
    fn bytes_are_base64_in_a_json_text_and_json_is_itself() {
        let encode = |value| match &layout().encode(&value).expect("valid")[..] {
            [Column::Text(text), Column::Bool(is_binary)] => (text.clone(), *is_binary),
            other => panic!("{other:?}"),
        };
        assert_eq!(encode(Value::Bytes(Bytes::from_static(b"\0\xff raw"))), (r#""AP8gcmF3""#.to_owned(), true));
        assert_eq!(encode(Value::Json(r#" {"b":1,"a":"<"} "#.into())), (r#"{"a":"\u003c","b":1}"#.to_owned(), false));
    }

    #[test]
    fn an_etag_is_the_number_of_a_transaction() {
        assert_eq!(layout().parse_etag("0042").expect("a number"), "42");
        let error = layout().parse_etag("nope").expect_err("not a number");
        assert_eq!(error.kind(), ErrorKind::EtagInvalid);
        assert_eq!(error.to_string(), "invalid etag value: strconv.ParseUint: parsing \"nope\": invalid syntax");
    }
}
