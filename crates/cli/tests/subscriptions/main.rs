//! What a daprd delivers to its app from the topics that it subscribes to, over HTTP, over gRPC and over streams.

#[path = "../support/mod.rs"]
mod support;

mod callbacks;
mod grpc;
mod health;
mod http;
mod stream;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use support::{Daprd, DaprdOptions};
use trilby_proto::runtime::v1::{PublishEventRequest, dapr_client::DaprClient};

const BROKER: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: mypub}
spec: {type: pubsub.in-memory, version: v1}
";

async fn start(options: DaprdOptions) -> Daprd {
    Daprd::start(DaprdOptions { components: format!("{BROKER}{}", options.components), ..options }).await
}

/// Publishes JSON as an app does.
async fn publish(daprd: &Daprd, topic: &str, data: &str) {
    let request = PublishEventRequest {
        pubsub_name: "mypub".into(),
        topic: topic.into(),
        data: data.to_owned().into(),
        data_content_type: "application/json".into(),
        metadata: HashMap::new(),
    };
    DaprClient::new(daprd.grpc_channel()).publish_event(request).await.expect("published");
}

/// Looks until there is something.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
