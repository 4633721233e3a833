//! The tables: created, and brought up to date, step by step as Dapr does it, so that both can do it at the same time.

use std::time::Duration;

use tokio::time;
use tokio_postgres::{error::SqlState, types::Type};
use trilby_component::{ComponentError, ErrorKind, Result};

use super::database::{Database, Lease};

/// How often the metadata table is tried again to be created. See [`is_race`].
const CREATE_ATTEMPTS: u32 = 10;
const CREATE_PAUSE: Duration = Duration::from_millis(50);

/// How long another process may take to migrate before this one gives up.
const LOCK_TIMEOUT: &str = "1min";

/// The steps of one version of the store.
pub(super) struct Migrations<'a> {
    /// The table that remembers which steps are done.
    pub(super) metadata_table: &'a str,
    /// The row of that table.
    pub(super) metadata_key: String,
    pub(super) steps: Vec<Step<'a>>,
}

/// One step, in order; its number is stored, so none may ever be inserted or removed.
pub(super) enum Step<'a> {
    Run(String),
    /// Gives each row of `table` a number, in the order of `created_column`: pages of keys are cut by it.
    NumberRows {
        table: &'a str,
        created_column: &'static str,
    },
}

impl Migrations<'_> {
    /// Performs the steps that are not done yet.
    pub(super) async fn perform(&self, database: &Database) -> Result<()> {
        self.create_metadata_table(database).await?;
        let client = database.lease().await?;
        let outcome = self.perform_locked(database, &client).await;
        let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = database.run(&client, end).await;
        client.give_back();
        outcome.and(ended)
    }

    async fn create_metadata_table(&self, database: &Database) -> Result<()> {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {} (key text NOT NULL PRIMARY KEY, value text NOT NULL)",
            self.metadata_table
        );
        let mut attempt = 1;
        loop {
            let client = database.lease().await?;
            let created = client.batch_execute(&sql).await;
            client.give_back();
            match created {
                Err(error) if is_race(&error) && attempt < CREATE_ATTEMPTS => {
                    time::sleep(CREATE_PAUSE).await;
                    attempt += 1;
                }
                other => return other.map_err(|error| database.explain(&error)),
            }
        }
    }

    /// Whoever holds the row `lock` migrates; Dapr's processes wait for the same row.
    async fn perform_locked(&self, database: &Database, client: &Lease) -> Result<()> {
        let table = self.metadata_table;
        let insert = format!("INSERT INTO {table} (key, value) VALUES ('lock', 'lock') ON CONFLICT (key) DO NOTHING");
        database.run(client, &insert).await?;
        database.run(client, &format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")).await?;
        database.run(client, &format!("SELECT value FROM {table} WHERE key = 'lock' FOR UPDATE")).await?;

        let done = self.level(database, client).await?;
        for (number, step) in self.steps.iter().enumerate().skip(done) {
            step.perform(database, client).await?;
            let update = format!(
                "INSERT INTO {table} (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            );
            let level = (number + 1).to_string();
            database.execute(client, &update, &[(&self.metadata_key, Type::TEXT), (&level, Type::TEXT)]).await?;
        }
        Ok(())
    }

    async fn level(&self, database: &Database, client: &Lease) -> Result<usize> {
        let sql = format!("SELECT value FROM {} WHERE key = $1", self.metadata_table);
        let rows = database.query(client, &sql, &[(&self.metadata_key, Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(0) };
        let text: &str = row.get(0);
        text.parse().map_err(|_| {
            let message = format!("invalid migration level found in metadata table: {text}");
            ComponentError::new(ErrorKind::Internal, message)
        })
    }
}

impl Step<'_> {
    async fn perform(&self, database: &Database, client: &Lease) -> Result<()> {
        match self {
            Self::Run(sql) => database.run(client, sql).await,
            Self::NumberRows { table, created_column } => number_rows(database, client, table, created_column).await,
        }
    }
}

/// Creating a table that another process creates at the same moment can fail, `IF NOT EXISTS` or not: its name, its row
/// type or its place in the system's tables may be taken between the look and the act.
fn is_race(error: &tokio_postgres::Error) -> bool {
    const TAKEN: [&SqlState; 3] =
        [&SqlState::UNIQUE_VIOLATION, &SqlState::DUPLICATE_OBJECT, &SqlState::DUPLICATE_TABLE];
    error.code().is_some_and(|code| TAKEN.contains(&code))
}

async fn number_rows(database: &Database, client: &Lease, table: &str, created_column: &str) -> Result<()> {
    // The name as configured may lack the schema and may need quotes; the catalog knows both.
    let find = "SELECT format('%I.%I', n.nspname, c.relname), quote_ident(c.relname || '_row_id_uidx'), \
                EXISTS (SELECT FROM pg_attribute a \
                        WHERE a.attrelid = c.oid AND a.attname = 'row_id' AND a.attidentity <> '') \
                FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)";
    let rows = database.query(client, find, &[(&table, Type::TEXT)]).await?;
    let row = rows.first().ok_or_else(|| {
        ComponentError::new(ErrorKind::Internal, format!("table {table} was created and is not there"))
    })?;
    let (table, index, has_identity): (&str, &str, bool) = (row.get(0), row.get(1), row.get(2));
    let identity = if has_identity {
        String::new()
    } else {
        format!("ALTER TABLE {table} ALTER COLUMN row_id ADD GENERATED BY DEFAULT AS IDENTITY;")
    };
    let sql = format!(
        "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS row_id BIGINT;
         UPDATE {table} AS t SET row_id = numbered.number
           FROM (SELECT key, row_number() OVER (ORDER BY {created_column}, key) AS number
                   FROM {table} WHERE row_id IS NULL) AS numbered
          WHERE numbered.key = t.key;
         ALTER TABLE {table} ALTER COLUMN row_id SET NOT NULL;
         {identity}
         SELECT setval(pg_get_serial_sequence('{literal}', 'row_id'),
                       COALESCE((SELECT max(row_id) FROM {table}), 0) + 1, false);
         CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {table} (row_id);",
        literal = table.replace('\'', "''"),
    );
    database.run(client, &sql).await
}
