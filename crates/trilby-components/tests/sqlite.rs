//! `state.sqlite` against real files: Dapr's format both ways, sharing, expiry, failure.

#![cfg(feature = "sqlite")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rusqlite::Connection;
use serde_json::Value as Json;
use tempfile::TempDir;
use trilby_component::{
    ErrorKind, Metadata, OpenRequest, Result,
    state::{
        DeleteRequest, GetRequest, Item, Operation, SetRequest, StateStore, TTL_EXPIRE_TIME, TTL_IN_SECONDS, Value,
        WriteOptions,
    },
};

type Store = Arc<dyn StateStore>;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("state.db")
    }

    async fn open(&self, extra: &[(&str, &str)]) -> Store {
        open(&[&[("connectionString", self.path().to_str().expect("UTF-8"))], extra].concat()).await.expect("opens")
    }

    fn raw(&self) -> Connection {
        raw(&self.path())
    }
}

fn raw(path: &Path) -> Connection {
    Connection::open(path).expect("opens")
}

async fn open(properties: &[(&str, &str)]) -> Result<Store> {
    let properties = properties.iter().copied().collect();
    let request = OpenRequest { name: "statestore".to_owned(), properties };
    trilby_components::builtins().open_state("state.sqlite", "v1", request).await
}

async fn open_error(properties: &[(&str, &str)]) -> (ErrorKind, String) {
    let error = open(properties).await.err().expect("this must not open");
    (error.kind(), error.to_string())
}

fn set(key: &str, value: Value) -> SetRequest {
    SetRequest { key: key.to_owned(), value, etag: None, options: WriteOptions::default(), metadata: Metadata::new() }
}

fn json(text: &str) -> Value {
    Value::Json(text.to_owned().into())
}

fn with_ttl(request: SetRequest, seconds: &str) -> SetRequest {
    SetRequest { metadata: Metadata::from([(TTL_IN_SECONDS.to_owned(), seconds.to_owned())]), ..request }
}

fn first_write(request: SetRequest) -> SetRequest {
    let options = WriteOptions { concurrency: "first-write".into(), ..WriteOptions::default() };
    SetRequest { options, ..request }
}

fn key(key: &str) -> GetRequest {
    GetRequest { key: key.to_owned(), ..GetRequest::default() }
}

async fn get(store: &Store, name: &str) -> Option<Item> {
    store.get(&key(name)).await.expect("get")
}

/// What a stock daprd wrote: a line is a database's schema or one of its rows.
fn golden() -> Vec<Json> {
    include_str!("../../../tests/golden/storage/sqlite.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("golden files are JSON"))
        .collect()
}

fn text<'a>(row: &'a Json, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("{field} is text in {row}"))
}

fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(" )", ")")
}

#[tokio::test]
async fn rows_that_dapr_wrote_are_read() {
    let golden = golden();
    for database in golden.iter().filter(|line| line["schema"].is_array()) {
        let folder = Folder::new();
        let connection = folder.raw();
        for statement in database["schema"].as_array().expect("statements") {
            connection.execute_batch(statement.as_str().expect("text")).expect("creates");
        }
        let of_file = || golden.iter().filter(|line| line["file"] == database["file"] && line["row"].is_object());
        let rows: Vec<_> = of_file().filter(|line| line["table"] != "metadata").collect();
        let table = text(rows[0], "table");
        for line in &rows {
            let row = &line["row"];
            // The recorded moments have passed, so that the items would be gone.
            let expires = if row["expiration_time"].is_null() { "NULL" } else { "DATETIME('now', '+1 hour')" };
            let insert = format!("INSERT INTO {table} VALUES (?, ?, ?, ?, {expires}, ?)");
            let is_binary = row["is_binary"].as_i64();
            let values = (text(row, "key"), text(row, "value"), is_binary, text(row, "etag"), text(row, "update_time"));
            connection.execute(&insert, values).expect("inserts");
        }
        connection.execute("INSERT INTO metadata VALUES ('migrations', '1')", []).expect("inserts");

        let store = folder.open(&[("tableName", table)]).await;
        for line in rows {
            let row = &line["row"];
            let item = get(&store, text(row, "key")).await.expect("an item");
            let stored = text(row, "value");
            if row["is_binary"] == 1 {
                assert_eq!(item.value, BASE64_STANDARD.decode(stored).expect("base64"), "{row}");
            } else {
                assert_eq!(item.value, stored, "{row}");
            }
            assert_eq!(item.etag.as_deref(), row["etag"].as_str());
            assert_eq!(item.metadata.contains_key(TTL_EXPIRE_TIME), !row["expiration_time"].is_null());
        }
    }
}

#[tokio::test]
async fn rows_that_we_write_equal_those_of_dapr() {
    let golden = golden();
    let folder = Folder::new();
    let store = folder.open(&[]).await;
    let connection = folder.raw();

    let schema = golden.iter().find(|line| line["file"] == "s" && line["schema"].is_array()).expect("recorded");
    let mut statement = connection.prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").expect("prepares");
    let ours = statement.query_map([], |row| row.get::<_, String>(0)).expect("runs");
    let ours: Vec<_> = ours.map(|sql| without_spaces(&sql.expect("text"))).collect();
    let theirs: Vec<_> = schema["schema"]
        .as_array()
        .expect("statements")
        .iter()
        .map(|sql| without_spaces(sql.as_str().expect("text")))
        .collect();
    assert_eq!(ours, theirs);
    let level: String = connection
        .query_row("SELECT value FROM metadata WHERE key = 'migrations'", [], |row| row.get(0))
        .expect("a level");
    assert_eq!(level, "1");

    for line in golden.iter().filter(|line| line["row"].is_object() && line["table"] != "metadata") {
        let row = &line["row"];
        let value = match row["is_binary"].as_i64() {
            Some(0) => json(text(row, "value")),
            _ => Value::Bytes(BASE64_STANDARD.decode(text(row, "value")).expect("base64").into()),
        };
        let expires = !row["expiration_time"].is_null();
        let request = set(text(row, "key"), value);
        store.set(&if expires { with_ttl(request, "60") } else { request }).await.expect("set");

        let ours = connection
            .query_row(
                "SELECT value, is_binary, etag, expiration_time, update_time FROM state WHERE key = ?",
                [text(row, "key")],
                |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, i64>(1)?,
                        row.get::<_, String>(2)?,
                        row.get::<_, Option<String>>(3)?,
                        row.get::<_, String>(4)?,
                    ))
                },
            )
            .expect("written");
        assert_eq!((ours.0.as_str(), Some(ours.1)), (text(row, "value"), row["is_binary"].as_i64()));
        assert_eq!(shape(&ours.2), shape(text(row, "etag")));
        assert_eq!(ours.3.as_deref().map(shape), row["expiration_time"].as_str().map(shape));
        assert_eq!(shape(&ours.4), shape(text(row, "update_time")));
    }
}

/// A volatile text without what varies: each hexadecimal digit is `0`.
fn shape(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }).collect()
}

#[tokio::test]
async fn json_is_encoded_again_as_dapr_does() {
    let folder = Folder::new();
    let store = folder.open(&[]).await;
    store.set(&set("k", json(r#" {"b": 1, "a": [1, "x<&>", null]} "#))).await.expect("set");
    let stored: String = folder.raw().query_row("SELECT value FROM state", [], |row| row.get(0)).expect("a row");
    assert_eq!(stored, r#"{"a":[1,"x\u003c\u0026\u003e",null],"b":1}"#);
}

#[tokio::test]
async fn an_etag_guards_a_write_and_a_delete_and_the_error_gives_no_reason() {
    let folder = Folder::new();
    let store = folder.open(&[]).await;
    store.set(&set("k", json("1"))).await.expect("set");
    let etag = get(&store, "k").await.expect("an item").etag;
    store.set(&SetRequest { etag: etag.clone(), ..set("k", json("2")) }).await.expect("fresh");
    let stale = SetRequest { etag: etag.clone(), ..set("k", json("3")) };
    let error = store.set(&stale).await.expect_err("stale");
    assert_eq!(error.to_string(), "possible etag mismatch. error from state store");
    assert!(store.set(&first_write(set("k", json("3")))).await.expect_err("exists").is_etag());
    let delete = DeleteRequest { key: "k".to_owned(), etag, ..DeleteRequest::default() };
    assert!(store.delete(&delete).await.expect_err("stale").is_etag());
    assert_eq!(get(&store, "k").await.expect("an item").value, "2");
    store.delete(&DeleteRequest { etag: None, ..delete.clone() }).await.expect("unguarded");
    store.delete(&DeleteRequest { etag: None, ..delete }).await.expect("missing is deleted");
    store.set(&first_write(set("k", json("4")))).await.expect("does not exist");
}

#[tokio::test]
async fn a_transaction_happens_as_a_whole_or_not_at_all() {
    let folder = Folder::new();
    let store = folder.open(&[]).await;
    store.set(&set("old", json("1"))).await.expect("set");
    let delete = DeleteRequest { key: "old".to_owned(), ..DeleteRequest::default() };
    let stale = SetRequest { etag: Some("stale".to_owned()), ..set("b", json("2")) };
    let failing = [Operation::Upsert(set("a", json("1"))), Operation::Delete(delete.clone()), Operation::Upsert(stale)];
    let error = store.transact(&failing, &Metadata::new()).await.expect_err("one is stale");
    assert!(error.is_etag());
    assert!(get(&store, "a").await.is_none() && get(&store, "old").await.is_some());

    let working =
        [Operation::Upsert(set("a", json("1"))), Operation::Delete(delete), Operation::Upsert(set("a", json("2")))];
    store.transact(&working, &Metadata::new()).await.expect("works");
    assert_eq!(get(&store, "a").await.expect("an item").value, "2");
    assert!(get(&store, "old").await.is_none());
}

#[tokio::test]
async fn a_bulk_read_answers_in_the_order_of_the_request() {
    let folder = Folder::new();
    let store = folder.open(&[]).await;
    for name in ["a", "b", "nul\0key"] {
        store.set(&set(name, json(&format!("{name:?}").replace("\\0", "0")))).await.expect("set");
    }
    let requests = ["b", "missing", "a", "b", "nul\0key", "nul"].map(key);
    let items = store.bulk_get(&requests, 0).await.expect("reads");
    let values: Vec<_> = items.into_iter().map(|item| item.expect("no failure").map(|item| item.value)).collect();
    let expect = [Some(r#""b""#), None, Some(r#""a""#), Some(r#""b""#), Some(r#""nul0key""#), None];
    assert_eq!(values, expect.map(|text| text.map(Into::into)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost_between_stores_that_share_a_file() {
    const WRITERS: usize = 8;
    const INCREMENTS: usize = 25;
    let folder = Folder::new();
    let stores = [folder.open(&[]).await, folder.open(&[("disableWAL", "false")]).await];
    stores[0].set(&set("counter", json("0"))).await.expect("set");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&stores[writer % 2]);
            tokio::spawn(async move {
                let mut done = 0;
                while done < INCREMENTS {
                    let item = get(&store, "counter").await.expect("an item");
                    let count: usize = std::str::from_utf8(&item.value).expect("text").parse().expect("a number");
                    let next = SetRequest { etag: item.etag, ..set("counter", json(&(count + 1).to_string())) };
                    match store.set(&next).await {
                        Ok(()) => done += 1,
                        Err(error) => assert!(error.is_etag(), "{error}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    assert_eq!(get(&stores[0], "counter").await.expect("an item").value, (WRITERS * INCREMENTS).to_string());
}

#[tokio::test]
async fn writes_that_wait_together_are_all_committed() {
    let folder = Folder::new();
    let store = folder.open(&[]).await;
    let lock = folder.raw();
    lock.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let mut writes = Vec::new();
    for index in 0..300 {
        let store = Arc::clone(&store);
        writes.push(tokio::spawn(async move {
            store.set(&first_write(set(&format!("k{}", index % 150), json("1")))).await
        }));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(writes.iter().all(|write| !write.is_finished()));
    lock.execute_batch("COMMIT").expect("unlocks");
    let mut written = 0;
    for write in writes {
        match write.await.expect("no panic") {
            Ok(()) => written += 1,
            Err(error) => assert!(error.is_etag(), "{error}"),
        }
    }
    assert_eq!(written, 150);
    let rows: i64 = folder.raw().query_row("SELECT COUNT(*) FROM state", [], |row| row.get(0)).expect("a count");
    assert_eq!(rows, 150);
}

#[tokio::test]
async fn a_file_locked_by_another_process_is_unavailable_until_it_is_free() {
    let folder = Folder::new();
    let store = folder.open(&[("busyTimeout", "20ms")]).await;
    let lock = folder.raw();
    lock.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let error = store.set(&set("k", json("1"))).await.expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().starts_with("database is locked"), "{error}");
    assert!(get(&store, "k").await.is_none(), "readers do not wait for a writer");
    lock.execute_batch("ROLLBACK").expect("unlocks");
    store.set(&set("k", json("1"))).await.expect("free");
}

#[tokio::test]
async fn a_call_takes_no_longer_than_its_timeout() {
    let folder = Folder::new();
    let store = folder.open(&[("timeout", "1s"), ("busyTimeout", "1500ms")]).await;
    let lock = folder.raw();
    lock.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let error = store.set(&set("k", json("1"))).await.expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("1s"), "{error}");
}

#[tokio::test]
async fn an_expired_item_is_gone_and_may_be_written_anew() {
    let folder = Folder::new();
    let store = folder.open(&[]).await;
    store.set(&with_ttl(set("k", json("1")), "1")).await.expect("set");
    let item = get(&store, "k").await.expect("not yet");
    let expires_at = item.metadata.get(TTL_EXPIRE_TIME).expect("an expiry");
    assert_eq!(shape(expires_at), "0000-00-00T00:00:00Z");
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(get(&store, "k").await.is_none());
    let late = SetRequest { etag: item.etag, ..set("k", json("2")) };
    assert!(store.set(&late).await.expect_err("gone").is_etag());
    store.set(&first_write(set("k", json("2")))).await.expect("does not exist");
    assert!(get(&store, "k").await.expect("an item").metadata.is_empty());
}

#[tokio::test]
async fn expired_rows_are_deleted_every_clean_up_interval() {
    let folder = Folder::new();
    let store = folder.open(&[("cleanupInterval", "1s")]).await;
    let connection = folder.raw();
    let insert =
        "INSERT INTO state (key, value, is_binary, etag, expiration_time) VALUES (?, '1', 0, 'e', DATETIME('now', ?))";
    connection.execute(insert, ["expired", "-10 seconds"]).expect("inserts");
    connection.execute(insert, ["live", "+60 seconds"]).expect("inserts");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let left: Vec<String> = {
        let mut statement = connection.prepare("SELECT key FROM state").expect("prepares");
        statement.query_map([], |row| row.get(0)).expect("runs").map(|key| key.expect("text")).collect()
    };
    assert_eq!(left, ["live"]);
    let query = "SELECT value FROM metadata WHERE key = 'last-cleanup'";
    let cleaned: String = connection.query_row(query, [], |row| row.get(0)).expect("recorded");
    assert_eq!(shape(&cleaned), "0000-00-00 00:00:00");
    store.close().await;
}

#[tokio::test]
async fn a_closed_store_has_let_go_of_its_file() {
    let folder = Folder::new();
    let store = folder.open(&[]).await;
    store.set(&set("k", json("1"))).await.expect("set");
    let wal = folder.0.path().join("state.db-wal");
    assert!(wal.exists());
    store.close().await;
    assert!(!wal.exists(), "the last connection folds the log into the file");
    let error = store.get(&key("k")).await.expect_err("closed");
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unavailable, "the SQLite store is closed"));
    assert!(store.set(&set("k", json("1"))).await.is_err());

    let dropped = folder.open(&[]).await;
    dropped.set(&set("k", json("2"))).await.expect("set");
    drop(dropped);
    assert!(!wal.exists());
}

#[tokio::test]
async fn a_database_in_memory_belongs_to_one_store() {
    for location in [":memory:", "file::memory:", "file:shared?mode=memory"] {
        let first = open(&[("connectionString", location)]).await.expect("opens");
        let second = open(&[("connectionString", location)]).await.expect("opens");
        first.set(&set("k", json("1"))).await.expect("set");
        assert_eq!(get(&first, "k").await.expect("an item").value, "1");
        assert!(get(&second, "k").await.is_none(), "{location}");
    }
}

#[tokio::test]
async fn a_file_opened_for_reading_refuses_writes() {
    let folder = Folder::new();
    let store = folder.open(&[]).await;
    store.set(&set("k", json("1"))).await.expect("set");
    store.close().await;
    let uri = format!("file:{}?mode=ro", folder.path().display());
    let store = open(&[("connectionString", &uri)]).await.expect("opens");
    assert_eq!(get(&store, "k").await.expect("an item").value, "1");
    let error = store.set(&set("k", json("2"))).await.expect_err("read only");
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_may_be_opened_by_many_at_once() {
    for _ in 0..10 {
        let folder = Arc::new(Folder::new());
        let opening = [(); 6].map(|()| {
            let folder = Arc::clone(&folder);
            tokio::spawn(async move { folder.open(&[]).await })
        });
        for store in opening {
            store.await.expect("no panic").ping().await.expect("answers");
        }
    }
}

#[tokio::test]
async fn wrong_metadata_is_named_with_the_fix() {
    let (kind, text) = open_error(&[]).await;
    assert_eq!(kind, ErrorKind::InvalidMetadata);
    assert!(text.starts_with("missing connection string; set connectionString"), "{text}");

    let memory = ("connectionString", ":memory:");
    for (property, value, start) in [
        ("timeout", "500ms", "invalid value for 'timeout': must be greater than 1s"),
        ("timeout", "soon", "metadata timeout: invalid value \"soon\""),
        ("tableName", "a b", "invalid identifier: a b"),
        ("metadataTableName", "x;y", "invalid identifier: x;y"),
    ] {
        let (kind, text) = open_error(&[memory, (property, value)]).await;
        assert_eq!(kind, ErrorKind::InvalidMetadata, "{text}");
        assert!(text.starts_with(start), "{text}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let folder = Folder::new();
    let nowhere = folder.0.path().join("missing").join("state.db");
    let nowhere = nowhere.to_str().expect("UTF-8");
    let (kind, text) = open_error(&[("connectionString", nowhere)]).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains(nowhere), "{text}");

    std::fs::write(folder.path(), "this is no database, whatever its name may say").expect("written");
    let path = folder.path();
    let path = path.to_str().expect("UTF-8");
    let (kind, text) = open_error(&[("connectionString", path)]).await;
    assert_eq!(kind, ErrorKind::InvalidMetadata, "{text}");
    assert!(text.contains(path), "{text}");
}
