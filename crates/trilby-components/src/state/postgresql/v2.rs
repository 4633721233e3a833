//! `state.postgresql` v2: values are bytes and etags are random UUIDs, which other databases that speak PostgreSQL's
//! protocol have too.

use std::sync::Arc;

use bytes::Bytes;
use tokio_postgres::Row;
use trilby_component::{
    ComponentError, ErrorKind, OpenRequest, Result,
    json::Style,
    state::{StateStore, Value},
};
use uuid::Uuid;

use super::{
    cleanup,
    config::Config,
    layout::{self, Column, Layout, Statements},
    migrations::{Migrations, Step},
};

/// Connects and brings the tables up to date.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` or `Timeout` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn StateStore>> {
    let config = Config::parse(&request.properties)?;
    let layout = V2 {
        table: format!("{}state", config.table_prefix),
        table_prefix: config.table_prefix.clone(),
        metadata_table: config.metadata_table_name.clone(),
    };
    super::open(&config, layout).await
}

struct V2 {
    table: String,
    table_prefix: String,
    metadata_table: String,
}

impl Layout for V2 {
    fn statements(&self) -> Statements {
        let table = &self.table;
        let expiry = "now() + $2 * interval '1 second'";
        let upsert = format!(
            "INSERT INTO {table} AS t (key, value, etag, expires_at) VALUES ($1, $4, gen_random_uuid(), {expiry})
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_at = now(), etag = gen_random_uuid(),
               expires_at = excluded.expires_at"
        );
        Statements {
            read: format!(
                "SELECT key, etag::text, expires_at, value FROM {table}
                 WHERE key = ANY($1) AND (expires_at IS NULL OR expires_at >= now())"
            ),
            insert: format!("{upsert} WHERE t.expires_at IS NOT NULL AND t.expires_at < now()"),
            upsert,
            update: format!(
                "UPDATE {table} SET value = $4, updated_at = now(), etag = gen_random_uuid(), expires_at = {expiry}
                 WHERE key = $1 AND etag = $3::uuid AND (expires_at IS NULL OR expires_at >= now())"
            ),
            delete: format!("DELETE FROM {table} WHERE key = $1"),
            delete_matching: format!("DELETE FROM {table} WHERE key = $1 AND etag = $2::uuid"),
        }
    }

    fn migrations(&self) -> Migrations<'_> {
        let table = &self.table;
        Migrations {
            metadata_table: &self.metadata_table,
            metadata_key: format!("migrations-state-v2-{}", self.table_prefix),
            steps: vec![
                Step::Run(format!(
                    "CREATE TABLE IF NOT EXISTS {table} (
                       key text NOT NULL PRIMARY KEY,
                       value bytea NOT NULL,
                       etag uuid NOT NULL DEFAULT gen_random_uuid(),
                       created_at timestamp with time zone NOT NULL DEFAULT now(),
                       updated_at timestamp with time zone,
                       expires_at timestamp with time zone
                     );
                     CREATE INDEX ON {table} (expires_at);"
                )),
                Step::NumberRows { table, created_column: "created_at" },
            ],
        }
    }

    fn cleanup(&self) -> cleanup::Statements {
        let Self { table, table_prefix, metadata_table } = self;
        cleanup::Statements::new(
            metadata_table,
            &format!("last-cleanup-state-v2-{table_prefix}"),
            format!("DELETE FROM {table} WHERE expires_at IS NOT NULL AND expires_at < now()"),
        )
    }

    fn parse_etag(&self, etag: &str) -> Result<String> {
        // A text that is no UUID is an etag that does not match, as Dapr has it, in the words of its UUID library.
        Uuid::parse_str(etag).map(|uuid| uuid.to_string()).map_err(|_| {
            ComponentError::etag_mismatch(match etag.len() {
                32 | 36 | 38 | 45 => "invalid UUID format".to_owned(),
                length => format!("invalid UUID length: {length}"),
            })
        })
    }

    fn encode(&self, value: &Value) -> Result<Vec<Column>> {
        Ok(vec![Column::Bytes(value.encode(Style::Standard)?)])
    }

    fn decode(&self, row: &Row) -> Result<Bytes> {
        let value: Result<&[u8], _> = row.try_get(layout::VALUE);
        value.map(Bytes::copy_from_slice).map_err(|error| {
            ComponentError::new(ErrorKind::Internal, format!("the row is not one of state.postgresql v2: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_that_is_no_uuid_does_not_match() {
        let layout = V2 { table: String::new(), table_prefix: String::new(), metadata_table: String::new() };
        for (etag, reason) in [("wrong", "invalid UUID length: 5"), (&"x".repeat(36), "invalid UUID format")] {
            let error = layout.parse_etag(etag).expect_err("not a UUID");
            assert_eq!(error.kind(), ErrorKind::EtagMismatch);
            assert_eq!(error.to_string(), format!("possible etag mismatch. error from state store: {reason}"));
        }
        let etag = "6BA7B810-9DAD-11D1-80B4-00C04FD430C8";
        assert_eq!(layout.parse_etag(etag).expect("a UUID"), etag.to_lowercase());
    }
}
