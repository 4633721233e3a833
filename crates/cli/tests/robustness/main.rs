//! What the binaries bear: kill -9, stores that vanish, thousands of connections, requests that are none, hostile guests.
//!
//! Every test runs the real processes. What a machine cannot do is printed as NOT RUN, with the reason.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/running.rs"]
mod running;

mod connections;
mod crash;
mod guests;
mod memory;
mod messages;
mod requests;
mod stores;

use std::{future::Future, time::Duration};

use support::{HttpAnswer, http};
use tokio::time::{sleep, timeout};

/// A store that needs nothing.
const IN_MEMORY: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: mem }
spec: { type: state.in-memory, version: v1 }
";

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// One request that has to be answered in time.
async fn ask(port: u16, method: &str, path: &str, body: &[u8]) -> HttpAnswer {
    let answer = within(Duration::from_secs(20), "an answer", http(port, method, path, JSON, body)).await;
    answer.unwrap_or_else(|| panic!("{method} {path} was not answered"))
}

async fn status(port: u16, path: &str) -> u16 {
    ask(port, "GET", path, b"").await.status
}

/// Waits for what must not take longer.
async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    timeout(limit, future).await.unwrap_or_else(|_| panic!("{what} took longer than {limit:?}"))
}

/// Tries until it succeeds, for as long as `limit`.
async fn eventually(limit: Duration, what: &str, mut attempt: impl AsyncFnMut() -> bool) {
    let trying = async {
        while !attempt().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    within(limit, what, trying).await;
}

fn text(answer: &HttpAnswer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}
