//! Both versions of `state.postgresql` against a PostgreSQL server. `TRILBY_TEST_POSTGRES` says where it is, as a URL
//! with the login of a user who may create schemas.
#![cfg(feature = "postgresql")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use support::{With as _, delete, etag, get, json, proxy::Proxy, raw, read, set, text, transact, unique};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls, Row, config::Host};
use trilby_component::{
    ErrorKind,
    state::{Operation, StateStore, TTL_EXPIRE_TIME},
};

const VERSIONS: [&str; 2] = ["v1", "v2"];

/// A schema of its own in the test database.
struct Fixture {
    url: String,
    schema: String,
    sql: Client,
}

impl Fixture {
    async fn new() -> Option<Self> {
        let url = support::server("state.postgresql", "TRILBY_TEST_POSTGRES")?;
        let (sql, connection) = tokio_postgres::connect(&url, NoTls).await.expect("TRILBY_TEST_POSTGRES is up");
        tokio::spawn(connection);
        let schema = unique();
        sql.batch_execute(&format!("CREATE SCHEMA {schema}")).await.expect("the user may create schemas");
        Some(Self { url, schema, sql })
    }

    /// Only a test that has passed removes its schema: what is left of another one can be looked at.
    async fn end(self) {
        self.sql.batch_execute(&format!("DROP SCHEMA {} CASCADE", self.schema)).await.expect("DROP SCHEMA");
    }

    async fn try_open(&self, version: &str, more: &[(&str, &str)]) -> trilby_component::Result<Arc<dyn StateStore>> {
        let (table, prefix) = (format!("{}.state1", self.schema), format!("{}.", self.schema));
        let metadata_table = format!("{}.meta", self.schema);
        // A property that is named twice counts with its last value.
        let mut properties = vec![
            ("connectionString", self.url.as_str()),
            ("tableName", &table),
            ("tablePrefix", &prefix),
            ("metadataTableName", &metadata_table),
        ];
        properties.extend(more);
        support::open("state.postgresql", version, &properties).await
    }

    async fn open(&self, version: &str) -> Arc<dyn StateStore> {
        self.try_open(version, &[]).await.expect("the server of TRILBY_TEST_POSTGRES is up")
    }

    fn table(&self, version: &str) -> String {
        format!("{}.{}", self.schema, if version == "v1" { "state1" } else { "state" })
    }

    async fn rows(&self, sql: &str) -> Vec<Row> {
        let sql = sql.replace("SCHEMA", &self.schema);
        self.sql.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        self.rows(sql).await.iter().map(|row| row.get(0)).collect()
    }

    /// A proxy before the server, and the properties that lead there.
    async fn proxy(&self) -> (Proxy, String) {
        let config: tokio_postgres::Config = self.url.parse().expect("a URL");
        let [Host::Tcp(host)] = config.get_hosts() else { panic!("{} must name one host", self.url) };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let proxy = Proxy::start(&format!("{host}:{port}")).await;
        let port = proxy.port();
        (proxy, port)
    }
}

#[tokio::test]
async fn the_tables_are_those_of_dapr() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        fixture.open(version).await.close().await;
    }
    let columns = async |table| {
        let sql = format!(
            "SELECT concat_ws(' ', column_name, data_type, is_nullable, column_default, is_identity)
             FROM information_schema.columns WHERE table_schema = 'SCHEMA' AND table_name = '{table}'
             ORDER BY ordinal_position"
        );
        fixture.texts(&sql).await
    };
    assert_eq!(
        columns("state1").await,
        [
            "key text NO NO",
            "value jsonb NO NO",
            "isbinary boolean NO NO",
            "insertdate timestamp with time zone NO now() NO",
            "updatedate timestamp with time zone YES NO",
            "expiredate timestamp with time zone YES NO",
            "row_id bigint NO YES",
        ]
    );
    assert_eq!(
        columns("state").await,
        [
            "key text NO NO",
            "value bytea NO NO",
            "etag uuid NO gen_random_uuid() NO",
            "created_at timestamp with time zone NO now() NO",
            "updated_at timestamp with time zone YES NO",
            "expires_at timestamp with time zone YES NO",
            "row_id bigint NO YES",
        ]
    );
    assert_eq!(columns("meta").await, ["key text NO NO", "value text NO NO"]);
    let indexes = fixture.texts("SELECT indexname::text FROM pg_indexes WHERE schemaname = 'SCHEMA' ORDER BY 1").await;
    assert_eq!(
        indexes,
        ["meta_pkey", "state1_pkey", "state1_row_id_uidx", "state_expires_at_idx", "state_pkey", "state_row_id_uidx"]
    );
    let metadata = fixture.texts("SELECT key || '=' || value FROM SCHEMA.meta ORDER BY key COLLATE \"C\"").await;
    let v2 = format!("migrations-state-v2-{}.=2", fixture.schema);
    assert_eq!(metadata, ["lock=lock", "migrations=3", &v2]);
    fixture.end().await;
}

#[tokio::test]
async fn a_table_of_an_older_release_is_brought_up_to_date() {
    let Some(fixture) = Fixture::new().await else { return };
    let sql = format!(
        "CREATE TABLE {0}.meta (key text NOT NULL PRIMARY KEY, value text NOT NULL);
         INSERT INTO {0}.meta VALUES ('migrations', '1'), ('migrations-state-v2-{0}.', '1');
         CREATE TABLE {0}.state1 (key text NOT NULL PRIMARY KEY, value jsonb NOT NULL, isbinary boolean NOT NULL,
           insertdate timestamptz NOT NULL DEFAULT now(), updatedate timestamptz);
         INSERT INTO {0}.state1 VALUES ('b', '2', false, now() - interval '1 h'), ('a', '1', false, now());
         CREATE TABLE {0}.state (key text NOT NULL PRIMARY KEY, value bytea NOT NULL,
           etag uuid NOT NULL DEFAULT gen_random_uuid(), created_at timestamptz NOT NULL DEFAULT now(),
           updated_at timestamptz, expires_at timestamptz);
         INSERT INTO {0}.state (key, value, created_at) VALUES ('b', '2', now() - interval '1 h'), ('a', '1', now());",
        fixture.schema
    );
    fixture.sql.batch_execute(&sql).await.expect("the tables of an older release");
    for version in VERSIONS {
        let store = fixture.open(version).await;
        store.set(&set("c", json("3"))).await.expect("set");
        assert_eq!(text(&*store, "a").await, "1");
        let table = fixture.table(version);
        let numbers = fixture.texts(&format!("SELECT key || row_id FROM {table} ORDER BY row_id")).await;
        assert_eq!(numbers, ["b1", "a2", "c3"]);
    }
    fixture.end().await;
}

#[tokio::test]
async fn stores_that_open_at_the_same_time_create_the_tables_once() {
    let Some(fixture) = Fixture::new().await else { return };
    let stores = (0..8).map(|index| fixture.try_open(VERSIONS[index % 2], &[]));
    for store in futures_util::future::join_all(stores).await {
        let store = store.expect("open");
        store.set(&set("k", json("1"))).await.expect("set");
        store.close().await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn what_is_written_stands_as_dapr_writes_it() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        let store = fixture.open(version).await;
        store.set(&set("json", json(r#" {"b": 1, "a": [1, "x<&>", null]} "#))).await.expect("set");
        store.set(&set("bytes", raw(b"\0\xff raw"))).await.expect("set");
        store.set(&set("empty", raw(b"")).ttl("60")).await.expect("set");
        store.set(&set("big", json("9007199254740993"))).await.expect("set");
    }
    assert_eq!(
        fixture.texts("SELECT concat_ws(' ', key, value, isbinary) FROM SCHEMA.state1 ORDER BY key").await,
        [
            "big 9007199254740992 f",
            r#"bytes "AP8gcmF3" t"#,
            r#"empty "" t"#,
            r#"json {"a": [1, "x<&>", null], "b": 1} f"#
        ]
    );
    assert_eq!(
        fixture.texts("SELECT concat_ws(' ', key, encode(value, 'escape')) FROM SCHEMA.state ORDER BY key").await,
        [
            "big 9007199254740992",
            r"bytes \000\377 raw",
            "empty ",
            r#"json {"a":[1,"x\\u003c\\u0026\\u003e",null],"b":1}"#
        ]
    );
    for (table, column) in [("state1", "expiredate"), ("state", "expires_at")] {
        let sql = format!("SELECT key FROM SCHEMA.{table} WHERE {column} - now() BETWEEN '58 s' AND '60 s'");
        assert_eq!(fixture.texts(&sql).await, ["empty"]);
    }
    let etags = fixture.texts("SELECT xmin::text FROM SCHEMA.state1 WHERE key = 'json'").await;
    assert_eq!(etags, [etag(&*fixture.open("v1").await, "json").await]);
    let etags = fixture.texts("SELECT etag::text FROM SCHEMA.state WHERE key = 'json'").await;
    assert_eq!(etags, [etag(&*fixture.open("v2").await, "json").await]);
    fixture.end().await;
}

#[tokio::test]
async fn what_dapr_wrote_is_read_and_written_on() {
    let Some(fixture) = Fixture::new().await else { return };
    let stores = [fixture.open("v1").await, fixture.open("v2").await];
    let sql = format!(
        "INSERT INTO {0}.state1 (key, value, isbinary, expiredate) VALUES
           ('app||j', '{{\"a\": [1, 2]}}', false, NULL), ('app||b', '\"AP8gcmF3\"', true, NULL),
           ('app||old', '1', false, now() - interval '1 s'), ('app||new', '1', false, '2030-01-02 03:04:05.678+00');
         INSERT INTO {0}.state (key, value, expires_at) VALUES
           ('app||j', '{{\"a\": [1, 2]}}', NULL), ('app||b', '\\x00ff20726177', NULL),
           ('app||old', '1', now() - interval '1 s'), ('app||new', '1', '2030-01-02 03:04:05.678+00')",
        fixture.schema
    );
    fixture.sql.batch_execute(&sql).await.expect("rows as Dapr writes them");
    for store in stores {
        assert_eq!(text(&*store, "app||j").await, r#"{"a": [1, 2]}"#);
        assert_eq!(read(&*store, "app||b").await.expect("an item").value, b"\0\xff raw" as &[u8]);
        assert_eq!(read(&*store, "app||old").await, None);
        let metadata = read(&*store, "app||new").await.expect("an item").metadata;
        assert_eq!(metadata.get(TTL_EXPIRE_TIME).map(String::as_str), Some("2030-01-02T03:04:05Z"));

        let fresh = etag(&*store, "app||j").await;
        store.set(&set("app||j", json("2")).etag(&fresh)).await.expect("the etag is fresh");
        store.delete(&delete("app||b").etag(&etag(&*store, "app||b").await)).await.expect("the etag is fresh");
        store.set(&set("app||old", json("2")).first_write()).await.expect("an expired item does not exist");
    }
    fixture.end().await;
}

#[tokio::test]
async fn an_etag_must_be_the_items() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        let store = fixture.open(version).await;
        store.set(&set("k", json("1"))).await.expect("set");
        let first = etag(&*store, "k").await;
        store.set(&set("k", json("2")).etag(&first)).await.expect("the etag is fresh");
        assert_ne!(etag(&*store, "k").await, first);

        let refused = [
            store.set(&set("k", json("3")).etag(&first)).await,
            store.set(&set("k", json("3")).etag(&first).last_write()).await,
            store.set(&set("none", json("3")).etag(&first)).await,
            store.delete(&delete("k").etag(&first)).await,
            store.delete(&delete("none").etag(&first)).await,
        ];
        for result in refused {
            let error = result.expect_err("the etag is stale");
            assert_eq!(error.kind(), ErrorKind::EtagMismatch);
            assert_eq!(error.to_string(), "possible etag mismatch. error from state store");
        }
        let expect = match version {
            "v1" => "invalid etag value: strconv.ParseUint: parsing \"nope\": invalid syntax",
            _ => "possible etag mismatch. error from state store: invalid UUID length: 4",
        };
        let error = store.set(&set("k", json("3")).etag("nope")).await.expect_err("no etag of this store");
        assert_eq!(error.to_string(), expect);
        let error = store.delete(&delete("k").etag("nope")).await.expect_err("no etag of this store");
        assert_eq!(error.to_string(), expect);

        assert_eq!(text(&*store, "k").await, "2");
        store.delete(&delete("k")).await.expect("delete");
        store.delete(&delete("k")).await.expect("deleting what is not there succeeds");
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_first_write_creates_and_never_replaces() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        let store = fixture.open(version).await;
        store.set(&set("k", json("1")).first_write().ttl("1")).await.expect("the item is new");
        let error = store.set(&set("k", json("2")).first_write()).await.expect_err("the item is there");
        // Dapr answers 500 here, not 409.
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Internal, "no item was updated"));
        sleep(Duration::from_millis(1200)).await;
        store.set(&set("k", json("3")).first_write()).await.expect("the item has expired");
        assert_eq!(text(&*store, "k").await, "3");
    }
    fixture.end().await;
}

#[tokio::test]
async fn an_item_expires_after_its_life() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        let store = fixture.open(version).await;
        store.set(&set("k", json("1")).ttl("2")).await.expect("set");
        let item = read(&*store, "k").await.expect("an item");
        let expiry = humantime_of(&item.metadata[TTL_EXPIRE_TIME]);
        assert!(expiry < SystemTime::now() + Duration::from_secs(3));
        let stale = item.etag.expect("an etag");
        sleep(Duration::from_millis(2200)).await;
        assert_eq!(read(&*store, "k").await, None);
        let error = store.set(&set("k", json("2")).etag(&stale)).await.expect_err("the item has expired");
        assert_eq!(error.kind(), ErrorKind::EtagMismatch);

        store.set(&set("k", json("1")).ttl("60")).await.expect("set");
        store.set(&set("k", json("1")).ttl("-1")).await.expect("set");
        assert!(read(&*store, "k").await.expect("an item").metadata.is_empty());
        let error = store.set(&set("k", json("1")).ttl("-2")).await.expect_err("out of range");
        assert_eq!(
            error.to_string(),
            "error parsing TTL: incorrect value for metadata 'ttlInSeconds': must be -1 or greater"
        );
    }
    fixture.end().await;
}

fn humantime_of(text: &str) -> SystemTime {
    humantime::parse_rfc3339(text).expect("RFC 3339")
}

#[tokio::test]
async fn a_transaction_is_applied_whole_or_not_at_all() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        let store = fixture.open(version).await;
        store.set(&set("b", json("1"))).await.expect("set");
        let stale = etag(&*store, "b").await;
        store.set(&set("b", json("2"))).await.expect("set");
        let refused = vec![
            Operation::Upsert(set("a", json("1"))),
            Operation::Delete(delete("b")),
            Operation::Upsert(set("c", json("1")).etag(&stale)),
        ];
        let error = transact(&*store, refused).await.expect_err("an etag is stale");
        assert_eq!(error.kind(), ErrorKind::EtagMismatch);
        assert_eq!((read(&*store, "a").await, text(&*store, "b").await), (None, "2".to_owned()));

        let applied = vec![
            Operation::Upsert(set("a", json("1"))),
            Operation::Upsert(set("a", json("2"))),
            Operation::Delete(delete("b").etag(&etag(&*store, "b").await)),
            Operation::Upsert(set("c", raw(b"3")).first_write().ttl("60")),
        ];
        transact(&*store, applied).await.expect("transact");
        assert_eq!((text(&*store, "a").await, text(&*store, "c").await), ("2".to_owned(), "3".to_owned()));
        assert_eq!(read(&*store, "b").await, None);
        transact(&*store, Vec::new()).await.expect("nothing to do");
        transact(&*store, vec![Operation::Delete(delete("a"))]).await.expect("one thing to do");
        assert_eq!(read(&*store, "a").await, None);
    }
    fixture.end().await;
}

#[tokio::test]
async fn many_items_are_written_and_read_in_the_order_of_the_request() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        let store = fixture.open(version).await;
        let keys: Vec<_> = (0..200).map(|index| format!("k{index}")).collect();
        let writes: Vec<_> = keys.iter().map(|key| set(key, json(&format!("\"{key}\"")))).collect();
        store.bulk_set(&writes).await.expect("bulk set");
        let mut wanted: Vec<_> = keys.iter().rev().map(|key| get(key)).collect();
        wanted.insert(1, get("missing"));
        wanted.push(get("k0"));
        let found = store.bulk_get(&wanted, 0).await.expect("bulk get");
        for (request, item) in wanted.iter().zip(found) {
            let value = item.expect("no error").map(|item| String::from_utf8_lossy(&item.value).into_owned());
            let expect = (request.key != "missing").then(|| format!("\"{}\"", request.key));
            assert_eq!(value, expect);
        }
        assert!(store.bulk_get(&[], 0).await.expect("nothing").is_empty());
        let error = store.get(&get("")).await.expect_err("no key");
        assert_eq!(error.to_string(), "missing key in get operation");
    }
    fixture.end().await;
}

#[tokio::test]
async fn of_many_writers_in_two_stores_one_wins() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        let stores = [fixture.open(version).await, fixture.open(version).await];
        stores[0].set(&set("k", json("\"first\""))).await.expect("set");
        let fresh = etag(&*stores[1], "k").await;
        let writers = (0..32).map(|index| {
            let (store, write) = (Arc::clone(&stores[index % 2]), set("k", json(&index.to_string())).etag(&fresh));
            async move { store.set(&write).await }
        });
        let results = futures_util::future::join_all(writers).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        stores[1].close().await;
        assert_ne!(text(&*stores[0], "k").await, "\"first\"");
    }
    fixture.end().await;
}

#[tokio::test]
async fn expired_items_are_deleted_by_one_of_the_stores() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        let each_second = [("cleanupInterval", "1s")];
        let stores = [
            fixture.try_open(version, &each_second).await.expect("open"),
            fixture.try_open(version, &each_second).await.expect("open"),
        ];
        stores[0].set(&set("old", json("1")).ttl("1")).await.expect("set");
        stores[0].set(&set("kept", json("1"))).await.expect("set");
        let sql = format!("SELECT key FROM {} ORDER BY key", fixture.table(version));
        let start = Instant::now();
        while fixture.texts(&sql).await != ["kept"] {
            assert!(start.elapsed() < Duration::from_secs(10), "the expired item is still there");
            sleep(Duration::from_millis(100)).await;
        }
        let claimed = fixture.texts("SELECT key FROM SCHEMA.meta WHERE key LIKE 'last-cleanup%' ORDER BY key").await;
        assert!(claimed.contains(&match version {
            "v1" => "last-cleanup".to_owned(),
            _ => format!("last-cleanup-state-v2-{}.", fixture.schema),
        }));
        for store in stores {
            store.close().await;
        }
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let Some(fixture) = Fixture::new().await else { return };
    let (mut proxy, port) = fixture.proxy().await;
    let store = fixture.try_open("v2", &[("host", "127.0.0.1"), ("port", &port)]).await.expect("open");
    store.set(&set("k", json("1"))).await.expect("set");
    proxy.cut().await;
    sleep(Duration::from_millis(50)).await;
    store.set(&set("k", json("2")).etag(&etag(&*store, "k").await)).await.expect("a new connection");

    proxy.stop().await;
    sleep(Duration::from_millis(50)).await;
    let error = store.get(&get("k")).await.expect_err("the server is down");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(store.ping().await.is_err());
    let error = fixture.try_open("v2", &[("host", "127.0.0.1"), ("port", &port)]).await.err().expect("down");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");

    proxy.resume().await;
    store.ping().await.expect("the server is back");
    assert_eq!(text(&*store, "k").await, "2");
    fixture.end().await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_times_out_and_keeps_no_connection() {
    let Some(fixture) = Fixture::new().await else { return };
    let (proxy, port) = fixture.proxy().await;
    let properties = [("host", "127.0.0.1"), ("port", &port), ("timeout", "1s"), ("maxConns", "2")];
    let store = fixture.try_open("v2", &properties).await.expect("open");
    proxy.freeze(true);
    let keys = ["a", "b", "c", "d"].map(get);
    let reads = futures_util::future::join_all(keys.iter().map(|key| store.get(key))).await;
    for read in reads {
        let error = read.expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.to_string(), format!("postgresql at 127.0.0.1:{port} did not answer within 1s"));
    }
    proxy.freeze(false);
    store.set(&set("k", json("1"))).await.expect("the server answers again");
    fixture.end().await;
}

#[tokio::test]
async fn a_login_that_is_refused_is_denied() {
    let Some(fixture) = Fixture::new().await else { return };
    let open = async |properties: &[_]| fixture.try_open("v2", properties).await.map(drop);
    let error = open(&[("user", "nobody_of_this_name")]).await.expect_err("there is no such user");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let error = open(&[("database", "nowhere")]).await.expect_err("there is no such database");
    assert_eq!(error.kind(), ErrorKind::InvalidMetadata, "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
    let error = open(&[("tablePrefix", "no such ")]).await.expect_err("there is no such schema");
    assert!(error.to_string().starts_with("tables at "), "{error}");

    if open(&[("password", "wrong")]).await.is_ok() {
        eprintln!("NOT RUN state.postgresql with a wrong password: the server of TRILBY_TEST_POSTGRES asks for none");
        return fixture.end().await;
    }
    let config: tokio_postgres::Config = fixture.url.parse().expect("a URL");
    let [Host::Tcp(host)] = config.get_hosts() else { panic!("{} must name one host", fixture.url) };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let keywords = format!("host={host} port={port} user={}", config.get_user().unwrap_or("postgres"));
    for (name, value) in [("password", "wrong"), ("connectionString", &keywords)] {
        let error = open(&[(name, value)]).await.expect_err("the password is wrong or missing");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    fixture.end().await;
}

#[tokio::test]
async fn statements_need_not_be_prepared() {
    let Some(fixture) = Fixture::new().await else { return };
    for version in VERSIONS {
        let store = fixture.try_open(version, &[("queryExecMode", "exec")]).await.expect("open");
        store.set(&set("k", json("1")).ttl("60")).await.expect("set");
        store.set(&set("k", json("2")).etag(&etag(&*store, "k").await)).await.expect("the etag is fresh");
        assert_eq!(text(&*store, "k").await, "2");
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_value_may_be_anything_that_the_table_can_hold() {
    let Some(fixture) = Fixture::new().await else { return };
    let large = vec![7; 4 << 20];
    for version in VERSIONS {
        let store = fixture.open(version).await;
        for bytes in [b"\0\xff'\"\\" as &[u8], b"", &large] {
            store.set(&set("k", raw(bytes))).await.expect("set");
            assert_eq!(read(&*store, "k").await.expect("an item").value, bytes);
        }
        let error = store.set(&set("k", json("{"))).await.expect_err("not JSON");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    let error = fixture.open("v1").await.set(&set("k", json(r#""\u0000""#))).await.expect_err("not in jsonb");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    fixture.end().await;
}

#[tokio::test]
async fn tls_is_as_strict_as_its_mode() {
    let Some(fixture) = Fixture::new().await else { return };
    let plain = fixture.try_open("v2", &[]).await;
    plain.expect("without a mode, TLS is used if it is there");
    let with =
        |mode: &str| format!("{}{}sslmode={mode}", fixture.url, if fixture.url.contains('?') { '&' } else { '?' });
    let open = async |mode: &str, root: &str| {
        let url = with(mode);
        fixture.try_open("v2", &[("connectionString", &*url), ("sslRootCert", root)][..]).await.map(drop)
    };
    open("disable", "").await.expect("the server speaks plainly too");
    if fixture.texts("SHOW ssl").await != ["on"] {
        let error = open("require", "").await.expect_err("the server has no TLS");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        eprintln!("NOT RUN state.postgresql with TLS: the server of TRILBY_TEST_POSTGRES has ssl = off");
        return fixture.end().await;
    }
    let own = fixture.texts("SELECT pg_read_file(current_setting('ssl_cert_file'))").await;
    open("require", "").await.expect("anyone will do");
    open("verify-ca", &own[0]).await.expect("the certificate is trusted, whatever its name");
    for mode in ["verify-ca", "verify-full"] {
        let error = open(mode, "").await.expect_err("no public authority signed the certificate");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let error = open("verify-full", "/nowhere/root.pem").await.expect_err("no such file");
    assert_eq!(error.kind(), ErrorKind::InvalidMetadata);
    assert!(error.to_string().contains("/nowhere/root.pem"), "{error}");
    fixture.end().await;
}
