//! The cases, one file a block, and the few words in which they are written.

pub mod bindings;
pub mod configuration;
pub mod conversation;
pub mod crypto;
pub mod lock;
pub mod pubsub;
pub mod secrets;
pub mod state;

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::client::Client;

/// Nothing, or what was wrong.
pub type Outcome = Result<(), String>;

/// A case on its way.
pub type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// One sentence about a block, and how to find out whether it holds.
pub struct Case {
    /// The sentence, with underscores.
    pub name: &'static str,
    /// Features that a component must have for it, by Dapr's names.
    pub needs: Vec<&'static str>,
    /// Finds out, with a client and the component's name.
    pub run: for<'a> fn(&'a dyn Client, &'a str) -> Running<'a>,
}

impl Case {
    fn new(
        name: &'static str,
        needs: Vec<&'static str>,
        run: for<'a> fn(&'a dyn Client, &'a str) -> Running<'a>,
    ) -> Self {
        Self { name, needs, run }
    }
}

/// A name that no other case and no earlier run uses, of letters that every store takes.
fn unique(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{name}_{}_{}", std::process::id(), now.as_nanos())
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn check_eq<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Outcome {
    check(found == expected, || format!("{what}: found {found:?}, expected {expected:?}"))
}

/// Repeats `attempt` until it says true, at most for `patience`.
async fn keep_trying<F: Future<Output = Result<bool, String>>>(patience: Duration, attempt: impl Fn() -> F) -> Outcome {
    let started = Instant::now();
    while !attempt().await? {
        check(started.elapsed() < patience, || format!("did not happen within {patience:?}"))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
