//! `kill -9` in the midst of writes: what was acknowledged is there afterwards, and no transaction is there in part.

use std::{collections::HashMap, path::Path, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    JSON, ask,
    support::{Daprd, DaprdOptions, HttpConnection},
};

const WRITERS: usize = 8;
const ROUNDS: usize = 2;

/// How long daprd lives in each round.
const STORM: Duration = Duration::from_millis(600);

/// What a writer does with its turn: a path and a body.
type Write = fn(name: &str, number: u64) -> (&'static str, Value);

async fn start(folder: &Path) -> Daprd {
    let components = format!(
        "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{ name: sq }}
spec:
  type: state.sqlite
  version: v1
  metadata: [{{ name: connectionString, value: '{}' }}]
",
        folder.join("state.sqlite").display()
    );
    Daprd::start(DaprdOptions { components, ..DaprdOptions::default() }).await
}

/// Lets writers loose, each on a connection of its own, and kills daprd under them. Returns how many writes of each
/// writer were acknowledged.
async fn storm(daprd: Daprd, round: usize, write: Write) -> Vec<(String, u64)> {
    let port = daprd.http_port;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            tokio::spawn(async move {
                let name = format!("{round}-{writer}");
                let mut connection = HttpConnection::open(port).await.expect("daprd listens");
                let mut acknowledged = 0;
                loop {
                    let (path, body) = write(&name, acknowledged);
                    let answer = connection.send("POST", path, JSON, body.to_string().as_bytes()).await;
                    let Some(answer) = answer else { return (name, acknowledged) };
                    assert_eq!(answer.status, 204, "{:?}", answer.body);
                    acknowledged += 1;
                }
            })
        })
        .collect();
    sleep(STORM).await;
    daprd.kill().await;
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.expect("no other answer than 204"));
    }
    assert!(written.iter().all(|(_, acknowledged)| *acknowledged > 0), "{written:?}");
    written
}

/// Kills it in several rounds on one file, and opens that once more.
async fn survivor(folder: &Path, write: Write) -> (Daprd, Vec<(String, u64)>) {
    let mut written = Vec::new();
    for round in 0..ROUNDS {
        written.extend(storm(start(folder).await, round, write).await);
    }
    let sum: u64 = written.iter().map(|(_, acknowledged)| acknowledged).sum();
    println!("{sum} writes were acknowledged before {ROUNDS} kills");
    (start(folder).await, written)
}

/// The items that there are.
async fn read(daprd: &Daprd, keys: impl Iterator<Item = String>) -> HashMap<String, Value> {
    let body = json!({ "keys": keys.collect::<Vec<_>>() }).to_string();
    let answer = ask(daprd.http_port, "POST", "/v1.0/state/sq/bulk", body.as_bytes()).await;
    assert_eq!(answer.status, 200);
    let items: Vec<Value> = serde_json::from_slice(&answer.body).expect("a list");
    let pair = |mut item: Value| {
        assert!(item.get("error").is_none(), "{item}");
        let data = item.get_mut("data").map(Value::take)?;
        Some((item["key"].as_str().expect("a key").to_owned(), data))
    };
    items.into_iter().filter_map(pair).collect()
}

#[tokio::test]
async fn every_acknowledged_write_survives_kill_9() {
    let folder = TempDir::new().expect("a folder");
    let write: Write = |name, number| {
        let items = json!([
            { "key": format!("{name}/{number}"), "value": number },
            { "key": format!("{name}/last"), "value": number },
        ]);
        ("/v1.0/state/sq", items)
    };
    let (daprd, written) = survivor(folder.path(), write).await;
    for (name, acknowledged) in written {
        let found = read(&daprd, (0..acknowledged).map(|number| format!("{name}/{number}"))).await;
        for number in 0..acknowledged {
            assert_eq!(found.get(&format!("{name}/{number}")), Some(&number.into()), "{name} of {acknowledged}");
        }
        let last = read(&daprd, [format!("{name}/last")].into_iter()).await;
        let last = last.values().next().and_then(Value::as_u64);
        // The write that was under way may have come to pass.
        assert!(last == Some(acknowledged - 1) || last == Some(acknowledged), "{last:?} of {acknowledged}");
    }
    daprd.stop().await;
}

#[tokio::test]
async fn a_transaction_survives_kill_9_whole_or_not_at_all() {
    let folder = TempDir::new().expect("a folder");
    // The marker moves on: each transaction removes the one before and sets its own.
    let write: Write = |name, number| {
        let upsert = |key: String| json!({ "operation": "upsert", "request": { "key": key, "value": number } });
        let delete = |key: String| json!({ "operation": "delete", "request": { "key": key } });
        let operations = json!([
            upsert(format!("{name}/a/{number}")),
            delete(format!("{name}/marker/{}", number.wrapping_sub(1))),
            upsert(format!("{name}/marker/{number}")),
            upsert(format!("{name}/b/{number}")),
        ]);
        ("/v1.0/state/sq/transaction", json!({ "operations": operations }))
    };
    let (daprd, written) = survivor(folder.path(), write).await;
    for (name, acknowledged) in written {
        let keys = |part: &'static str| {
            let name = name.clone();
            (0..=acknowledged + 1).map(move |number| format!("{name}/{part}/{number}"))
        };
        let (a, b) = (read(&daprd, keys("a")).await, read(&daprd, keys("b")).await);
        let mut numbers: Vec<_> = a.values().filter_map(Value::as_u64).collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{name} has gaps");
        let done = numbers.len() as u64;
        assert!(done == acknowledged || done == acknowledged + 1, "{name}: {done} of {acknowledged}");
        assert_eq!(b.len(), a.len(), "{name}: a transaction is there in part");
        let markers = read(&daprd, keys("marker")).await;
        let markers: Vec<_> = markers.values().filter_map(Value::as_u64).collect();
        assert_eq!(markers, [done - 1], "{name}: a transaction is there in part");
    }
    daprd.stop().await;
}
