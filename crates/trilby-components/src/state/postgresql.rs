//! `state.postgresql`: items in a table of a PostgreSQL database, in the two layouts that Dapr has: [`v1`] and [`v2`].
//!
//! Tables are created, and brought up to date, when a store is opened. Each operation takes a connection from a pool;
//! statements are prepared once for each connection. Expired items are not seen, and deleted from time to time.
//!
//! Tested with PostgreSQL 15.

mod cleanup;
pub(crate) mod config;
pub(crate) mod database;
mod dsn;
mod layout;
mod migrations;
mod tls;
pub mod v1;
pub mod v2;

use std::{collections::HashMap, slice, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use tokio_postgres::{Row, types::Type};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, Result,
    state::{DeleteRequest, Feature, GetRequest, Item, Operation, SetRequest, StateStore, TTL_EXPIRE_TIME},
};

use self::{
    cleanup::Cleanup,
    config::Config,
    database::{Database, Lease, Parameter},
    layout::{Column, Layout, Statements},
};
use super::{condition::Condition, ttl};

async fn open(config: &Config, layout: impl Layout) -> Result<Arc<dyn StateStore>> {
    let database = Arc::new(Database::new(config).await?);
    database.ping().await?;
    // Without the time limit of requests: numbering the rows of a large table takes what it takes.
    layout.migrations().perform(&database).await.map_err(|error| database.unprepared(error))?;
    let statements = layout.statements();
    let cleanup = Cleanup::start(&database, layout.cleanup(), config.cleanup_interval());
    Ok(Arc::new(Postgresql { layout, statements, database, cleanup }))
}

struct Postgresql<L> {
    layout: L,
    statements: Statements,
    database: Arc<Database>,
    cleanup: Cleanup,
}

#[async_trait]
impl<L: Layout> StateStore for Postgresql<L> {
    fn features(&self) -> &[Feature] {
        &[Feature::Etag, Feature::Transactional, Feature::Ttl]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>> {
        let rows = self.read(slice::from_ref(request)).await?;
        rows.first().map(|row| self.item(row)).transpose()
    }

    async fn bulk_get(&self, requests: &[GetRequest], _parallelism: usize) -> Result<Vec<Result<Option<Item>>>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.read(requests).await?;
        let by_key: HashMap<&str, &Row> = rows.iter().map(|row| (row.get(layout::KEY), row)).collect();
        let item = |request: &GetRequest| by_key.get(&*request.key).map(|row| self.item(row)).transpose();
        Ok(requests.iter().map(item).collect())
    }

    async fn set(&self, request: &SetRequest) -> Result<()> {
        self.apply(&[self.upsert(request)?]).await
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<()> {
        self.apply(&[self.remove(request)?]).await
    }

    async fn transact(&self, operations: &[Operation], _metadata: &Metadata) -> Result<()> {
        let changes = operations.iter().map(|operation| self.change(operation)).collect::<Result<Vec<_>>>()?;
        self.apply(&changes).await
    }

    async fn ping(&self) -> Result<()> {
        self.database.ping().await
    }

    async fn close(&self) {
        self.cleanup.stop().await;
        self.database.close();
    }
}

/// A write, checked and encoded before it takes a connection.
struct Change<'a> {
    key: &'a str,
    condition: Condition,
    /// What the key holds from now on; `None` deletes it.
    content: Option<Content>,
}

struct Content {
    value: Vec<Column>,
    ttl_seconds: Option<f64>,
}

impl<L: Layout> Postgresql<L> {
    fn change<'a>(&self, operation: &'a Operation) -> Result<Change<'a>> {
        match operation {
            Operation::Upsert(request) => self.upsert(request),
            Operation::Delete(request) => self.remove(request),
        }
    }

    fn upsert<'a>(&self, request: &'a SetRequest) -> Result<Change<'a>> {
        let content = Content {
            value: self.layout.encode(&request.value)?,
            ttl_seconds: ttl::parse(&request.metadata)?.map(f64::from),
        };
        let condition = self.parse_etag(Condition::of_set(request))?;
        Ok(Change { key: present(&request.key, "set")?, condition, content: Some(content) })
    }

    fn remove<'a>(&self, request: &'a DeleteRequest) -> Result<Change<'a>> {
        let condition = self.parse_etag(Condition::of_delete(request))?;
        Ok(Change { key: present(&request.key, "delete")?, condition, content: None })
    }

    fn parse_etag(&self, condition: Condition) -> Result<Condition> {
        match condition {
            Condition::Etag(etag) => self.layout.parse_etag(&etag).map(Condition::Etag),
            other => Ok(other),
        }
    }

    async fn read(&self, requests: &[GetRequest]) -> Result<Vec<Row>> {
        let keys = requests.iter().map(|request| present(&request.key, "get")).collect::<Result<Vec<_>>>()?;
        self.database.fetch(&self.statements.read, &[(&keys, Type::TEXT_ARRAY)]).await
    }

    fn item(&self, row: &Row) -> Result<Item> {
        let expiry: Option<SystemTime> = row.get(layout::EXPIRY);
        let expiry = expiry.map(|at| humantime::format_rfc3339_seconds(at).to_string());
        Ok(Item {
            value: self.layout.decode(row)?,
            etag: Some(row.get(layout::ETAG)),
            metadata: expiry.into_iter().map(|at| (TTL_EXPIRE_TIME.to_owned(), at)).collect(),
        })
    }

    /// Applies all changes or none.
    async fn apply(&self, changes: &[Change<'_>]) -> Result<()> {
        let apply = async {
            let client = self.database.lease().await?;
            let outcome = match changes {
                [] => Ok(()),
                [change] => self.perform(&client, change).await,
                changes => self.perform_all(&client, changes).await,
            };
            client.give_back();
            outcome
        };
        self.database.within(apply).await
    }

    async fn perform_all(&self, client: &Lease, changes: &[Change<'_>]) -> Result<()> {
        self.database.run(client, "BEGIN").await?;
        for change in changes {
            if let Err(error) = self.perform(client, change).await {
                // If this fails too, the connection is lost, which ends the transaction just as well.
                let _ = self.database.run(client, "ROLLBACK").await;
                return Err(error);
            }
        }
        self.database.run(client, "COMMIT").await
    }

    async fn perform(&self, client: &Lease, Change { key, condition, content }: &Change<'_>) -> Result<()> {
        let etag = match condition {
            Condition::Etag(etag) => Some(etag),
            Condition::Any | Condition::Absent => None,
        };
        let Some(Content { value, ttl_seconds }) = content else {
            return self.perform_delete(client, key, etag).await;
        };
        let sql = match condition {
            Condition::Any => &self.statements.upsert,
            Condition::Absent => &self.statements.insert,
            Condition::Etag(_) => &self.statements.update,
        };
        let mut parameters: Vec<Parameter<'_>> =
            vec![(key, Type::TEXT), (ttl_seconds, Type::FLOAT8), (&etag, Type::TEXT)];
        parameters.extend(value.iter().map(|column| (column as _, column.kind())));
        match (self.database.execute(client, sql, &parameters).await?, etag) {
            (1, _) => Ok(()),
            (_, Some(_)) => Err(ComponentError::etag_mismatch("")),
            (_, None) => Err(ComponentError::new(ErrorKind::Internal, "no item was updated")),
        }
    }

    async fn perform_delete(&self, client: &Lease, key: &str, etag: Option<&String>) -> Result<()> {
        let Some(etag) = etag else {
            return self.database.execute(client, &self.statements.delete, &[(&key, Type::TEXT)]).await.map(drop);
        };
        let parameters: [Parameter<'_>; 2] = [(&key, Type::TEXT), (&etag, Type::TEXT)];
        match self.database.execute(client, &self.statements.delete_matching, &parameters).await? {
            1 => Ok(()),
            _ => Err(ComponentError::etag_mismatch("")),
        }
    }
}

fn present<'a>(key: &'a str, operation: &str) -> Result<&'a str> {
    if key.is_empty() {
        return Err(ComponentError::request(format!("missing key in {operation} operation")));
    }
    Ok(key)
}
