//! `secretstores.kubernetes` against a server of the test's own that answers as a cluster's API server does, over TLS.
#![cfg(all(feature = "kubernetes", feature = "mqtt"))]

mod support;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use support::https::{AUTHORITY, serve};
use tempfile::TempDir;
use trilby_component::{
    ErrorKind, Metadata, Result,
    secret::{Secret, SecretStore},
};
use trilby_components::{Host, builtins_with, secret::kubernetes::Surroundings};

/// An API server with the namespaces `shop` and `bank`, and a pod's folder of its service account.
struct Cluster {
    port: u16,
    /// What the header `authorization` must say.
    credential: Arc<Mutex<String>>,
    folder: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let credential = Arc::new(Mutex::new("Bearer t0ken".to_owned()));
        let expected = Arc::clone(&credential);
        let port = serve(true, move |head| respond(head, &expected.lock().expect("no panic"))).await;
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("token"), "t0ken\n").expect("written");
        fs::write(folder.path().join("ca.crt"), AUTHORITY).expect("written");
        Self { port, credential, folder }
    }

    /// What the pod's environment says.
    fn pod(&self, namespace: &str) -> Surroundings {
        let port = self.port.to_string();
        let variables = [
            ("KUBERNETES_SERVICE_HOST", "localhost"),
            ("KUBERNETES_SERVICE_PORT", &port),
            ("NAMESPACE", namespace),
            ("KUBECONFIG", "/nowhere/config"),
        ];
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        Surroundings { service_account: self.folder.path().to_owned(), ..Surroundings::read(variable) }
    }

    /// Writes a kubeconfig, with these settings of cluster and user.
    fn kubeconfig(&self, server: &str, user: &str) -> String {
        let path = self.folder.path().join("config");
        let port = self.port;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\npreferences: {{}}\n\
             clusters: [{{ name: c, cluster: {{ server: 'https://localhost:{port}/', {server} }} }}]\n\
             users: [{{ name: u, user: {{ {user} }} }}]\n\
             contexts: [{{ name: here, context: {{ cluster: c, user: u, namespace: other }} }}]\n"
        );
        fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    }

    fn expect(&self, credential: &str) {
        credential.clone_into(&mut self.credential.lock().expect("no panic"));
    }
}

fn respond(head: &str, credential: &str) -> (u16, Value) {
    let (line, headers) = head.split_once("\r\n").expect("a request");
    let headers: Vec<_> = headers.lines().filter_map(|line| line.split_once(": ")).collect();
    let header = |name: &str| headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
    let status = |code: u16, reason: &str, message: &str| {
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                             "message": message, "reason": reason, "code": code });
        (code, status)
    };
    assert_eq!(header("accept"), Some("application/json"));
    if header("authorization").unwrap_or_default() != credential {
        return status(401, "Unauthorized", "Unauthorized");
    }
    let [_, path, _] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let db = json!({ "kind": "Secret", "apiVersion": "v1", "type": "Opaque",
                     "metadata": { "name": "db", "namespace": "shop" },
                     "data": { "user": "YW5u", "password": "xb4=", "odd": "/w==" } });
    let empty = json!({ "metadata": { "name": "empty", "namespace": "shop" }, "type": "Opaque" });
    let account = json!({ "metadata": { "name": "db" }, "data": { "user": "Ym9i" } });
    match path {
        "/api/v1/namespaces/shop/secrets" => {
            (200, json!({ "kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": [db, empty] }))
        }
        "/api/v1/namespaces/void/secrets" => (200, json!({ "kind": "SecretList", "items": null })),
        "/api/v1/namespaces/shop/secrets/db" => (200, db),
        "/api/v1/namespaces/shop/secrets/empty" => (200, empty),
        "/api/v1/namespaces/bank/secrets/db" => (200, account),
        path if path.starts_with("/api/v1/namespaces/shop/secrets/") => {
            let name = path.rsplit('/').next().unwrap_or_default();
            status(404, "NotFound", &format!("secrets \"{name}\" not found"))
        }
        path if path.starts_with("/api/v1/namespaces/") => {
            status(403, "Forbidden", "secrets is forbidden: User \"system:serviceaccount:shop:default\" cannot list")
        }
        _ => (404, json!("404 page not found")),
    }
}

async fn open(cluster: Surroundings, properties: &[(&str, &str)]) -> Result<Arc<dyn SecretStore>> {
    let host = Host { cluster, ..Host::default() };
    builtins_with(&host).open_secret("secretstores.kubernetes", "v1", support::request(properties)).await
}

fn secret(pairs: &[(&str, &str)]) -> Secret {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn of(namespace: &str) -> Metadata {
    Metadata::from([("namespace".to_owned(), namespace.to_owned())])
}

#[tokio::test]
async fn a_pod_reads_the_secrets_of_its_namespace_and_of_those_it_names() {
    let cluster = Cluster::start().await;
    let store = open(cluster.pod("shop"), &[("defaultNamespace", "elsewhere")]).await.expect("opens");
    assert!(store.features().is_empty());
    let db = secret(&[("user", "ann"), ("password", "ž"), ("odd", "\u{fffd}")]);
    // An empty namespace is none.
    for metadata in [Metadata::new(), of(""), of("shop")] {
        assert_eq!(store.get("db", &metadata).await.expect("read"), db);
    }
    assert_eq!(store.get("db", &of("bank")).await.expect("read"), secret(&[("user", "bob")]));
    assert_eq!(store.get("empty", &of("")).await.expect("read"), Secret::new());
    let all = store.bulk_get(&Metadata::new()).await.expect("read");
    assert_eq!(all.into_iter().collect::<Vec<_>>(), [("db".to_owned(), db), ("empty".to_owned(), Secret::new())]);
    assert!(store.bulk_get(&of("void")).await.expect("read").is_empty());
}

#[tokio::test]
async fn the_servers_refusals_are_told_in_its_words() {
    let cluster = Cluster::start().await;
    let store = open(cluster.pod(""), &[("defaultNamespace", "shop")]).await.expect("opens");
    let error = store.get("nope", &Metadata::new()).await.expect_err("none");
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::NotFound, "secrets \"nope\" not found"));
    let error = store.bulk_get(&of("vault")).await.expect_err("not allowed");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().starts_with("secrets is forbidden: User "), "{error}");
    cluster.expect("Bearer another");
    let error = store.get("db", &Metadata::new()).await.expect_err("wrong token");
    assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Denied, "Unauthorized"));
}

#[tokio::test]
async fn a_token_that_was_replaced_is_read_again() {
    let cluster = Cluster::start().await;
    let store = open(cluster.pod("shop"), &[]).await.expect("opens");
    store.get("db", &Metadata::new()).await.expect("read");
    cluster.expect("Bearer newer");
    fs::write(cluster.folder.path().join("token"), "newer").expect("written");
    store.get("db", &Metadata::new()).await.expect("read");
    fs::write(cluster.folder.path().join("token"), "").expect("written");
    let error = store.get("db", &Metadata::new()).await.expect_err("no token");
    assert!(error.to_string().ends_with("token\": it is empty"), "{error}");
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused_and_so_is_no_namespace() {
    let cluster = Cluster::start().await;
    let store = open(cluster.pod(""), &[]).await.expect("opens");
    let nowhere = "namespace is missing on metadata and NAMESPACE env variable, and no default namespace is set";
    for (name, namespace, expect) in [
        ("db", "", nowhere),
        ("", "shop", "resource name may not be empty"),
        ("..", "shop", "invalid resource name \"..\": [may not be '..']"),
        ("../../bank/secrets/db", "shop", "invalid resource name \"../../bank/secrets/db\": [may not contain '/']"),
        ("db%2f", "shop", "invalid resource name \"db%2f\": [may not contain '%']"),
        ("db", "shop/../bank", "invalid namespace name \"shop/../bank\": [may not contain '/']"),
    ] {
        let error = store.get(name, &of(namespace)).await.expect_err(expect);
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::InvalidRequest, expect));
    }
    let error = store.get("db?watch=1#", &of("shop")).await.expect_err("a name like any other").to_string();
    assert_eq!(error, "secrets \"db%3Fwatch%3D1%23\" not found");
}

#[tokio::test]
async fn a_pod_trusts_its_clusters_authority_only() {
    let cluster = Cluster::start().await;
    fs::remove_file(cluster.folder.path().join("ca.crt")).expect("removed");
    let store = open(cluster.pod("shop"), &[]).await.expect("opens");
    let error = store.get("db", &Metadata::new()).await.expect_err("nobody known vouches for it");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn outside_of_a_pod_a_kubeconfig_says_where_and_who() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let cluster = Cluster::start().await;
    let inline = format!("certificate-authority-data: {}", STANDARD.encode(AUTHORITY));
    for (server, user, credential) in [
        ("certificate-authority: ca.crt", "tokenFile: token", "Bearer t0ken"),
        (&*inline, "token: abc", "Bearer abc"),
        ("insecure-skip-tls-verify: true", "username: ann, password: p", "Basic YW5uOnA="),
        ("insecure-skip-tls-verify: true", "", ""),
    ] {
        cluster.expect(credential);
        let path = cluster.kubeconfig(server, user);
        let own = open(Surroundings::default(), &[("kubeconfigPath", &*path)]).await.expect("opens");
        let around = Surroundings { kubeconfig: Some(path.into()), ..Surroundings::default() };
        let around = open(around, &[]).await.expect("opens");
        for store in [own, around] {
            assert_eq!(store.get("db", &of("bank")).await.expect(credential), secret(&[("user", "bob")]));
        }
    }
}

#[tokio::test]
async fn a_pod_without_a_token_needs_a_kubeconfig() {
    let cluster = Cluster::start().await;
    fs::remove_file(cluster.folder.path().join("token")).expect("removed");
    let error = open(cluster.pod("shop"), &[]).await.err().expect("no such file").to_string();
    assert!(error.starts_with("kubeconfig /nowhere/config: unable to read /nowhere/config: "), "{error}");
    let pod = Surroundings { kubeconfig: None, ..cluster.pod("shop") };
    let error = open(pod, &[]).await.err().expect("nothing to go by").to_string();
    assert_eq!(error, "this is no pod of a cluster, and no kubeconfig is known; set kubeconfigPath, or KUBECONFIG");
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_refused_with_the_reason() {
    let cluster = Cluster::start().await;
    for (server, user, expect) in [
        ("", "exec: { command: aws }", "exec is not supported; use token, tokenFile, client-certificate or username"),
        (
            "proxy-url: 'http://p'",
            "",
            "proxy-url is not supported; use token, tokenFile, client-certificate or username",
        ),
        ("certificate-authority: nope", "", "unable to read "),
        ("certificate-authority-data: '!'", "", "its certificates and keys are not PEM in base64"),
        ("", "client-certificate: ca.crt", "metadata clientKey holds no key in PEM"),
    ] {
        let path = cluster.kubeconfig(server, user);
        let error = open(Surroundings::default(), &[("kubeconfigPath", &*path)]).await.err().expect(expect);
        assert_eq!(error.kind(), ErrorKind::InvalidMetadata);
        assert!(error.to_string().starts_with(&format!("kubeconfig {path}: {expect}")), "{error}");
    }
    let path = cluster.folder.path().join("config");
    fs::write(&path, "current-context: gone").expect("written");
    let error = open(Surroundings::default(), &[("kubeconfigPath", &text(&path))]).await.err().expect("no context");
    assert_eq!(error.to_string(), format!("kubeconfig {}: it has no context \"gone\"", path.display()));
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
