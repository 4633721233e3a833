//! `secretstores.hashicorp.vault` against a server of the test's own that answers as a key-value engine, version 2, does.
#![cfg(all(feature = "vault", feature = "mqtt"))]

mod support;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::{Value, json};
use support::https::{AUTHORITY, serve};
use trilby_component::{
    ErrorKind, Metadata, Result,
    secret::{Feature, Secret, SecretStore},
};

const TOKEN: &str = "s.token";

/// The versions of each secret by its path; one that was deleted has no value.
type Secrets = BTreeMap<String, Vec<Option<Value>>>;

struct Vault {
    port: u16,
}

impl Vault {
    /// An engine that is mounted at `mount`.
    async fn start(mount: &str, secrets: Value, tls: bool) -> Self {
        let mount = mount.to_owned();
        let secrets: Secrets = serde_json::from_value(secrets).expect("versions by path");
        let port = serve(tls, move |head| respond(head, &mount, &secrets)).await;
        Self { port }
    }

    async fn open(&self, more: &[(&str, &str)]) -> Arc<dyn SecretStore> {
        let address = format!("http://127.0.0.1:{}", self.port);
        open(&[&[("vaultAddr", &*address), ("vaultToken", TOKEN)], more].concat()).await.expect("opens")
    }
}

fn respond(head: &str, mount: &str, secrets: &Secrets) -> (u16, Value) {
    let errors = |status, errors: &[&str]| (status, json!({ "errors": errors }));
    let (line, headers) = head.split_once("\r\n").expect("a request");
    let headers = headers.to_ascii_lowercase();
    if !headers.contains("x-vault-request: true") {
        return errors(412, &["required request header missing"]);
    }
    if !headers.contains(&format!("x-vault-token: {TOKEN}")) {
        return errors(403, &["permission denied"]);
    }
    let [method, target, _] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = percent_encoding::percent_decode_str(path).decode_utf8().expect("UTF-8");
    let Some(path) = path.strip_prefix(&format!("/v1/{mount}/")) else {
        return errors(404, &["no handler for route. route entry not found."]);
    };
    let found = match (method, path.split_once('/').expect("a kind")) {
        ("GET", ("data", path)) => secrets.get(path).and_then(|versions| read(versions, query)),
        ("LIST", ("metadata", path)) => list(secrets, path),
        (method, (kind, _)) => return errors(405, &[&format!("{method} {kind}: unsupported operation")]),
    };
    found.unwrap_or_else(|| errors(404, &[]))
}

fn read(versions: &[Option<Value>], query: &str) -> Option<(u16, Value)> {
    let asked: usize = query.strip_prefix("version=").unwrap_or("0").parse().expect("a number");
    let version = if asked == 0 { versions.len() } else { asked };
    let value = versions.get(version - 1)?;
    let deleted = if value.is_some() { "" } else { "2026-01-01T00:00:00Z" };
    let metadata = json!({ "version": version, "deletion_time": deleted, "destroyed": false });
    let data = json!({ "data": { "data": value, "metadata": metadata }, "lease_id": "", "warnings": null });
    Some((if value.is_some() { 200 } else { 404 }, data))
}

fn list(secrets: &Secrets, folder: &str) -> Option<(u16, Value)> {
    let folder = if folder.is_empty() { String::new() } else { format!("{}/", folder.trim_end_matches('/')) };
    let below = secrets.keys().filter_map(|path| path.strip_prefix(&folder));
    let mut keys: Vec<_> = below.map(|rest| rest.split_inclusive('/').next().unwrap_or_default()).collect();
    keys.dedup();
    (!keys.is_empty()).then(|| (200, json!({ "data": { "keys": keys } })))
}

async fn open(properties: &[(&str, &str)]) -> Result<Arc<dyn SecretStore>> {
    let request = support::request(properties);
    trilby_components::builtins().open_secret("secretstores.hashicorp.vault", "v1", request).await
}

fn secret(pairs: &[(&str, &str)]) -> Secret {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn get(store: &dyn SecretStore, name: &str) -> Result<Secret> {
    store.get(name, &Metadata::new()).await
}

#[tokio::test]
async fn a_secret_holds_its_keys_and_has_versions() {
    let secrets =
        json!({ "dapr/db": [{ "user": "old" }, { "user": "ann", "password": "p" }], "dapr/a b/c": [{ "k": "v" }] });
    let vault = Vault::start("secret", secrets, false).await;
    let store = vault.open(&[]).await;
    assert_eq!(store.features(), [Feature::MultipleKeyValuesPerSecret]);
    assert_eq!(get(&*store, "db").await.expect("read"), secret(&[("password", "p"), ("user", "ann")]));
    assert_eq!(get(&*store, "a b/c").await.expect("read"), secret(&[("k", "v")]));
    let version = |number: &str| Metadata::from([("version_id".to_owned(), number.to_owned())]);
    assert_eq!(store.get("db", &version("1")).await.expect("read"), secret(&[("user", "old")]));
    for error in
        [get(&*store, "nope").await.expect_err("none"), store.get("db", &version("9")).await.expect_err("none")]
    {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().ends_with(" failed secret key or version not exist"), "{error}");
    }
    let error = get(&*store, "../../sys/mounts").await.expect_err("outside");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn all_secrets_are_those_in_folders_too_but_not_deleted_ones() {
    let secrets = json!({
        "team/a": [{ "k": "1" }],
        "team/gone": [{ "k": "2" }, null],
        "team/in/side": [{ "k": "3" }],
        "other": [{ "k": "4" }],
    });
    let vault = Vault::start("kv", secrets, false).await;
    let store = vault.open(&[("enginePath", "kv"), ("vaultKVPrefix", "team")]).await;
    let all = store.bulk_get(&Metadata::new()).await.expect("read");
    let expect = [("a", "1"), ("in/side", "3")].map(|(name, value)| (name.to_owned(), secret(&[("k", value)])));
    assert_eq!(all, BTreeMap::from(expect));

    let store = vault.open(&[("enginePath", "kv"), ("vaultKVUsePrefix", "false")]).await;
    let all = store.bulk_get(&Metadata::new()).await.expect("read");
    assert_eq!(all.keys().collect::<Vec<_>>(), ["other", "team/a", "team/in/side"]);

    let store = vault.open(&[("enginePath", "kv"), ("vaultKVPrefix", "empty")]).await;
    let error = store.bulk_get(&Metadata::new()).await.expect_err("nothing there").to_string();
    assert!(error.starts_with("list keys couldn't get successful response, status code 404"), "{error}");
}

#[tokio::test]
async fn as_text_a_secret_is_one_value() {
    let vault = Vault::start("secret", json!({ "dapr/db": [{ "port": 5432, "tls": true }] }), false).await;
    let store = vault.open(&[("vaultValueType", "text")]).await;
    assert!(store.features().is_empty());
    assert_eq!(get(&*store, "db").await.expect("read"), secret(&[("db", r#"{"port":5432,"tls":true}"#)]));
    let error = get(&*vault.open(&[]).await, "db").await.expect_err("a number is no text").to_string();
    assert!(error.starts_with("couldn't decode response body: "), "{error}");
}

#[tokio::test]
async fn a_token_may_be_in_a_file_and_must_be_right() {
    let vault = Vault::start("secret", json!({ "dapr/k": [{ "k": "v" }] }), false).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).expect("written");
    let (address, path) = (format!("http://127.0.0.1:{}/", vault.port), path.to_string_lossy());
    let store = open(&[("vaultAddr", &*address), ("vaultTokenMountPath", &*path)]).await.expect("opens");
    assert_eq!(get(&*store, "k").await.expect("read"), secret(&[("k", "v")]));

    let store = open(&[("vaultAddr", &*address), ("vaultToken", "wrong")]).await.expect("opens");
    let error = get(&*store, "k").await.expect_err("refused");
    let expect = r#"couldn't get successful response, status code 403, body {"errors":["permission denied"]}"#;
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Denied, expect));
}

#[tokio::test]
async fn a_server_is_trusted_as_configured() {
    let vault = Vault::start("secret", json!({ "dapr/k": [{ "k": "v" }] }), true).await;
    let (by_name, by_address) =
        (format!("https://localhost:{}", vault.port), format!("https://127.0.0.1:{}", vault.port));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, AUTHORITY).expect("written");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (file, folder_path) = (text(&file), text(folder.path()));
    let trusted: [&[(&str, &str)]; 5] = [
        &[("vaultAddr", &by_name), ("caPem", AUTHORITY)],
        &[("vaultAddr", &by_name), ("caCert", &file)],
        &[("vaultAddr", &by_name), ("caPath", &folder_path)],
        &[("vaultAddr", &by_address), ("caPem", AUTHORITY), ("tlsServerName", "localhost")],
        &[("vaultAddr", &by_address), ("skipVerify", "true")],
    ];
    for properties in trusted {
        let store = open(&[properties, &[("vaultToken", TOKEN)]].concat()).await.expect("opens");
        assert_eq!(get(&*store, "k").await.expect("trusted"), secret(&[("k", "v")]), "{properties:?}");
    }
    let untrusted: [&[(&str, &str)]; 2] =
        [&[("vaultAddr", &by_name)], &[("vaultAddr", &by_name), ("caPem", AUTHORITY), ("tlsServerName", "vault")]];
    for properties in untrusted {
        let store = open(&[properties, &[("vaultToken", TOKEN)]].concat()).await.expect("opens");
        let error = get(&*store, "k").await.expect_err("not trusted");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_meant_are_refused() {
    for (properties, expect) in [
        (vec![], "token mount path and token not set"),
        (vec![("vaultToken", "t"), ("vaultTokenMountPath", "/t")], "token mount path and token both set"),
        (vec![("vaultTokenMountPath", "/nowhere/t")], "couldn't read vault token from mount path /nowhere/t err: "),
        (
            vec![("vaultToken", "t"), ("vaultValueType", "list")],
            "vault init error, invalid value type list, accepted values are map or text",
        ),
        (vec![("vaultToken", "t"), ("vaultAddr", "vault:8200")], "metadata vaultAddr: \"vault:8200\" is no URL"),
        (vec![("vaultToken", "t"), ("caCert", "/nowhere/ca")], "couldn't read CA file /nowhere/ca from disk: "),
    ] {
        let error = open(&properties).await.err().expect(expect);
        assert_eq!(error.kind(), ErrorKind::InvalidMetadata);
        assert!(error.to_string().starts_with(expect), "{error}");
    }
}
