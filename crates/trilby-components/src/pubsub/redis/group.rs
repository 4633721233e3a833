//! A consumer group of one stream: what is asked of Redis about it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::{Cmd, Value as Reply};
use tokio::time;
use trilby_component::{CancellationToken, Result};

use super::entry::{self, Entry, Id};
use crate::redis::{Config, Link, Repeatable};

/// Between attempts while the server is away or refuses.
const PAUSE: Duration = Duration::from_millis(500);

/// Pending entries that are looked at together.
const PAGE: usize = 100;

/// How long a read may take where the metadata set no limit.
const READ_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Group {
    /// Its connection waits for new entries, and everything behind that would wait too.
    reader: Link,
    /// For everything else.
    link: Arc<Link>,
    topic: String,
    /// Of the group, and of the one consumer in it.
    name: String,
    /// Longest time that Redis holds back an answer because there is nothing new.
    block: Duration,
    read_limit: Duration,
    write_limit: Option<Duration>,
}

impl Group {
    pub(super) fn new(config: &Config, link: Arc<Link>, topic: &str, name: &str) -> Result<Self> {
        let limit = config.read_timeout().unwrap_or(READ_LIMIT);
        // The driver limits every answer of a cluster by itself, also those that are held back.
        let block = limit / 2;
        Ok(Self {
            reader: Link::new(config)?,
            link,
            topic: topic.to_owned(),
            name: name.to_owned(),
            block,
            read_limit: limit + block,
            write_limit: config.write_timeout(),
        })
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Sees to it that the group and its stream exist.
    pub(super) async fn create(&self) -> Result<()> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.topic).arg(&self.name).arg("0").arg("MKSTREAM");
        match self.link.call(&Repeatable(command), self.write_limit).await {
            Err(error) if error.to_string().starts_with("BUSYGROUP") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Waits until there are new entries, through restarts of the server if need be. Entries that Redis hands out while
    /// this is dropped stay pending.
    pub(super) async fn read(&self, count: usize) -> Vec<Entry> {
        let (topic, mut is_failing) = (&self.topic, false);
        loop {
            match self.try_read(count).await {
                Ok(entries) => {
                    if is_failing {
                        tracing::info!(topic, "reading from redis again");
                        is_failing = false;
                    }
                    if !entries.is_empty() {
                        return entries;
                    }
                }
                Err(error) => {
                    if !is_failing {
                        tracing::warn!(topic, %error, "cannot read from redis; trying again until it works");
                        is_failing = true;
                    }
                    time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_read(&self, count: usize) -> Result<Vec<Entry>> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.name).arg(&self.name).arg("COUNT").arg(count);
        command.arg("BLOCK").arg(millis(self.block)).arg("STREAMS").arg(&self.topic).arg(">");
        match self.reader.call(&command, Some(self.read_limit)).await {
            Ok(reply) => Ok(entry::decode_read(reply)),
            // The server lost its data, or somebody deleted the stream.
            Err(error) if error.to_string().starts_with("NOGROUP") => {
                tracing::warn!(topic = self.topic, "the consumer group is gone from redis; creating it anew");
                self.create().await.map(|()| Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Acknowledges entries, through restarts of the server if need be; once `stop` is cancelled, failing is final.
    pub(super) async fn acknowledge(&self, ids: Vec<Id>, stop: &CancellationToken) -> Vec<Id> {
        let mut command = redis::cmd("XACK");
        command.arg(&self.topic).arg(&self.name).arg(&ids);
        let command = Repeatable(command);
        while let Err(error) = self.link.call(&command, self.write_limit).await {
            if stop.is_cancelled() {
                tracing::warn!(topic = self.topic, %error, "handled entries could not be acknowledged; they will come again");
                break;
            }
            let _ = time::timeout(PAUSE, stop.cancelled()).await;
        }
        ids
    }

    /// Takes over entries that have been pending for `idle`, at most `room`, without those that are `in_hand` here.
    pub(super) async fn claim(&self, idle: Duration, room: usize, in_hand: &HashSet<Id>) -> Result<Vec<Entry>> {
        let (mut claimed, mut from) = (Vec::new(), Id::MIN);
        while claimed.len() < room {
            let mut command = redis::cmd("XPENDING");
            command.arg(&self.topic).arg(&self.name).arg(from).arg("+").arg(PAGE);
            let pending = entry::decode_pending(self.link.call(&Repeatable(command), self.write_limit).await?);
            let is_due = |row: &&entry::Pending| row.idle_millis >= millis(idle) && !in_hand.contains(&row.id);
            let due: Vec<_> = pending.iter().filter(is_due).map(|row| row.id).take(room - claimed.len()).collect();
            if !due.is_empty() {
                claimed.append(&mut self.claim_these(idle, &due).await?);
            }
            match pending.last() {
                Some(last) if pending.len() == PAGE => from = last.id.next(),
                _ => break,
            }
        }
        Ok(claimed)
    }

    async fn claim_these(&self, idle: Duration, ids: &[Id]) -> Result<Vec<Entry>> {
        let reply = self.link.call(&self.claim_command(idle, ids), self.write_limit).await?;
        let has_gone = matches!(&reply, Reply::Array(entries) if entries.contains(&Reply::Nil));
        let claimed = entry::decode_entries(reply);
        // From version 7 on, Redis itself forgets entries that were trimmed away while they were pending.
        if has_gone {
            let is_claimed: HashSet<_> = claimed.iter().map(|entry| entry.id).collect();
            self.forget_gone(ids.iter().filter(|id| !is_claimed.contains(id))).await?;
        }
        Ok(claimed)
    }

    /// Acknowledges those of the entries that are not in the stream any more.
    async fn forget_gone(&self, ids: impl Iterator<Item = &Id>) -> Result<()> {
        for id in ids {
            let mut command = redis::cmd("XRANGE");
            command.arg(&self.topic).arg(id).arg(id);
            let found = self.link.call(&Repeatable(command), self.write_limit).await?;
            if found == Reply::Array(Vec::new()) {
                let mut command = redis::cmd("XACK");
                command.arg(&self.topic).arg(&self.name).arg(id);
                self.link.call(&Repeatable(command), self.write_limit).await?;
            }
        }
        Ok(())
    }

    /// Makes pending entries count as pending for `idle` from now: zero keeps others from taking them over, more lets
    /// them.
    pub(super) async fn set_idle(&self, ids: &[Id], idle: Duration) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut command = self.claim_command(Duration::ZERO, ids);
        command.arg("IDLE").arg(millis(idle)).arg("JUSTID");
        self.link.call(&Repeatable(command), self.write_limit).await.map(drop)
    }

    fn claim_command(&self, idle: Duration, ids: &[Id]) -> Cmd {
        let mut command = redis::cmd("XCLAIM");
        command.arg(&self.topic).arg(&self.name).arg(&self.name).arg(millis(idle)).arg(ids);
        command
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
