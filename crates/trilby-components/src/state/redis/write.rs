//! Writing: state requests become changes of one Lua script that applies all of them or none.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, Value};
use trilby_component::{
    ComponentError, ErrorKind, Metadata, Result,
    state::{Concurrency, DeleteRequest, SetRequest, TTL_IN_SECONDS},
};

use super::format::Format;
use crate::{
    redis::{Connection, Request},
    state::go_integer,
};

/// Loaded into the server when it does not know it yet, then called by its hash.
static APPLY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("apply.lua")));

/// The most seconds that Redis can add to the time of day, 140 million years. More would fail halfway through a write.
const MAX_TTL_SECONDS: i64 = 1 << 52;

/// Longest time in milliseconds that replicas have to confirm a write of strong consistency. As Dapr, a write counts
/// even if they do not: it cannot be taken back.
const REPLICA_WAIT_MILLIS: u32 = 1000;

/// One operation of the script, ready to be sent.
pub(super) struct Change<'a> {
    key: &'a str,
    format: Format,
    /// The version that the item must have, `0` for any.
    expected: String,
    /// Whether the request named an etag, which decides how its refusal is reported.
    has_etag: bool,
    action: Action,
}

enum Action {
    Set {
        data: Bytes,
        /// Whether writes that name no etag are to be refused from now on.
        first_write: bool,
        /// Seconds to live: 0 ends an earlier limit, `None` leaves it alone.
        ttl: Option<i64>,
    },
    Delete,
}

impl<'a> Change<'a> {
    /// # Errors
    /// `EtagInvalid` for an etag that is not a version; `InvalidRequest` for a bad TTL or a value that is not JSON.
    pub(super) fn set(request: &'a SetRequest, format: Format, default_ttl: Option<i64>) -> Result<Self> {
        let etag = request.etag.as_deref().filter(|etag| !etag.is_empty());
        let expected = match etag {
            Some(etag) if request.options.concurrency != Concurrency::LastWrite => parse_version(etag)?,
            _ => 0,
        };
        let ttl = parse_ttl(&request.metadata)?.or(default_ttl).map(|seconds| seconds.clamp(0, MAX_TTL_SECONDS));
        let data = format.encode(&request.value)?;
        let first_write = request.options.concurrency == Concurrency::FirstWrite;
        let action = Action::Set { data, first_write, ttl };
        Ok(Self { key: &request.key, format, expected: expected.to_string(), has_etag: etag.is_some(), action })
    }

    pub(super) fn delete(request: &'a DeleteRequest, format: Format) -> Self {
        let etag = request.etag.as_deref().filter(|etag| !etag.is_empty());
        let expected = etag.unwrap_or("0").to_owned();
        Self { key: &request.key, format, expected, has_etag: etag.is_some(), action: Action::Delete }
    }

    /// Dapr marks no item that is saved in a transaction.
    pub(super) fn without_mark(mut self) -> Self {
        if let Action::Set { first_write, .. } = &mut self.action {
            *first_write = false;
        }
        self
    }

    fn is_repeatable(&self) -> bool {
        self.expected == "0" && !matches!(self.action, Action::Set { first_write: true, .. })
    }

    fn write_arguments(&self, command: &mut Cmd) {
        let format = self.format.name();
        match &self.action {
            Action::Delete => command.arg("delete").arg(format).arg(&self.expected).arg("").arg("").arg(""),
            Action::Set { data, first_write, ttl } => command
                .arg("set")
                .arg(format)
                .arg(&self.expected)
                .arg(&data[..])
                .arg(u8::from(*first_write))
                .arg(ttl.map(|seconds| seconds.to_string()).unwrap_or_default()),
        };
    }

    fn refusal(&self) -> ComponentError {
        let key = self.key;
        match self.action {
            Action::Delete => ComponentError::etag_mismatch(format!("failed to delete {key}")),
            Action::Set { .. } if self.has_etag => ComponentError::etag_mismatch(format!("failed to set key {key}")),
            Action::Set { .. } => ComponentError::new(
                ErrorKind::Internal,
                format!(
                    "failed to set key {key}: it was saved with first-write, so it can only be changed with its etag"
                ),
            ),
        }
    }
}

/// A call of the script.
pub(super) struct Apply<'a> {
    changes: &'a [Change<'a>],
    /// The call alone, or followed by the wait for replicas.
    commands: Pipeline,
}

impl<'a> Apply<'a> {
    /// `replicas` is how many have to confirm the write; 0 waits for none.
    pub(super) fn new(changes: &'a [Change<'a>], replicas: u64) -> Self {
        let mut call = redis::cmd("EVALSHA");
        call.arg(APPLY.get_hash()).arg(changes.len());
        for change in changes {
            call.arg(change.key);
        }
        for change in changes {
            change.write_arguments(&mut call);
        }
        let mut commands = redis::pipe();
        commands.add_command(call).ignore_errors();
        if replicas > 0 {
            commands.cmd("WAIT").arg(replicas).arg(REPLICA_WAIT_MILLIS);
        }
        Self { changes, commands }
    }

    /// Reads the script's reply.
    pub(super) fn check(&self, refused: usize) -> Result<()> {
        match refused.checked_sub(1).and_then(|index| self.changes.get(index)) {
            None => Ok(()),
            Some(change) => Err(change.refusal()),
        }
    }
}

impl Request for Apply<'_> {
    type Reply = usize;

    fn is_repeatable(&self) -> bool {
        self.changes.iter().all(Change::is_repeatable)
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

fn parse_version(etag: &str) -> Result<i64> {
    go_integer::parse(etag, "Atoi").map_err(|reason| ComponentError::new(ErrorKind::EtagInvalid, reason))
}

fn parse_ttl(metadata: &Metadata) -> Result<Option<i64>> {
    let Some(text) = metadata.get(TTL_IN_SECONDS).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    go_integer::parse(text, "ParseInt")
        .map(Some)
        .map_err(|reason| ComponentError::request(format!("failed to parse ttl from metadata: {reason}")))
}
