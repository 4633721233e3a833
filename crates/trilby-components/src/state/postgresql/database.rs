//! Connections to PostgreSQL: a pool, a time limit for each operation, and what its errors mean.

use std::{error::Error as _, future::Future, io, ops::Deref, time::Duration};

use deadpool_postgres::{
    Client, ClientWrapper, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod,
};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::time;
use tokio_postgres::{
    AsyncMessage, Error, Row,
    config::Host,
    error::SqlState,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use trilby_component::{ComponentError, ErrorKind, Result};

use super::{
    config::{Config, ExecMode},
    tls,
};

/// A parameter of a statement and its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// What a connection outside the pool hears from the server. It lives as long as it is read.
pub(crate) type Messages = BoxStream<'static, Result<AsyncMessage, Error>>;

/// A database and the connections to it.
pub(crate) struct Database {
    pool: Pool,
    driver: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    /// Where it is, for people.
    name: String,
    timeout: Duration,
    mode: ExecMode,
}

impl Database {
    /// Does not connect yet.
    ///
    /// # Errors
    /// `InvalidMetadata` for a malformed connection string or a certificate that cannot be read.
    pub(crate) async fn new(config: &Config) -> Result<Self> {
        let dsn = config.dsn()?;
        let driver = dsn.driver_config()?;
        let name = name(&driver);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let tls = tls::connector(&dsn).await?;
        let manager = Manager::from_config(driver.clone(), tls.clone(), recycling);
        let max_idle_time = config.max_idle_time();
        let is_fresh = Hook::sync_fn(move |_, metrics| {
            if metrics.last_used() < max_idle_time { Ok(()) } else { Err(HookError::message("unused for too long")) }
        });
        let pool = Pool::builder(manager)
            .max_size(config.max_connections(dsn.max_connections()))
            .pre_recycle(is_fresh)
            .build()
            .map_err(|error| ComponentError::metadata(format!("postgresql cannot be used as configured: {error}")))?;
        Ok(Self { pool, driver, tls, name, timeout: config.timeout, mode: config.query_exec_mode })
    }

    /// Runs an operation within the time limit of the component.
    pub(crate) async fn within<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        time::timeout(self.timeout, operation).await.unwrap_or_else(|_| {
            let message = format!("postgresql at {} did not answer within {:?}", self.name, self.timeout);
            Err(ComponentError::new(ErrorKind::Timeout, message))
        })
    }

    /// A connection for one operation.
    pub(crate) async fn lease(&self) -> Result<Lease> {
        match self.pool.get().await {
            Ok(client) => Ok(Lease(Some(client))),
            Err(PoolError::Backend(error)) => Err(self.unconnected(&error)),
            Err(error) => {
                let message = format!("no connection to postgresql at {}: {error}", self.name);
                Err(ComponentError::new(ErrorKind::Unavailable, message))
            }
        }
    }

    /// A connection outside the pool, for one who reads what the server says by itself.
    pub(crate) async fn connect(&self) -> Result<(tokio_postgres::Client, Messages)> {
        let (client, mut connection) =
            self.driver.connect(self.tls.clone()).await.map_err(|error| self.unconnected(&error))?;
        Ok((client, stream::poll_fn(move |context| connection.poll_message(context)).boxed()))
    }

    /// Whether the server answers.
    pub(crate) async fn ping(&self) -> Result<()> {
        let ping = async {
            let client = self.lease().await?;
            let answer = self.run(&client, "SELECT 1").await;
            client.give_back();
            answer
        };
        self.within(ping).await
    }

    /// The rows of one statement, on a connection of the pool and within the time limit.
    pub(crate) async fn fetch(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        let fetch = async {
            let client = self.lease().await?;
            let rows = self.query(&client, sql, parameters).await;
            client.give_back();
            rows
        };
        self.within(fetch).await
    }

    /// Runs one statement.
    pub(super) async fn query(&self, client: &Lease, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        let rows = if self.mode == ExecMode::CacheStatement {
            let types: Vec<_> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
            let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
            match client.prepare_typed_cached(sql, &types).await {
                Ok(statement) => client.query(&statement, &values).await,
                Err(error) => Err(error),
            }
        } else {
            client.query_typed(sql, parameters).await
        };
        rows.map_err(|error| self.explain(&error))
    }

    /// Runs one statement and counts the rows that it changed.
    pub(super) async fn execute(&self, client: &Lease, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64> {
        let count = if self.mode == ExecMode::CacheStatement {
            let types: Vec<_> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
            let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
            match client.prepare_typed_cached(sql, &types).await {
                Ok(statement) => client.execute(&statement, &values).await,
                Err(error) => Err(error),
            }
        } else {
            client.execute_typed(sql, parameters).await
        };
        count.map_err(|error| self.explain(&error))
    }

    /// Runs statements that have neither parameters nor results.
    pub(super) async fn run(&self, client: &Lease, sql: &str) -> Result<()> {
        client.batch_execute(sql).await.map_err(|error| self.explain(&error))
    }

    /// Says that it was the tables that could not be prepared.
    pub(super) fn unprepared(&self, error: ComponentError) -> ComponentError {
        let message = format!("tables at {} cannot be created or brought up to date: {error}", self.name);
        ComponentError::new(error.kind(), message).with_source(error)
    }

    pub(crate) fn close(&self) {
        self.pool.close();
    }

    /// Why there is no connection.
    fn unconnected(&self, error: &Error) -> ComponentError {
        if !is_disagreement(error) {
            return self.explain(error);
        }
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        ComponentError::new(ErrorKind::Denied, format!("no connection to postgresql at {}: {cause}", self.name))
    }

    /// What `error` means for the caller.
    pub(crate) fn explain(&self, error: &Error) -> ComponentError {
        let name = &self.name;
        let Some(answer) = error.as_db_error() else {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            let message = format!("postgresql at {name} cannot be reached: {error}{cause}");
            return ComponentError::new(ErrorKind::Unavailable, message);
        };
        let kind = kind(answer.code());
        let text = format!("{}: {} (SQLSTATE {})", answer.severity(), answer.message(), answer.code().code());
        let message = match kind {
            ErrorKind::Denied => format!("postgresql at {name} refused: {text}"),
            ErrorKind::Unavailable => format!("postgresql at {name} is not available: {text}"),
            _ => text,
        };
        ComponentError::new(kind, message).with_source(answer.clone())
    }
}

/// Whether the server answers, but client and server cannot agree: a password is asked for and none is set, or TLS is
/// asked for and not there. Neither comes with a SQLSTATE.
fn is_disagreement(error: &Error) -> bool {
    error.as_db_error().is_none() && error.source().is_some_and(|cause| !cause.is::<io::Error>())
}

/// What a SQLSTATE means for the caller.
fn kind(state: &SqlState) -> ErrorKind {
    if *state == SqlState::INVALID_CATALOG_NAME {
        return ErrorKind::InvalidMetadata;
    }
    if *state == SqlState::INSUFFICIENT_PRIVILEGE {
        return ErrorKind::Denied;
    }
    if *state == SqlState::QUERY_CANCELED {
        return ErrorKind::Timeout;
    }
    match state.code().get(..2) {
        Some("22") => ErrorKind::InvalidRequest,
        Some("28") => ErrorKind::Denied,
        // Connection lost, read-only server, conflict of transactions, out of resources, locked, shutting down.
        Some("08" | "25" | "40" | "53" | "55" | "57") => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

fn name(driver: &tokio_postgres::Config) -> String {
    let addresses = driver.get_hostaddrs().iter().map(ToString::to_string);
    let hosts = driver.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(folder) => folder.display().to_string(),
    });
    let ports = driver.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let names: Vec<_> = if driver.get_hosts().is_empty() { addresses.collect() } else { hosts.collect() };
    let names: Vec<_> = names.iter().enumerate().map(|(index, name)| format!("{name}:{}", port(index))).collect();
    names.join(",")
}

/// A connection that goes back to the pool when the operation has come to its end, well or not. One whose operation was
/// cut short is closed: an answer or a transaction may be outstanding on it.
pub(crate) struct Lease(Option<Client>);

impl Lease {
    pub(crate) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Deref for Lease {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        self.0.as_ref().expect("only give_back takes the client, and it consumes the lease")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Client::take(client));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_says_whether_trying_again_can_help() {
        for (state, expect) in [
            ("28P01", ErrorKind::Denied),
            ("42501", ErrorKind::Denied),
            ("3D000", ErrorKind::InvalidMetadata),
            ("22P02", ErrorKind::InvalidRequest),
            ("40P01", ErrorKind::Unavailable),
            ("53300", ErrorKind::Unavailable),
            ("57P01", ErrorKind::Unavailable),
            ("57014", ErrorKind::Timeout),
            ("42P01", ErrorKind::Internal),
        ] {
            assert_eq!(kind(&SqlState::from_code(state)), expect, "{state}");
        }
    }

    #[test]
    fn a_database_is_named_by_its_hosts_and_ports() {
        for (text, expect) in [
            ("host=a", "a:5432"),
            ("host=a,b port=1,2", "a:1,b:2"),
            ("host=/run/pg port=6000", "/run/pg:6000"),
            ("hostaddr=127.0.0.1", "127.0.0.1:5432"),
        ] {
            assert_eq!(name(&text.parse().expect("valid")), expect);
        }
    }
}
