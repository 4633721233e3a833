//! What every configuration store must do, as an application sees it. No door writes configuration, so values are set
//! through bindings to the same servers.

use std::time::Duration;

use serde_json::json;
use tokio::{sync::mpsc::Receiver, time::timeout};

use super::{Case, Outcome, check, check_eq, unique};
use crate::{
    backends::{CHANGING_FILE, FIXED},
    client::{Client, Values, Watching},
};

/// How long a change may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must arrive to count as never.
const SILENCE: Duration = Duration::from_millis(500);

/// The case about reading, for the file that another case changes.
pub const READING: &str = "values_are_read_and_missing_keys_left_out";
/// The case about changes, for the file that does not change.
pub const WATCHING: &str = "a_change_reaches_whoever_watches_until_they_unsubscribe";

/// All cases.
#[must_use]
pub fn all() -> Vec<Case> {
    vec![
        Case::new(READING, Vec::new(), |c, s| Box::pin(reads(c, s))),
        Case::new(WATCHING, Vec::new(), |c, s| Box::pin(watches(c, s))),
        Case::new("a_configuration_store_that_does_not_exist_is_an_error_that_names_it", Vec::new(), |c, _| {
            Box::pin(missing(c))
        }),
    ]
}

async fn reads(c: &dyn Client, s: &str) -> Outcome {
    let (key, value) = if s == FIXED.name {
        (FIXED.key.to_owned(), FIXED.value)
    } else {
        let key = unique("key");
        set(c, s, &key, 1).await?;
        (key, "1")
    };
    let read = c.get_configuration(s, &[&key, "nope"]).await.map_err(|failure| failure.to_string())?;
    check_eq("values", read, vec![(key, value.to_owned())])?;
    let read = c.get_configuration(s, &["nope"]).await.map_err(|failure| failure.to_string())?;
    check_eq("values of missing keys", read, Vec::new())
}

async fn watches(c: &dyn Client, s: &str) -> Outcome {
    let key = &c.watched_key().map_or_else(|| unique("key"), str::to_owned);
    set(c, s, key, 1).await?;
    let watching = c.watch_configuration(s, &[key]).await.map_err(|failure| failure.to_string())?;
    let Watching { id, mut changes, is_stream } = watching;

    set(c, s, key, 2).await?;
    arrives(&mut changes, &(key.clone(), "2".to_owned())).await?;
    set(c, s, &unique("other"), 1).await?;
    set(c, s, key, 3).await?;
    arrives(&mut changes, &(key.clone(), "3".to_owned())).await?;

    let Some(id) = id else { return Ok(()) };
    c.unwatch_configuration(s, &id).await.map_err(|failure| failure.to_string())?;
    set(c, s, key, 4).await?;
    let limit = if is_stream { PATIENCE } else { SILENCE };
    let rest = timeout(limit, async {
        while let Some(items) = changes.recv().await {
            check(!items.contains(&(key.clone(), "4".to_owned())), || "a change came after the end".to_owned())?;
        }
        Ok(())
    });
    rest.await.unwrap_or_else(|_| check(!is_stream, || "the subscription did not end".to_owned()))?;
    let Err(failure) = c.unwatch_configuration(s, &id).await else { return Err("it ended twice".to_owned()) };
    check(failure.text.contains(&format!("subscription with id {id} does not exist")), || failure.to_string())
}

/// Waits for a change. Others may come before it: the value from before the watch, and that of a key that a file lost.
async fn arrives(changes: &mut Receiver<Values>, expected: &(String, String)) -> Outcome {
    let waiting = timeout(PATIENCE, async {
        while let Some(items) = changes.recv().await {
            if let Some((key, _)) = items.iter().find(|(key, _)| *key != expected.0) {
                return Err(format!("{key} is not watched, and was reported"));
            }
            if items.contains(expected) {
                return Ok(());
            }
        }
        Err("the subscription has ended".to_owned())
    });
    waiting.await.unwrap_or_else(|_| Err(format!("{expected:?} did not arrive within {PATIENCE:?}")))
}

async fn set(c: &dyn Client, s: &str, key: &str, value: u32) -> Outcome {
    let (value, file) = (value.to_string(), json!({ key: value }).to_string());
    let parameters = json!([key, value]).to_string();
    let upsert = "INSERT INTO suite_settings VALUES ($1, $2, '1', NULL) ON CONFLICT (key) DO UPDATE SET value = $2";
    let set = match s {
        name if name == CHANGING_FILE.0 => {
            c.invoke_binding("files", "create", &file, &[("fileName", CHANGING_FILE.1)]).await
        }
        "settings-redis" => c.invoke_binding("values", "create", &value, &[("key", key)]).await,
        "settings-postgresql" => {
            c.invoke_binding("statements", "exec", "null", &[("sql", upsert), ("params", &parameters)]).await
        }
        other => return Err(format!("nobody said how to set a value of {other}")),
    };
    set.map(drop).map_err(|failure| failure.to_string())
}

async fn missing(c: &dyn Client) -> Outcome {
    let answer = c.get_configuration("other", &["key"]).await;
    let failure = answer.map_or_else(|failure| failure.text, |_| "it exists".to_owned());
    check(failure.contains("configuration store other not found"), || failure)
}
