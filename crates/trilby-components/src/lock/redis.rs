//! `lock.redis`: each lock a key in Redis that holds its owner and expires by itself.
//!
//! One server, or one behind sentinels. As with Dapr, a cluster is refused, and so are replicas without sentinels: a
//! replica that takes over may not know of a lock yet.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::Value as Reply;
use trilby_component::{
    ComponentError, ErrorKind, OpenRequest, Result,
    lock::{LockStore, UnlockStatus},
};

use crate::redis::{Config, Link, Pauses, Topology};

/// Deletes the key if it holds the owner: 1 if it did, -1 if there is no such key, -2 if it holds somebody else.
const UNLOCK: &str = r#"
local owner = redis.call("GET", KEYS[1])
if not owner then return -1 end
if owner ~= ARGV[1] then return -2 end
return redis.call("DEL", KEYS[1])
"#;

/// Connects. The settings are those of every component over Redis.
///
/// # Errors
/// `InvalidMetadata`, also for servers that cannot hold locks; `Unavailable` or `Timeout` if the server cannot be
/// reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn LockStore>> {
    let config = Config::parse(&request.properties, Pauses::STORE)?;
    if config.redis_type == Topology::Cluster {
        return Err(ComponentError::metadata("this component does not support connecting to Redis Cluster"));
    }
    let link = Link::open(&config).await?;
    // Some servers do not know INFO; Dapr trusts those.
    let replicas = link.count_replicas(config.read_timeout()).await.unwrap_or(0);
    if replicas > 0 && !config.failover {
        return Err(ComponentError::metadata("replication is not supported"));
    }
    Ok(Arc::new(Redis { link, config }))
}

struct Redis {
    link: Link,
    config: Config,
}

#[async_trait]
impl LockStore for Redis {
    async fn try_lock(&self, resource: &str, owner: &str, expiry: Duration) -> Result<bool> {
        let mut command = redis::cmd("SET");
        let millis = u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 62);
        command.arg(resource).arg(owner).arg("NX").arg("PX").arg(millis);
        self.link.call(&command, self.config.write_timeout()).await.map(|reply| reply == Reply::Okay)
    }

    async fn unlock(&self, resource: &str, owner: &str) -> Result<UnlockStatus> {
        let mut command = redis::cmd("EVAL");
        command.arg(UNLOCK).arg(1).arg(resource).arg(owner);
        match self.link.call(&command, self.config.write_timeout()).await? {
            Reply::Int(0..) => Ok(UnlockStatus::Success),
            Reply::Int(-1) => Ok(UnlockStatus::LockDoesNotExist),
            Reply::Int(-2) => Ok(UnlockStatus::LockBelongsToOthers),
            other => Err(ComponentError::new(ErrorKind::Internal, format!("not a reply to an unlock: {other:?}"))),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.link.ping(self.config.read_timeout()).await
    }

    async fn close(&self) {
        self.link.close();
    }
}
