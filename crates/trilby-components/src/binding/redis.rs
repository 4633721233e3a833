//! `bindings.redis`: single keys of Redis, written, read, counted up and deleted.
//!
//! The metadata `key` of a call names the key. `create` and `increment` take `ttl` or `ttlInSeconds` as well; `get`
//! takes `delete: "true"` to take the value away with it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::{Cmd, Value as Reply};
use trilby_component::{
    ComponentError, ErrorKind, OpenRequest, Result,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
};

use crate::{
    redis::{Config, Link, Pauses, Repeatable},
    ttl,
};

/// Connects. The settings are those of every component over Redis.
///
/// # Errors
/// `InvalidMetadata`; `Unavailable` or `Timeout` if the server cannot be reached; `Denied` if it refuses the login.
pub async fn open(request: OpenRequest) -> Result<Arc<Binding>> {
    let config = Config::parse(&request.properties, Pauses::OTHERS)?;
    let output = Redis {
        link: Link::open(&config).await?,
        read_timeout: config.read_timeout(),
        write_timeout: config.write_timeout(),
    };
    Ok(Arc::new(Binding { input: None, output: Some(Arc::new(output)) }))
}

struct Redis {
    link: Link,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

#[async_trait]
impl OutputBinding for Redis {
    fn operations(&self) -> &[&'static str] {
        &["create", "delete", "get", "increment"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        let named = request.metadata.get("key").filter(|key| !key.is_empty());
        let key = named.ok_or_else(|| ComponentError::request("redis binding: missing key in request metadata"))?;
        let life = ttl::parse(&request.metadata)?;
        match request.operation.as_str() {
            "create" => self.create(key, &request.data, life).await?,
            "delete" => self.delete(key).await?,
            "increment" => self.increment(key, life).await?,
            "get" => {
                let and_delete = request.metadata.get("delete").is_some_and(|text| text == "true");
                return Ok(self.get(key, and_delete).await?);
            }
            other => return Err(ComponentError::request(format!("invalid operation type: {other}")).into()),
        }
        Ok(InvokeResponse::default())
    }

    async fn ping(&self) -> Result<()> {
        self.link.ping(self.read_timeout).await
    }

    async fn close(&self) {
        self.link.close();
    }
}

impl Redis {
    async fn create(&self, key: &str, data: &[u8], life: Option<Duration>) -> Result<()> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(data);
        if let Some(life) = life {
            command.arg("PX").arg(millis(life));
        }
        self.link.call(&Repeatable(command), self.write_timeout).await.map(drop)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.link.call(&Repeatable(on("DEL", key)), self.write_timeout).await.map(drop)
    }

    async fn increment(&self, key: &str, life: Option<Duration>) -> Result<()> {
        self.link.call(&on("INCR", key), self.write_timeout).await?;
        if let Some(life) = life {
            let mut command = on("PEXPIRE", key);
            command.arg(millis(life));
            self.link.call(&Repeatable(command), self.write_timeout).await?;
        }
        Ok(())
    }

    async fn get(&self, key: &str, and_delete: bool) -> Result<InvokeResponse> {
        let reply = if and_delete {
            self.link.call(&on("GETDEL", key), self.write_timeout).await?
        } else {
            self.link.call(&Repeatable(on("GET", key)), self.read_timeout).await?
        };
        let data = match reply {
            Reply::Nil => None,
            Reply::BulkString(data) => Some(data.into()),
            other => return Err(ComponentError::new(ErrorKind::Internal, format!("not a reply to a get: {other:?}"))),
        };
        Ok(InvokeResponse { data, ..InvokeResponse::default() })
    }
}

fn on(name: &str, key: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

/// Redis takes no life of zero, and cannot add more than 140 million years to the time of day.
fn millis(life: Duration) -> u64 {
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 62)
}
