//! The components that Trilby brings: one module each, and one table that lists them.
//!
//! To add one, copy `state/in_memory.rs`, give it a row in [`builtins()`], and, if it needs a driver, a feature of its
//! own in `Cargo.toml`. The documentation, `trilby components`, `/v1.0/metadata` and the conformance suite all read
//! the table.

pub mod secret;
pub mod state;

use trilby_component::{Catalog, catalog::Entry};

/// Rows of `block "type"/"version" if "feature" = constructor, "what it is";`, added to the catalog in turn.
macro_rules! builtins {
    ($catalog:ident: $($block:ident $type:tt / $version:tt $(if $feature:tt)? = $open:path, $about:tt;)*) => {
        $($(#[cfg(feature = $feature)])? {
            $catalog.$block(Entry { type_name: $type, version: $version, about: $about }, $open);
        })*
    };
}

/// Every component of this build.
#[must_use]
pub fn builtins() -> Catalog {
    let mut catalog = Catalog::new();
    builtins! { catalog:
        secret "secretstores.local.env"/"v1" = secret::local_env::open, "Environment variables as secrets, for development";
        secret "secretstores.local.file"/"v1" = secret::local_file::open, "A JSON file of secrets, for development";
        state "state.in-memory"/"v1" = state::in_memory::open, "Items in this process's memory, gone when it ends";
        state "state.postgresql"/"v1" if "postgresql" = state::postgresql::v1::open, "Items in a PostgreSQL table, values as JSON";
        state "state.postgresql"/"v2" if "postgresql" = state::postgresql::v2::open, "Items in a PostgreSQL table, values as bytes";
        state "state.postgres"/"v1" if "postgresql" = state::postgresql::v1::open, "Another name of state.postgresql";
        state "state.postgres"/"v2" if "postgresql" = state::postgresql::v2::open, "Another name of state.postgresql v2";
        state "state.redis"/"v1" if "redis" = state::redis::open, "Items in Redis, each a hash, or a document where RedisJSON is there";
        state "state.sqlite"/"v1" if "sqlite" = state::sqlite::open, "Items in a SQLite file that processes may share";
        state "state.sqlite3"/"v1" if "sqlite" = state::sqlite::open, "Another name of state.sqlite";
    }
    catalog
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_what_it_is() {
        for entry in builtins().entries() {
            assert!(!entry.about.is_empty() && !entry.about.ends_with('.'), "{entry:?}");
        }
    }

    #[tokio::test]
    async fn an_unknown_type_is_answered_with_the_known_ones() {
        let error = builtins().open_state("state.msql", "v1", Default::default()).await.err().expect("no such type");
        let start = "unknown type state.msql/v1; this build has state.in-memory/v1";
        assert!(error.to_string().starts_with(start), "{error}");
    }
}
