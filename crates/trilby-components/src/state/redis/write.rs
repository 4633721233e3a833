//! Writing: state requests become operations of one Lua script that applies all of them or none.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, Value};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, Result,
    json::Style,
    state::{Concurrency, DeleteRequest, SetRequest},
};

use super::{
    document,
    endpoint::Connection,
    link::{Read, Request},
};
use crate::state::ttl;

/// Loaded into the server when it does not know it yet, then called by its hash.
static APPLY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("apply.lua")));

/// What Redis takes for a number of seconds: it adds them, as milliseconds, to the time of day.
const MAX_TTL_SECONDS: i64 = 1 << 52;

/// Longest time in milliseconds that replicas have to confirm a write of strong consistency. As Dapr, a write counts
/// even if they do not: it cannot be taken back.
const REPLICA_WAIT_MILLIS: u32 = 1000;

/// How an item is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A hash of data and version.
    Hash,
    /// A RedisJSON document of data and version.
    Json,
}

/// One operation of the script.
pub(super) struct Operation<'a> {
    key: &'a str,
    kind: Kind,
    /// The version that the item must have, `0` for any.
    expected: String,
    /// Whether the request named an etag, which decides how its refusal is reported.
    has_etag: bool,
    change: Change,
}

enum Change {
    Set {
        data: Bytes,
        /// Whether writes that name no etag are to be refused from now on.
        first_write: bool,
        /// Seconds to live: 0 ends an earlier limit, `None` leaves it alone.
        ttl: Option<i64>,
    },
    Delete,
}

impl<'a> Operation<'a> {
    /// # Errors
    /// `EtagInvalid` for an etag that is not a version; `InvalidRequest` for a bad TTL or a value that is not JSON.
    pub(super) fn set(request: &'a SetRequest, kind: Kind, default_ttl: Option<i64>) -> Result<Self> {
        let etag = request.etag.as_deref().filter(|etag| !etag.is_empty());
        let expected = match etag {
            Some(etag) if request.options.concurrency != Concurrency::LastWrite => parse_version(etag)?,
            _ => 0,
        };
        let ttl = parse_ttl(&request.metadata)?.or(default_ttl);
        let data = match kind {
            Kind::Hash => request.value.encode(Style::Fast)?,
            Kind::Json => document::encode(&request.value)?,
        };
        let first_write = request.options.concurrency == Concurrency::FirstWrite;
        let change = Change::Set { data, first_write, ttl: ttl.map(|seconds| seconds.max(0)) };
        Ok(Self { key: &request.key, kind, expected: expected.to_string(), has_etag: etag.is_some(), change })
    }

    pub(super) fn delete(request: &'a DeleteRequest, kind: Kind) -> Self {
        let etag = request.etag.as_deref().filter(|etag| !etag.is_empty());
        let expected = etag.unwrap_or("0").to_owned();
        Self { key: &request.key, kind, expected, has_etag: etag.is_some(), change: Change::Delete }
    }

    /// Dapr does not mark items in transactions, only when they are saved alone.
    pub(super) fn without_first_write(mut self) -> Self {
        if let Change::Set { first_write, .. } = &mut self.change {
            *first_write = false;
        }
        self
    }

    fn is_repeatable(&self) -> bool {
        self.expected == "0" && !matches!(self.change, Change::Set { first_write: true, .. })
    }

    fn write_arguments(&self, command: &mut Cmd) {
        let kind = match self.kind {
            Kind::Hash => "hash",
            Kind::Json => "json",
        };
        match &self.change {
            Change::Delete => command.arg("delete").arg(kind).arg(&self.expected).arg("").arg("").arg(""),
            Change::Set { data, first_write, ttl } => command
                .arg("set")
                .arg(kind)
                .arg(&self.expected)
                .arg(&data[..])
                .arg(u8::from(*first_write))
                .arg(ttl.map(|seconds| seconds.to_string()).unwrap_or_default()),
        };
    }

    fn refusal(&self) -> ComponentError {
        let key = self.key;
        match self.change {
            Change::Delete => ComponentError::etag_mismatch(format!("failed to delete {key}")),
            Change::Set { .. } if self.has_etag => ComponentError::etag_mismatch(format!("failed to set key {key}")),
            Change::Set { .. } => ComponentError::new(
                ErrorKind::Internal,
                format!("failed to set key {key}: it was saved with first-write, so it can only be changed with its etag"),
            ),
        }
    }
}

/// A call of the script.
pub(super) struct Apply<'a> {
    operations: &'a [Operation<'a>],
    /// The call alone, or followed by the wait for replicas.
    commands: Pipeline,
}

impl<'a> Apply<'a> {
    /// `replicas` is how many have to confirm the write; 0 waits for none.
    pub(super) fn new(operations: &'a [Operation<'a>], replicas: u64) -> Self {
        let mut call = redis::cmd("EVALSHA");
        call.arg(APPLY.get_hash()).arg(operations.len());
        for operation in operations {
            call.arg(operation.key);
        }
        for operation in operations {
            operation.write_arguments(&mut call);
        }
        let mut commands = redis::pipe();
        commands.add_command(call).ignore_errors();
        if replicas > 0 {
            commands.cmd("WAIT").arg(replicas).arg(REPLICA_WAIT_MILLIS);
        }
        Self { operations, commands }
    }

    /// Reads the script's reply.
    pub(super) fn check(&self, refused: usize) -> Result<()> {
        match refused.checked_sub(1).and_then(|index| self.operations.get(index)) {
            None => Ok(()),
            Some(operation) => Err(operation.refusal()),
        }
    }
}

impl Request for Apply<'_> {
    type Reply = usize;

    fn is_repeatable(&self) -> bool {
        self.operations.iter().all(Operation::is_repeatable)
    }

    async fn send(&self, connection: &mut Connection) -> RedisResult<usize> {
        match self.run(connection).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                APPLY.load_async(connection).await?;
                self.run(connection).await
            }
            other => other,
        }
    }
}

impl Apply<'_> {
    async fn run(&self, connection: &mut Connection) -> RedisResult<usize> {
        let replies: Vec<RedisResult<Value>> = self.commands.query_async(connection).await?;
        let reply = replies.into_iter().next().unwrap_or(Ok(Value::Nil))?;
        redis::from_redis_value(reply).map_err(RedisError::from)
    }
}

/// A version in the words that Go has for what is not one.
fn parse_version(etag: &str) -> Result<i64> {
    ttl::parse_go_integer(etag, "Atoi").map_err(|error| ComponentError::new(ErrorKind::EtagInvalid, error))
}

fn parse_ttl(metadata: &Metadata) -> Result<Option<i64>> {
    let _ = Read;
    todo!()
}
