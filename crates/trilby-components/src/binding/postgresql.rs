//! `bindings.postgresql`: SQL statements.
//!
//! `exec` runs a statement and counts the rows that it changed; `query` answers with its rows, a JSON list each. The
//! statement is the metadata `sql`, its parameters `params`, a JSON list.

mod parameter;
mod value;

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, value::RawValue};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, OpenRequest, Result,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
};

use crate::state::postgresql::{
    config::{Config, ExecMode},
    database::{Database, Lease},
};

use parameter::Parameter;
use value::Cell;

/// Connects. The settings of the connection are those of `state.postgresql`.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` or `Timeout` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<Binding>> {
    let config = Config::parse(&request.properties)?;
    let output = Postgresql { mode: config.query_exec_mode, database: Database::new(&config).await? };
    output.ping().await?;
    Ok(Arc::new(Binding { input: None, output: Some(Arc::new(output)) }))
}

struct Postgresql {
    database: Database,
    mode: ExecMode,
}

#[async_trait]
impl OutputBinding for Postgresql {
    fn operations(&self) -> &[&'static str] {
        &["exec", "query", "close"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        if request.operation == "close" {
            self.database.close();
            return Ok(InvokeResponse::default());
        }
        let sql = request.metadata.get("sql").filter(|sql| !sql.is_empty());
        let sql = sql.ok_or_else(|| ComponentError::request("required metadata not set: sql"))?;
        let parameters = parameters(request.metadata.get("params").map(String::as_str).unwrap_or_default())?;

        let (began, started) = (Timestamp::now(), Instant::now());
        let mut metadata = Metadata::from([
            ("operation".to_owned(), request.operation.clone()),
            ("sql".to_owned(), sql.clone()),
            ("start-time".to_owned(), began.to_string()),
        ]);
        let data = match request.operation.as_str() {
            "exec" => {
                let changed = self.exec(sql, &parameters).await?;
                metadata.insert("rows-affected".to_owned(), changed.to_string());
                Vec::new()
            }
            "query" => self.query(sql, &parameters).await?,
            other => {
                let message = format!("invalid operation type: {other}. Expected exec, query, or close");
                return Err(ComponentError::request(message).into());
            }
        };
        metadata.insert("end-time".to_owned(), Timestamp::now().to_string());
        metadata.insert("duration".to_owned(), format!("{:?}", started.elapsed()));
        Ok(InvokeResponse { data: Some(data.into()), metadata, ..InvokeResponse::default() })
    }

    async fn ping(&self) -> Result<()> {
        self.database.ping().await
    }

    async fn close(&self) {
        self.database.close();
    }
}

impl Postgresql {
    async fn exec(&self, sql: &str, parameters: &[Parameter]) -> Result<u64> {
        let changed = self.on_connection(async |client| match self.mode {
            ExecMode::CacheStatement => client.execute(&client.prepare_cached(sql).await?, &values(parameters)).await,
            _ => client.execute_typed(sql, &untyped(parameters)).await,
        });
        changed.await.map_err(not_executed)
    }

    async fn query(&self, sql: &str, parameters: &[Parameter]) -> Result<Vec<u8>> {
        let rows = self.on_connection(async |client| match self.mode {
            ExecMode::CacheStatement => client.query(&client.prepare_cached(sql).await?, &values(parameters)).await,
            _ => client.query_typed(sql, &untyped(parameters)).await,
        });
        let rows = rows.await.map_err(not_executed)?;
        let rows = rows.iter().map(list).collect::<Result<Vec<_>>>()?;
        Ok(serde_json::to_vec(&rows).expect("writing JSON to memory cannot fail"))
    }

    async fn on_connection<T>(&self, work: impl AsyncFnOnce(&Lease) -> Result<T, tokio_postgres::Error>) -> Result<T> {
        self.database
            .within(async {
                let client = self.database.lease().await?;
                let answer = work(&client).await.map_err(|error| self.database.explain(&error));
                client.give_back();
                answer
            })
            .await
    }
}

fn not_executed(error: ComponentError) -> ComponentError {
    ComponentError::new(error.kind(), format!("error executing query: {error}")).with_source(error)
}

fn parameters(text: &str) -> Result<Vec<Parameter>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let values: Vec<Value> = serde_json::from_str(text).map_err(|error| {
        ComponentError::request(format!(
            "invalid metadata property params: failed to unserialize into an array: {error}"
        ))
    })?;
    Ok(values.into_iter().map(Parameter).collect())
}

fn values(parameters: &[Parameter]) -> Vec<&(dyn ToSql + Sync)> {
    parameters.iter().map(|parameter| parameter as _).collect()
}

/// Parameters whose types the server is to find out, as it does for literals.
fn untyped(parameters: &[Parameter]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    parameters.iter().map(|parameter| (parameter as _, Type::UNKNOWN)).collect()
}

/// The cells of a row, in order.
fn list(row: &Row) -> Result<Vec<Box<RawValue>>> {
    let cell = |index: usize| {
        row.try_get::<_, Cell>(index).map(|cell| cell.0).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let column = row.columns()[index].name();
            let message = format!("error serializing results: column {column}: {cause}");
            ComponentError::new(ErrorKind::Unsupported, message)
        })
    };
    (0..row.len()).map(cell).collect()
}
