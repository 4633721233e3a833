//! `state.redis` against a Redis server. `TRILBY_TEST_REDIS` says where it is, as `host:port`.
#![cfg(feature = "redis")]

mod support;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::TypedCommands as _;
use serde_json::Value as Row;
use support::{With as _, delete, etag, get, json, proxy::Proxy, raw, read, set, text, transact, unique};
use tokio::time::sleep;
use trilby_component::{
    ErrorKind, Metadata,
    state::{BulkError, Consistency, Feature, Operation, Query, StateStore, Value},
};

/// What a Dapr 1.18 left in Redis after the recorded calls.
const GOLDEN: &str = include_str!("../../../tests/golden/storage/redis-state.jsonl");

struct Fixture {
    address: String,
    store: Arc<dyn StateStore>,
    /// In front of every key of the test.
    prefix: String,
}

impl Fixture {
    async fn new() -> Option<Self> {
        let address = support::server("state.redis", "TRILBY_TEST_REDIS")?;
        let store = open(&[("redisHost", &address)]).await.expect("the server of TRILBY_TEST_REDIS is up");
        Some(Self { address, store, prefix: unique() })
    }

    fn key(&self, name: &str) -> String {
        format!("{}||{name}", self.prefix)
    }

    fn redis(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.address)).expect("an address");
        client.get_connection().expect("the server is up")
    }

    fn hash(&self, name: &str) -> BTreeMap<String, String> {
        self.redis().hgetall(self.key(name)).expect("a hash").into_iter().collect()
    }
}

async fn open(properties: &[(&str, &str)]) -> trilby_component::Result<Arc<dyn StateStore>> {
    support::open("state.redis", "v1", properties).await
}

struct Recorded {
    name: String,
    fields: BTreeMap<String, String>,
    ttl: i64,
}

fn recorded() -> Vec<Recorded> {
    let row = |line: &str| {
        let row: Row = serde_json::from_str(line).expect("a row is JSON");
        let values: Vec<String> = row["value"].as_array().expect("a hash").iter().map(text_of).collect();
        let pairs = values.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        let key = text_of(&row["key"]);
        let name = key.strip_prefix("myapp||").expect("every key has the app id").to_owned();
        Recorded { name, fields: pairs.collect(), ttl: row["ttl"].as_i64().expect("a number") }
    };
    GOLDEN.lines().filter(|line| !line.is_empty()).map(row).collect()
}

fn text_of(value: &Row) -> String {
    value.as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn what_is_written_equals_what_dapr_writes() {
    let Some(fixture) = Fixture::new().await else { return };
    let store = &*fixture.store;
    let key = |name: &str| fixture.key(name);
    let saves = [
        set(&key(""), json("1")),
        set(&key("big"), json("9007199254740993")),
        set(&key("f"), json("1.5")),
        set(&key("g3"), raw(b"")),
        set(&key("gn"), raw(b"1")).first_write().etag(""),
        set(&key("gt"), raw(b"1")).ttl("60"),
        set(&key("noct"), json("\"x\"")),
        set(&key("nul"), json("null")),
        set(&key("o"), json(r#"{"b": 1, "a": [1, "x<&>", null]}"#)),
        set(&key("put"), json("1")),
        set(&key("raw"), json("\"x\"")),
        set(&key("t"), json("true")),
        set(&key("ttl"), json("\"x\"")).ttl("100"),
        set(&key("ttl"), json("\"x\"")).ttl("-1"),
        set(&key("ttl"), json("\"x\"")).ttl("-2"),
        set(&key("ttl2"), json("1")).ttl("50"),
        set(&key("uni"), json(r#""\u017elu\u0165 \u2028 \u20ac""#)),
    ];
    for save in &saves {
        store.set(save).await.expect("set");
    }
    let in_transactions = vec![
        Operation::Upsert(set(&key("gt1"), raw(b"\"v\""))),
        Operation::Upsert(set(&key("t1"), json(r#"{"a": 1}"#))),
        Operation::Upsert(set(&key("t2"), json("\"v\"")).ttl("60")),
    ];
    transact(store, in_transactions).await.expect("transact");

    let rows = recorded();
    assert_eq!(rows.len(), 18);
    for row in rows {
        assert_eq!(fixture.hash(&row.name), row.fields, "{}", row.name);
        let ttl: i64 = redis::cmd("TTL").arg(key(&row.name)).query(&mut fixture.redis()).expect("TTL");
        assert!((row.ttl - 2..=row.ttl).contains(&ttl), "{}: {ttl} for {}", row.name, row.ttl);
    }
}

#[tokio::test]
async fn what_dapr_wrote_is_read_and_written_on() {
    let Some(fixture) = Fixture::new().await else { return };
    for row in recorded() {
        let key = fixture.key(&row.name);
        let fields: Vec<_> = row.fields.iter().collect();
        let _: usize = redis::cmd("HSET").arg(&key).arg(&fields).query(&mut fixture.redis()).expect("HSET");
        let item = read(&*fixture.store, &key).await.expect("an item");
        assert_eq!(item.value, row.fields["data"].as_bytes(), "{}", row.name);
        assert_eq!(item.etag.as_deref(), Some(&*row.fields["version"]), "{}", row.name);

        fixture.store.set(&set(&key, json("7")).etag(&row.fields["version"])).await.expect("the etag is fresh");
        let next = row.fields["version"].parse::<u64>().expect("a number") + 1;
        assert_eq!(etag(&*fixture.store, &key).await, next.to_string());
        fixture.store.delete(&delete(&key).etag(&next.to_string())).await.expect("the etag is fresh");
        assert_eq!(read(&*fixture.store, &key).await, None);
    }
}

#[tokio::test]
async fn a_plain_string_of_an_old_release_is_read_and_replaced() {
    let Some(fixture) = Fixture::new().await else { return };
    let key = fixture.key("old");
    fixture.redis().set(&key, "\"plain\"").expect("SET");
    let item = read(&*fixture.store, &key).await.expect("an item");
    assert_eq!((&item.value[..], item.etag), (b"\"plain\"" as &[u8], None));
    let many = fixture.store.bulk_get(&[get(&key), get(&fixture.key("none"))], 0).await.expect("bulk get");
    assert!(matches!(&many[..], [Ok(Some(_)), Ok(None)]), "{many:?}");

    fixture.store.set(&set(&key, json("1"))).await.expect("set");
    assert_eq!(fixture.hash("old"), BTreeMap::from([("data".into(), "1".into()), ("version".into(), "1".into())]));
}

#[tokio::test]
async fn an_etag_must_be_the_items_version() {
    let Some(fixture) = Fixture::new().await else { return };
    let (store, key) = (&*fixture.store, fixture.key("e"));
    store.set(&set(&key, json("1"))).await.expect("set");
    store.set(&set(&key, json("2")).etag("1")).await.expect("the etag is fresh");

    let stale = store.set(&set(&key, json("3")).etag("1")).await.expect_err("the etag is stale");
    assert_eq!(stale.kind(), ErrorKind::EtagMismatch);
    assert_eq!(stale.to_string(), format!("possible etag mismatch. error from state store: failed to set key {key}"));
    let nonsense = store.set(&set(&key, json("3")).etag("nope")).await.expect_err("not a version");
    assert_eq!(nonsense.kind(), ErrorKind::EtagInvalid);
    assert_eq!(nonsense.to_string(), "invalid etag value: strconv.Atoi: parsing \"nope\": invalid syntax");
    let stale = store.delete(&delete(&key).etag("wrong")).await.expect_err("the etag is not the item's");
    assert_eq!(stale.to_string(), format!("possible etag mismatch. error from state store: failed to delete {key}"));
    assert_eq!(text(store, &key).await, "2");

    store.set(&set(&key, json("4")).etag("nope").last_write()).await.expect("last-write looks at no etag");
    store.delete(&delete(&key).etag("3")).await.expect("the etag is fresh");
    store.delete(&delete(&key)).await.expect("deleting what is not there succeeds");
    store.set(&set(&key, json("5")).etag("9")).await.expect("an etag is not checked where there is no item");
}

#[tokio::test]
async fn an_item_saved_with_first_write_is_not_changed_without_its_etag() {
    let Some(fixture) = Fixture::new().await else { return };
    let (store, key) = (&*fixture.store, fixture.key("f"));
    store.set(&set(&key, json("1")).first_write()).await.expect("the item is new");
    for again in [set(&key, json("2")).first_write(), set(&key, json("2"))] {
        let error = store.set(&again).await.expect_err("the item is there");
        // Dapr answers 500 here, not 409.
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().starts_with(&format!("failed to set key {key}: ")), "{error}");
    }
    store.set(&set(&key, json("3")).etag("1").first_write()).await.expect("the etag is fresh");
    assert_eq!(text(store, &key).await, "3");
}

#[tokio::test]
async fn an_item_expires_after_its_life() {
    let Some(fixture) = Fixture::new().await else { return };
    let (store, key) = (&*fixture.store, fixture.key("t"));
    store.set(&set(&key, json("1")).ttl("1")).await.expect("set");
    assert_eq!(text(store, &key).await, "1");
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(read(store, &key).await, None);
    let error = store.set(&set(&key, json("1")).ttl("abc")).await.expect_err("not a number");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(
        error.to_string(),
        "failed to parse ttl from metadata: strconv.ParseInt: parsing \"abc\": invalid syntax"
    );
    store.set(&set(&key, json("1")).ttl("9223372036854775807")).await.expect("as good as for ever");
    assert_eq!(text(store, &key).await, "1");
}

#[tokio::test]
async fn the_components_ttl_counts_where_the_request_names_none() {
    let Some(fixture) = Fixture::new().await else { return };
    let store = open(&[("redisHost", &fixture.address), ("ttlInSeconds", "60")]).await.expect("open");
    let ttl =
        |name: &str| -> i64 { redis::cmd("TTL").arg(fixture.key(name)).query(&mut fixture.redis()).expect("TTL") };
    store.set(&set(&fixture.key("a"), json("1"))).await.expect("set");
    assert!((58..=60).contains(&ttl("a")));
    store.set(&set(&fixture.key("a"), json("1")).ttl("0")).await.expect("set");
    assert_eq!(ttl("a"), -1);
}

#[tokio::test]
async fn a_transaction_is_applied_whole_or_not_at_all() {
    let Some(fixture) = Fixture::new().await else { return };
    let store = &*fixture.store;
    let (a, b, c) = (fixture.key("a"), fixture.key("b"), fixture.key("c"));
    store.set(&set(&b, json("1"))).await.expect("set");

    let refused = vec![
        Operation::Upsert(set(&a, json("1"))),
        Operation::Delete(delete(&b)),
        Operation::Upsert(set(&c, json("1"))),
        Operation::Upsert(set(&b, json("2"))),
        Operation::Delete(delete(&b).etag("7")),
    ];
    let error = transact(store, refused).await.expect_err("the last etag is stale");
    assert_eq!(error.kind(), ErrorKind::EtagMismatch);
    assert_eq!((read(store, &a).await, text(store, &b).await, read(store, &c).await), (None, "1".to_owned(), None));

    let applied = vec![
        Operation::Upsert(set(&a, json("1"))),
        Operation::Upsert(set(&a, json("2")).etag("1")),
        Operation::Delete(delete(&b).etag("1")),
        Operation::Upsert(set(&c, json("1")).first_write().ttl("60")),
    ];
    transact(store, applied).await.expect("each etag is fresh when its turn comes");
    assert_eq!((text(store, &a).await, etag(store, &a).await), ("2".to_owned(), "2".to_owned()));
    assert_eq!(read(store, &b).await, None);
    assert_eq!(fixture.hash("c"), BTreeMap::from([("data".into(), "1".into()), ("version".into(), "1".into())]));

    let invalid = vec![Operation::Upsert(set(&a, json("3"))), Operation::Upsert(set(&b, json("1")).etag("wrong"))];
    let error = transact(store, invalid).await.expect_err("not a version");
    assert_eq!(error.to_string(), "invalid etag value: strconv.Atoi: parsing \"wrong\": invalid syntax");
    assert_eq!(text(store, &a).await, "2");
    transact(store, Vec::new()).await.expect("nothing to do");
}

#[tokio::test]
async fn many_items_are_written_and_read_in_the_order_of_the_request() {
    let Some(fixture) = Fixture::new().await else { return };
    let store = &*fixture.store;
    let keys: Vec<_> = (0..500).map(|index| fixture.key(&index.to_string())).collect();
    let writes: Vec<_> = keys.iter().enumerate().map(|(index, key)| set(key, json(&index.to_string()))).collect();
    store.bulk_set(&writes).await.expect("bulk set");

    let missing = fixture.key("missing");
    let mut wanted: Vec<_> = keys.iter().rev().map(|key| get(key)).collect();
    wanted.insert(1, get(&missing));
    wanted.push(get(&keys[0]));
    let found = store.bulk_get(&wanted, 1).await.expect("bulk get");
    let values: Vec<_> = found
        .into_iter()
        .map(|item| item.expect("no error").map(|item| String::from_utf8_lossy(&item.value).into_owned()))
        .collect();
    let mut expect: Vec<_> = (0..500).rev().map(|index| Some(index.to_string())).collect();
    expect.insert(1, None);
    expect.push(Some("0".to_owned()));
    assert_eq!(values, expect);
    assert!(store.bulk_get(&[], 0).await.expect("nothing").is_empty());

    let deletes = [delete(&keys[0]), delete(&keys[1]).etag("9"), delete(&missing)];
    let error = store.bulk_delete(&deletes).await.expect_err("one etag is stale");
    let BulkError::Items(failed) = error else { panic!("{error:?}") };
    assert!(matches!(&failed[..], [(1, error)] if error.kind() == ErrorKind::EtagMismatch), "{failed:?}");
    assert_eq!(read(store, &keys[0]).await, None);
}

#[tokio::test]
async fn of_many_writers_in_two_stores_one_wins() {
    let Some(fixture) = Fixture::new().await else { return };
    let other = open(&[("redisHost", &fixture.address)]).await.expect("open");
    let key = fixture.key("race");
    fixture.store.set(&set(&key, json("0"))).await.expect("set");
    let writers = (0..32).map(|index| {
        let store = if index % 2 == 0 { Arc::clone(&fixture.store) } else { Arc::clone(&other) };
        let write = set(&key, json(&index.to_string())).etag("1");
        async move { store.set(&write).await }
    });
    let results = futures_util::future::join_all(writers).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(etag(&*other, &key).await, "2");
    other.close().await;
    assert_eq!(etag(&*fixture.store, &key).await, "2");
}

#[tokio::test]
async fn a_lost_connection_costs_no_request() {
    let Some(fixture) = Fixture::new().await else { return };
    let mut proxy = Proxy::start(&fixture.address).await;
    let store = open(&[("redisHost", &proxy.address())]).await.expect("open");
    let key = fixture.key("k");
    store.set(&set(&key, json("1"))).await.expect("set");

    proxy.cut().await;
    assert_eq!(text(&*store, &key).await, "1");

    proxy.cut().await;
    // The loss is noticed without a request, so even a write that cannot be repeated gets a fresh connection.
    sleep(Duration::from_millis(50)).await;
    store.set(&set(&key, json("2")).etag("1")).await.expect("the etag is fresh");
    assert_eq!(etag(&*store, &key).await, "2");
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_until_it_is_back() {
    let Some(fixture) = Fixture::new().await else { return };
    let mut proxy = Proxy::start(&fixture.address).await;
    let address = proxy.address();
    let properties = [("redisHost", &*address), ("redisMaxRetries", "-1")];
    let store = open(&properties).await.expect("open");
    proxy.stop().await;
    for _ in 0..2 {
        let error = store.get(&get("k")).await.expect_err("the server is down");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&address), "{error}");
    }
    assert!(store.ping().await.is_err());
    let error = open(&properties).await.err().expect("the server is down");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&address), "{error}");

    proxy.resume().await;
    store.ping().await.expect("the server is back");
    store.set(&set(&fixture.key("k"), json("1"))).await.expect("the server is back");
}

#[tokio::test]
async fn a_server_that_comes_back_within_the_retries_costs_no_request() {
    let Some(fixture) = Fixture::new().await else { return };
    let mut proxy = Proxy::start(&fixture.address).await;
    let store = open(&[("redisHost", &proxy.address())]).await.expect("open");
    proxy.stop().await;
    let write = set(&fixture.key("k"), json("1"));
    let (written, ()) = tokio::join!(store.set(&write), async {
        sleep(Duration::from_millis(300)).await;
        proxy.resume().await;
    });
    written.expect("a write that was not sent is repeated");
}

#[tokio::test]
async fn a_server_that_does_not_answer_times_out() {
    let Some(fixture) = Fixture::new().await else { return };
    let proxy = Proxy::start(&fixture.address).await;
    let address = proxy.address();
    let store = open(&[("redisHost", &address), ("readTimeout", "1000")]).await.expect("open");
    proxy.freeze(true);
    let start = Instant::now();
    let error = store.get(&get("k")).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.to_string(), format!("redis at {address} did not answer within 1s"));
    assert!(start.elapsed() < Duration::from_secs(3));
    proxy.freeze(false);
    store.get(&get("k")).await.expect("the server answers again");
}

#[tokio::test]
async fn a_wrong_password_is_denied() {
    let Some(fixture) = Fixture::new().await else { return };
    let user = unique();
    let _: () = redis::cmd("ACL")
        .arg(&["SETUSER", &user, "on", ">right", "~*", "+@all"])
        .query(&mut fixture.redis())
        .expect("ACL SETUSER");
    let login = |password| [("redisHost", &*fixture.address), ("redisUsername", &*user), ("redisPassword", password)];
    let error = open(&login("wrong")).await.err().expect("the password is wrong");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains(&fixture.address), "{error}");
    let store = open(&login("right")).await.expect("the password is right");
    store.set(&set(&fixture.key("k"), json("1"))).await.expect("set");
    let _: usize = redis::cmd("ACL").arg(&["DELUSER", &user]).query(&mut fixture.redis()).expect("ACL DELUSER");
}

#[tokio::test]
async fn a_server_that_forgot_the_script_is_told_again() {
    let Some(fixture) = Fixture::new().await else { return };
    let key = fixture.key("k");
    for value in ["1", "2"] {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(&mut fixture.redis()).expect("SCRIPT FLUSH");
        fixture.store.set(&set(&key, json(value))).await.expect("set");
    }
    assert_eq!(etag(&*fixture.store, &key).await, "2");
}

#[tokio::test]
async fn databases_are_apart() {
    let Some(fixture) = Fixture::new().await else { return };
    let other = open(&[("redisHost", &fixture.address), ("redisDB", "1")]).await.expect("open");
    let key = fixture.key("k");
    other.set(&set(&key, json("1"))).await.expect("set");
    assert_eq!(read(&*fixture.store, &key).await, None);
    other.delete(&delete(&key)).await.expect("delete");

    for impossible in [("redisDB", "99999"), ("redisType", "cluster")] {
        let error = open(&[("redisHost", &fixture.address), impossible]).await.err().expect("not on this server");
        assert_eq!(error.kind(), ErrorKind::InvalidMetadata, "{error}");
        assert!(error.to_string().contains(&fixture.address), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_modules_keeps_hashes_and_answers_no_query() {
    let Some(fixture) = Fixture::new().await else { return };
    let (store, key) = (&*fixture.store, fixture.key("k"));
    assert!(!store.features().contains(&Feature::QueryApi));
    store.set(&set(&key, json("{}")).metadata("contentType", "application/json")).await.expect("set");
    assert_eq!(fixture.hash("k")["data"], "{}");
    let query = Query { document: "{}".into(), metadata: Metadata::new() };
    let error = store.query(&query).await.expect_err("no module");
    assert_eq!(error.to_string(), "redis-json server support is required for query capability");
}

#[tokio::test]
async fn a_value_may_be_anything() {
    let Some(fixture) = Fixture::new().await else { return };
    let (store, key) = (&*fixture.store, fixture.key("k"));
    let large = vec![7; 4 << 20];
    for bytes in [b"\0\xff\r\n$-1\r\n" as &[u8], b"", &large] {
        store.set(&set(&key, raw(bytes))).await.expect("set");
        assert_eq!(read(store, &key).await.expect("an item").value, bytes);
    }
    let error = store.set(&set(&key, Value::Json("{".into()))).await.expect_err("not JSON");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let mut strong = set(&key, json("1"));
    strong.options.consistency = Consistency::Strong;
    store.set(&strong).await.expect("without replicas there is nothing to wait for");
}

/// RedisJSON, as far as the script uses it, over plain strings: the module itself is in no distribution.
const FAKE_JSON: &str = r#"
local real = redis
local function json(name, key, path, value)
  local kind = real.call("TYPE", key).ok
  if kind ~= "none" and kind ~= "string" then return { err = "WRONGTYPE" } end
  local text = real.call("GET", key)
  local document = text and cjson.decode(text)
  if name == "JSON.GET" then
    if not document then return false end
    local found = document[path:sub(2)]
    return found ~= nil and tostring(found) or { err = "ERR Path does not exist" }
  end
  if path == "$" then document = cjson.decode(value) else document[path:sub(2)] = tonumber(value) end
  return real.call("SET", key, cjson.encode(document))
end
local function run(call, name, ...)
  if name:sub(1, 5) == "JSON." then return json(name, ...) end
  return call(name, ...)
end
local redis = {
  call = function(...) return run(real.call, ...) end,
  pcall = function(...) return run(real.pcall, ...) end,
}
"#;

#[tokio::test]
async fn the_script_keeps_documents_by_the_rules_of_hashes() {
    let Some(fixture) = Fixture::new().await else { return };
    let script = redis::Script::new(&format!("{FAKE_JSON}{}", include_str!("../src/state/redis/apply.lua")));
    let key = fixture.key("d");
    let mut redis = fixture.redis();
    let mut apply = |verb: &str, expected: &str, data: &str, first: &str| -> usize {
        script.key(&key).arg(&[verb, "json", expected, data, first, ""]).invoke(&mut redis).expect("the script runs")
    };
    let document = || -> Row {
        let text = fixture.redis().get(&key).expect("GET").expect("a document");
        serde_json::from_str(&text).expect("JSON")
    };
    assert_eq!(apply("set", "0", r#"{"data":1}"#, "0"), 0);
    assert_eq!(document(), serde_json::json!({"data": 1, "version": 1}));
    assert_eq!(apply("set", "7", r#"{"data":2}"#, "0"), 1);
    assert_eq!(apply("set", "1", r#"{"data":2}"#, "1"), 0);
    assert_eq!(document(), serde_json::json!({"data": 2, "version": 2, "first-write": 0}));
    assert_eq!(apply("set", "0", r#"{"data":3}"#, "0"), 1);
    assert_eq!(apply("delete", "1", "", ""), 1);
    assert_eq!(apply("delete", "2", "", ""), 0);
    assert!(!fixture.redis().exists(&key).expect("EXISTS"));
    // As with Dapr's script, a document that is not there takes the version that was asked for as its base.
    assert_eq!(apply("set", "4", r#"{"data":4}"#, "0"), 0);
    assert_eq!(document(), serde_json::json!({"data": 4, "version": 5}));
    fixture.redis().del(&key).expect("DEL");
    fixture.redis().hset(&key, "data", "old").expect("HSET");
    assert_eq!(apply("set", "0", r#"{"data":5}"#, "0"), 0);
    assert_eq!(document(), serde_json::json!({"data": 5, "version": 1}));
}
