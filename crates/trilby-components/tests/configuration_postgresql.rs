//! `configuration.postgresql` against a PostgreSQL server. `TRILBY_TEST_POSTGRES` says where it is, as for
//! `state.postgresql`.
#![cfg(feature = "postgresql")]

mod support;

use std::sync::Arc;

use support::{
    changes::{Changes, watch},
    proxy::Proxy,
    unique,
};
use tokio_postgres::{Client, NoTls, config::Host};
use trilby_component::{
    CancellationToken, ErrorKind, Metadata, Result,
    configuration::{ConfigurationStore, Item, Items, Sink},
};

/// A table of its own, whose trigger tells of changes on a channel of the same name.
struct Fixture {
    url: String,
    table: String,
    sql: Client,
}

impl Fixture {
    async fn new() -> Option<Self> {
        let url = support::server("configuration.postgresql", "TRILBY_TEST_POSTGRES")?;
        let (sql, connection) = tokio_postgres::connect(&url, NoTls).await.expect("TRILBY_TEST_POSTGRES is up");
        tokio::spawn(connection);
        let fixture = Self { url, table: unique(), sql };
        let create = "CREATE TABLE SETTINGS (key varchar NOT NULL, value varchar NOT NULL, version varchar NOT NULL,
                metadata json);
            CREATE FUNCTION SETTINGS_tell() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE data json;
            BEGIN
                IF TG_OP = 'DELETE' THEN data = row_to_json(OLD); ELSE data = row_to_json(NEW); END IF;
                PERFORM pg_notify('SETTINGS',
                    json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', data)::text);
                RETURN NULL;
            END $$;
            CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON SETTINGS FOR EACH ROW EXECUTE FUNCTION SETTINGS_tell()";
        fixture.execute(create).await;
        Some(fixture)
    }

    async fn end(self) {
        self.execute("DROP TABLE SETTINGS; DROP FUNCTION SETTINGS_tell").await;
    }

    async fn execute(&self, sql: &str) {
        let sql = sql.replace("SETTINGS", &self.table);
        self.sql.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn insert(&self, key: &str, value: &str, version: &str) {
        self.execute(&format!("INSERT INTO SETTINGS VALUES ('{key}', '{value}', '{version}', '{{\"by\": \"test\"}}')"))
            .await;
    }

    async fn try_open(&self, more: &[(&str, &str)]) -> Result<Arc<dyn ConfigurationStore>> {
        let mut properties = vec![("connectionString", self.url.as_str()), ("table", &self.table)];
        properties.extend(more);
        let request = support::request(&properties);
        trilby_components::builtins().open_configuration("configuration.postgresql", "v1", request).await
    }

    async fn open(&self) -> Arc<dyn ConfigurationStore> {
        self.try_open(&[("pgNotifyChannel", &self.table)]).await.expect("the server of TRILBY_TEST_POSTGRES is up")
    }
}

fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn items(rows: &[(&str, &str, &str)]) -> Items {
    let item = |value: &str, version: &str| Item {
        value: value.to_owned(),
        version: version.to_owned(),
        metadata: [("by".to_owned(), "test".to_owned())].into(),
    };
    rows.iter().map(|(key, value, version)| ((*key).to_owned(), item(value, version))).collect()
}

#[tokio::test]
async fn the_newest_row_of_each_key_is_read() {
    let Some(fixture) = Fixture::new().await else { return };
    for (value, version) in [("grey", "9"), ("blue", "10"), ("red", "draft")] {
        fixture.insert("color", value, version).await;
    }
    fixture.insert("size", "4", "1").await;
    let store = fixture.open().await;
    let get = async |names: &[&str]| store.get(&keys(names), &Metadata::new()).await;
    assert_eq!(get(&["color", "nope"]).await.expect("read"), items(&[("color", "blue", "10")]));
    assert_eq!(get(&[]).await.expect("read"), items(&[("color", "blue", "10"), ("size", "4", "1")]));
    let error = get(&["a b"]).await.expect_err("no such key can be");
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidRequest, "invalid key : 'a b'"));
    store.ping().await.expect("it answers");
    store.close().await;
    fixture.end().await;
}

#[tokio::test]
async fn changes_of_the_watched_keys_are_reported() {
    let Some(fixture) = Fixture::new().await else { return };
    let store = fixture.open().await;
    let (some, all) = (Arc::<Changes>::default(), Arc::<Changes>::default());
    let stop = watch(&*store, &keys(&["color"]), &some).await;
    let stop_all = watch(&*store, &[], &all).await;

    fixture.insert("size", "4", "1").await;
    fixture.insert("color", "blue", "1").await;
    some.wait_for("color", "blue").await;
    fixture.execute("UPDATE SETTINGS SET value = 'red', version = '2' WHERE key = 'color'").await;
    some.wait_for("color", "red").await;
    fixture.execute("SELECT pg_notify('SETTINGS', 'not a change')").await;
    fixture.execute("DELETE FROM SETTINGS WHERE key = 'color'").await;
    some.wait_for("color", "").await;
    let expect: Vec<_> = items(&[("color", "blue", "1")]).into_iter().chain(items(&[("color", "red", "2")])).collect();
    assert_eq!(some.all()[..2], expect);
    assert_eq!(some.all()[2..], [("color".to_owned(), Item::default())]);
    all.wait_for("color", "").await;
    assert_eq!(all.values_of("size"), ["4"]);

    stop.cancel();
    stop_all.cancel();
    store.close().await;
    fixture.end().await;
}

#[tokio::test]
async fn changes_during_an_outage_are_made_up_for() {
    let Some(fixture) = Fixture::new().await else { return };
    fixture.insert("color", "blue", "1").await;
    fixture.insert("size", "4", "1").await;
    let config: tokio_postgres::Config = fixture.url.parse().expect("a URL");
    let [Host::Tcp(host)] = config.get_hosts() else { panic!("{} must name one host", fixture.url) };
    let server_port = config.get_ports().first().copied().unwrap_or(5432);
    let mut proxy = Proxy::start(&format!("{host}:{server_port}")).await;
    let port = proxy.port();
    let through = [("host", "127.0.0.1"), ("port", port.as_str()), ("notifyChannel", &fixture.table)];
    let store = fixture.try_open(&through).await.expect("opens");
    let changes = Arc::<Changes>::default();
    let stop = watch(&*store, &keys(&["color", "size"]), &changes).await;

    proxy.stop().await;
    fixture.execute("UPDATE SETTINGS SET value = 'red', version = '2' WHERE key = 'color'").await;
    proxy.resume().await;
    changes.wait_for("color", "red").await;
    fixture.insert("size", "5", "2").await;
    changes.wait_for("size", "5").await;
    assert_eq!(changes.values_of("size"), ["5"], "what has not changed is not reported");

    stop.cancel();
    store.close().await;
    fixture.end().await;
}

#[tokio::test]
async fn a_subscription_may_name_the_channel() {
    let Some(fixture) = Fixture::new().await else { return };
    let store = fixture.try_open(&[]).await.expect("opens");
    let changes = Arc::<Changes>::default();
    let watch = async |metadata: Metadata| {
        let sink = Arc::clone(&changes) as Arc<dyn Sink>;
        store.watch(&[], &metadata, sink, CancellationToken::new()).await
    };
    let named = |channel: &str| Metadata::from([("pgnotifychannel".to_owned(), channel.to_owned())]);

    let error = watch(Metadata::new()).await.err().expect("no channel").to_string();
    let advice = "notifyChannel must be set in component metadata or request metadata";
    assert_eq!(error, format!("unable to subscribe to {:?}. {advice}", fixture.table));
    let error = watch(named("Config")).await.err().expect("upper case").to_string();
    assert!(error.starts_with("invalid notifyChannel name \"Config\""), "{error}");

    let watching = tokio::spawn(watch(named(&fixture.table)).await.expect("watches"));
    fixture.insert("color", "blue", "1").await;
    changes.wait_for("color", "blue").await;
    watching.abort();
    store.close().await;
    fixture.end().await;
}

#[tokio::test]
async fn a_table_that_does_not_exist_is_named() {
    let Some(fixture) = Fixture::new().await else { return };
    let error = fixture.try_open(&[("table", "nowhere")]).await.err().expect("no table");
    let expect = "postgreSQL configuration table 'nowhere' does not exist";
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidMetadata, expect));
    fixture.end().await;
}
