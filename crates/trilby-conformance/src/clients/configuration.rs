//! Configuration through each door. Over HTTP and WIT changes come as calls to the app.

use std::time::Duration;

use async_trait::async_trait;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, time::sleep};
use trilby_component::{Metadata, configuration::Items};
use trilby_core::Ctx;
use trilby_proto::runtime::v1::{
    GetConfigurationRequest, SubscribeConfigurationRequest, UnsubscribeConfigurationRequest,
};

use super::{Embedded, Grpc, Http, Wasm, embedded, grpc};
use crate::{
    backends,
    client::{Answer, ConfigurationClient, Failure, FailureKind, StateClient as _, Values, Watching},
};

/// Changes that wait for a case.
const QUEUE: usize = 16;
/// Between two looks at what a guest noted.
const PAUSE: Duration = Duration::from_millis(20);

fn broken(text: impl ToString) -> Failure {
    Failure { kind: FailureKind::Other, text: text.to_string() }
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[async_trait]
impl ConfigurationClient for Embedded {
    async fn get_configuration(&self, store: &str, keys: &[&str]) -> Answer<Values> {
        let items = self.0.configuration.get(&Ctx::default(), store, &owned(keys), &Metadata::new()).await;
        items.map(of_items).map_err(embedded::failure)
    }

    async fn watch_configuration(&self, store: &str, keys: &[&str]) -> Answer<Watching> {
        let stream = self.0.configuration.stream(&Ctx::default(), store, &owned(keys), &Metadata::new()).await;
        let mut stream = stream.map_err(embedded::failure)?;
        let id = stream.id().to_owned();
        let (sender, changes) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Some(items) = stream.next().await {
                if sender.send(of_items(items)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Watching { id: Some(id), changes, is_stream: true })
    }

    async fn unwatch_configuration(&self, store: &str, id: &str) -> Answer<()> {
        self.0.configuration.unsubscribe(store, id).map_err(embedded::failure)
    }
}

fn of_items(items: Items) -> Values {
    items.into_iter().map(|(key, item)| (key, item.value)).collect()
}

#[async_trait]
impl ConfigurationClient for Http {
    async fn get_configuration(&self, store: &str, keys: &[&str]) -> Answer<Values> {
        let query: Vec<_> = keys.iter().map(|key| format!("key={key}")).collect();
        let path = format!("/v1.0/configuration/{store}?{}", query.join("&"));
        let (parts, body) = self.call(Method::GET, &path, None, String::new()).await?;
        if parts.status == StatusCode::NO_CONTENT {
            return Ok(Values::new());
        }
        let items: Map<_, _> = serde_json::from_slice(&body).map_err(broken)?;
        of_json(items)
    }

    async fn watch_configuration(&self, store: &str, keys: &[&str]) -> Answer<Watching> {
        #[derive(Deserialize)]
        struct Subscribed {
            id: String,
        }
        let inbox = self.inbox.as_ref().ok_or_else(|| broken("this door's app is no server"))?;
        let query: Vec<_> = keys.iter().map(|key| format!("key={key}")).collect();
        let path = format!("/v1.0/configuration/{store}/subscribe?{}", query.join("&"));
        let (_, body) = self.call(Method::GET, &path, None, String::new()).await?;
        let Subscribed { id } = serde_json::from_slice(&body).map_err(broken)?;
        let (sender, changes) = mpsc::channel(QUEUE);
        inbox.watch(&id, sender);
        Ok(Watching { id: Some(id), changes, is_stream: false })
    }

    async fn unwatch_configuration(&self, store: &str, id: &str) -> Answer<()> {
        let path = format!("/v1.0/configuration/{store}/{id}/unsubscribe");
        self.call(Method::GET, &path, None, String::new()).await.map(drop)
    }
}

fn of_json(items: Map<String, Value>) -> Answer<Values> {
    let value = |(key, item): (String, Value)| {
        let value = item["value"].as_str().ok_or_else(|| broken(&item))?.to_owned();
        Ok((key, value))
    };
    items.into_iter().map(value).collect()
}

#[async_trait]
impl ConfigurationClient for Grpc {
    async fn get_configuration(&self, store: &str, keys: &[&str]) -> Answer<Values> {
        let request = GetConfigurationRequest {
            store_name: store.into(),
            keys: owned(keys),
            ..GetConfigurationRequest::default()
        };
        let answer = self.0.clone().get_configuration(request).await.map_err(grpc::failure)?.into_inner();
        Ok(answer.items.into_iter().map(|(key, item)| (key, item.value)).collect())
    }

    async fn watch_configuration(&self, store: &str, keys: &[&str]) -> Answer<Watching> {
        let request = SubscribeConfigurationRequest {
            store_name: store.into(),
            keys: owned(keys),
            ..SubscribeConfigurationRequest::default()
        };
        let answers = self.0.clone().subscribe_configuration(request).await.map_err(grpc::failure)?;
        let mut answers = answers.into_inner();
        let first = answers.message().await.map_err(grpc::failure)?.ok_or_else(|| broken("no first message"))?;
        if !first.items.is_empty() {
            return Err(broken("the first message carries more than the id"));
        }
        let (sender, changes) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                let items = answer.items.into_iter().map(|(key, item)| (key, item.value)).collect();
                if sender.send(items).await.is_err() {
                    break;
                }
            }
        });
        Ok(Watching { id: Some(first.id), changes, is_stream: true })
    }

    async fn unwatch_configuration(&self, store: &str, id: &str) -> Answer<()> {
        let request = UnsubscribeConfigurationRequest { store_name: store.into(), id: id.into() };
        let answer = self.0.clone().unsubscribe_configuration(request).await.map_err(grpc::failure)?.into_inner();
        if answer.ok { Ok(()) } else { Err(broken(answer.message)) }
    }
}

#[async_trait]
impl ConfigurationClient for Wasm {
    async fn get_configuration(&self, store: &str, keys: &[&str]) -> Answer<Values> {
        match self.call(json!({ "op": "get-configuration", "store": store, "keys": keys })).await? {
            Value::Object(items) => of_json(items),
            other => Err(broken(other)),
        }
    }

    async fn watch_configuration(&self, store: &str, keys: &[&str]) -> Answer<Watching> {
        let &[key] = keys else { return Err(broken("the mirror guest watches one key")) };
        let (sender, changes) = mpsc::channel(QUEUE);
        let (guest, key, noted) = (self.clone(), key.to_owned(), format!("changed-{store}-{key}"));
        tokio::spawn(async move {
            let mut last = None;
            while !sender.is_closed() {
                let item = guest.get(backends::NOTES, &noted).await.ok().flatten();
                let value = item.map(|item| String::from_utf8_lossy(&item.value).into_owned());
                if let Some(value) = value.clone().filter(|_| value != last)
                    && sender.send(vec![(key.clone(), value)]).await.is_err()
                {
                    break;
                }
                last = value;
                sleep(PAUSE).await;
            }
        });
        Ok(Watching { id: None, changes, is_stream: false })
    }

    fn watched_key(&self) -> Option<&'static str> {
        Some(backends::WATCHED_KEY)
    }

    async fn unwatch_configuration(&self, _: &str, id: &str) -> Answer<()> {
        Err(broken(format!("a guest has no subscription such as {id}")))
    }
}
