//! The tables, equal to those that Dapr creates, and its record of which version they have.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use trilby_component::{ComponentError, Result};

use super::failure;

/// The version that [`migrate`] leads to.
const LEVEL: u32 = 1;

/// A table name that is safe to be part of a statement: ASCII letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identifier(String);

impl Identifier {
    /// # Errors
    /// `InvalidMetadata` that names `property` if `name` is empty or has other characters.
    pub(super) fn parse(property: &str, name: String) -> Result<Self> {
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Ok(Self(name));
        }
        let message = format!("invalid identifier: {name}; {property} may have letters, digits and underscores only");
        Err(ComponentError::metadata(message))
    }
}

impl std::fmt::Display for Identifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Creates what is missing. Several processes may do so at once.
pub(super) fn migrate(connection: &Connection, state: &Identifier, metadata: &Identifier) -> Result<()> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Exclusive).map_err(failure)?;
    let create_metadata = format!(
        "CREATE TABLE IF NOT EXISTS {metadata} (
            key text NOT NULL PRIMARY KEY,
            value text NOT NULL
        )"
    );
    transaction.execute_batch(&create_metadata).map_err(failure)?;

    let level = level(&transaction, metadata)?;
    // Whatever the level: with two table names and one metadata table, the level is that of the first.
    let create_state = format!(
        "CREATE TABLE IF NOT EXISTS {state} (
            key TEXT NOT NULL PRIMARY KEY,
            value TEXT NOT NULL,
            is_binary BOOLEAN NOT NULL,
            etag TEXT NOT NULL,
            expiration_time TIMESTAMP DEFAULT NULL,
            update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
        )"
    );
    transaction.execute_batch(&create_state).map_err(failure)?;
    if level < LEVEL {
        let update = format!("REPLACE INTO {metadata} (key, value) VALUES ('migrations', ?)");
        transaction.execute(&update, [LEVEL.to_string()]).map_err(failure)?;
    }
    transaction.commit().map_err(failure)
}

fn level(connection: &Connection, metadata: &Identifier) -> Result<u32> {
    let query = format!("SELECT value FROM {metadata} WHERE key = 'migrations'");
    let text: Option<String> = connection.query_row(&query, [], |row| row.get(0)).optional().map_err(failure)?;
    let Some(text) = text else { return Ok(0) };
    text.parse().map_err(|_| {
        let message =
            format!("invalid migration level found in metadata table: {text}; is {metadata} a table of Dapr's?");
        ComponentError::metadata(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Identifier {
        Identifier::parse("tableName", text.to_owned()).expect("valid")
    }

    #[test]
    fn table_names_cannot_carry_statements() {
        for text in ["", "a b", "a;DROP TABLE b", "ž", "a-b", "\"a\""] {
            let error = Identifier::parse("tableName", text.to_owned()).expect_err(text);
            assert!(error.to_string().starts_with(&format!("invalid identifier: {text}; tableName ")), "{error}");
        }
        assert_eq!(name("State_2").to_string(), "State_2");
    }

    #[test]
    fn migrating_again_changes_nothing_and_a_second_table_is_added() {
        let connection = Connection::open_in_memory().expect("opens");
        for table in ["state", "state", "other"] {
            migrate(&connection, &name(table), &name("metadata")).expect("migrates");
        }
        assert_eq!(level(&connection, &name("metadata")).expect("a level"), LEVEL);
        for table in ["state", "other"] {
            let count: u32 = connection
                .query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0))
                .expect("the table exists");
            assert_eq!(count, 0);
        }
    }

    #[test]
    fn a_level_that_is_no_number_is_named() {
        let connection = Connection::open_in_memory().expect("opens");
        migrate(&connection, &name("state"), &name("metadata")).expect("migrates");
        connection.execute("UPDATE metadata SET value = 'x'", []).expect("updated");
        let error = migrate(&connection, &name("state"), &name("metadata")).expect_err("not a number");
        assert!(error.to_string().starts_with("invalid migration level found in metadata table: x"), "{error}");
    }
}
