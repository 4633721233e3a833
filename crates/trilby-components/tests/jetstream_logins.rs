//! `pubsub.jetstream` and the ways to log in to NATS. Each test starts a server of its own, if this machine has the
//! program `nats-server`.
#![cfg(feature = "nats")]

mod support;

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};
use support::{broker::open_pubsub, eventually, inbox::message};
use tempfile::TempDir;
use trilby_component::{ErrorKind, Result, pubsub::PubSub};

/// Tells the process of [`in_a_trusting_process`] the port and the paths of the certificate and its key.
const CHILD: &str = "TRILBY_TEST_CHILD";

/// A server that ends with the test.
struct Server {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Server {
    /// Starts a server with these lines of configuration, in which `{folder}` stands for its folder; `None`, and a line
    /// that says so, if there is no program.
    async fn start(configuration: &str) -> Option<Self> {
        Self::start_in(TempDir::new().expect("a folder for the server"), configuration).await
    }

    async fn start_in(folder: TempDir, configuration: &str) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let path = folder.path().display().to_string();
        let own = format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{path}\" }}\n");
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, own + &configuration.replace("{folder}", &path)).expect("the folder is writable");
        let mut command = Command::new("nats-server");
        command.arg("--config").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            eprintln!("NOT RUN pubsub.jetstream with logins: nats-server is not on the PATH");
            return None;
        };
        eventually("the server starts", || TcpStream::connect(("127.0.0.1", port)).ok()).await;
        Some(Self { child, folder, port })
    }

    async fn open(&self, prefix: &str, properties: &[(&str, &str)]) -> Result<Arc<dyn PubSub>> {
        let url = format!("{prefix}127.0.0.1:{}", self.port);
        open_pubsub("pubsub.jetstream", &[&[("natsURL", &*url)], properties].concat()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn is_denied(opening: impl Future<Output = Result<Arc<dyn PubSub>>>) {
    let error = opening.await.err().expect("the login is wrong");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
}

/// Publishing is answered by the server, so the login has worked.
async fn is_let_in(opening: impl Future<Output = Result<Arc<dyn PubSub>>>) {
    let broker = opening.await.expect("the login is right");
    let error = broker.publish(&message("t", "x")).await.expect_err("there is no stream");
    assert_eq!(error.to_string(), "nats: no response from stream");
    broker.close().await;
}

#[tokio::test]
async fn a_user_and_password_stand_in_the_url() {
    let Some(server) = Server::start("authorization { user: \"u@x\", password: \"p:/w\" }").await else { return };
    is_let_in(server.open("nats://u%40x:p%3A%2Fw@", &[])).await;
    is_denied(server.open("nats://u%40x:wrong@", &[])).await;
    is_denied(server.open("nats://", &[])).await;
}

#[tokio::test]
async fn a_token_stands_in_the_metadata_or_in_the_url() {
    let Some(server) = Server::start("authorization { token: \"secret\" }").await else { return };
    is_let_in(server.open("nats://", &[("token", "secret")])).await;
    is_let_in(server.open("nats://secret@", &[])).await;
    is_denied(server.open("nats://", &[("token", "wrong")])).await;
}

/// A JWT as NATS has them: `subject` is `claims`, says `issuer`.
fn signed(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({
        "jti": "x", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": "n",
        "nats": claims,
    });
    let text = [header, body].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = issuer.sign(text.as_bytes()).expect("it has a seed");
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn a_jwt_is_proved_with_its_key() {
    let (operator, system, account, user) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let mut system_limits = limits.clone();
    for name in ["mem_storage", "disk_storage", "streams", "consumer"] {
        system_limits.as_object_mut().expect("an object").remove(name);
    }
    let operator_jwt = signed(&operator, &operator, &json!({"type": "operator", "version": 2}));
    let account_of = |key: &KeyPair, limits: Value| {
        let jwt = signed(&operator, key, &json!({"type": "account", "version": 2, "limits": limits}));
        format!("{}: {jwt}", key.public_key())
    };
    let configuration = format!(
        "operator: {operator_jwt}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}\n{}\n}}",
        system.public_key(),
        account_of(&system, system_limits),
        account_of(&account, limits),
    );
    let Some(server) = Server::start(&configuration).await else { return };
    let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}});
    let (jwt, seed) = (signed(&account, &user, &claims), user.seed().expect("it has a seed"));
    is_let_in(server.open("nats://", &[("jwt", &jwt), ("seedKey", &seed)])).await;
    let other = KeyPair::new_user().seed().expect("it has a seed");
    is_denied(server.open("nats://", &[("jwt", &jwt), ("seedKey", &other)])).await;
    let error = server.open("nats://", &[("jwt", &jwt), ("seedKey", "nonsense")]).await.err().expect("no key");
    assert_eq!(error.kind(), ErrorKind::InvalidMetadata, "{error}");
}

#[tokio::test]
async fn with_tls_both_sides_show_a_certificate() {
    #[expect(clippy::disallowed_methods, reason = "a test that starts itself says in this way where the server is")]
    if let Ok(arguments) = std::env::var(CHILD) {
        return in_a_trusting_process(&arguments).await;
    }
    let folder = TempDir::new().expect("a folder for certificates");
    if !make_certificates(folder.path()) {
        eprintln!("NOT RUN pubsub.jetstream with TLS: openssl is not on the PATH");
        return;
    }
    let [authority, certificate, key] =
        ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.path().join(name).display().to_string());
    let tls = "tls { cert_file: \"{folder}/cert.pem\", key_file: \"{folder}/key.pem\", \
               ca_file: \"{folder}/ca.pem\", verify: true }";
    let Some(server) = Server::start_in(folder, tls).await else { return };
    let shown = [("tls_client_cert", &*certificate), ("tls_client_key", &*key)];
    let error = server.open("tls://", &shown).await.err().expect("nobody vouches for the server");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");

    // Whom the system trusts is decided once for a process, so a process of its own trusts the test's authority.
    let this = std::env::current_exe().expect("a test is a program");
    let trusting = Command::new(this)
        .args(["--exact", "with_tls_both_sides_show_a_certificate", "--nocapture"])
        .env("SSL_CERT_FILE", &authority)
        .env(CHILD, format!("{} {certificate} {key}", server.port))
        .output()
        .expect("it runs");
    assert!(trusting.status.success(), "{}", String::from_utf8_lossy(&trusting.stderr));
    assert!(server.folder.path().exists());
}

/// The rest of that test, in a process that trusts the test's authority.
async fn in_a_trusting_process(arguments: &str) {
    let [port, certificate, key] = arguments.split(' ').collect::<Vec<_>>()[..] else { panic!("{arguments}") };
    let url = format!("tls://localhost:{port}");
    let shown = [("natsURL", &*url), ("tls_client_cert", certificate), ("tls_client_key", key)];
    is_let_in(open_pubsub("pubsub.jetstream", &shown)).await;
    let error = open_pubsub("pubsub.jetstream", &shown[..1]).await.err().expect("the server wants a certificate");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// An authority, and a certificate that it signed for both sides.
fn make_certificates(folder: &Path) -> bool {
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]).args(arguments);
        command.current_dir(folder).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let authority = ["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"];
    let signed =
        ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem", "-CA", "ca.pem", "-CAkey", "ca.key"];
    let names = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"];
    openssl(&authority) && openssl(&[&signed[..], &names].concat())
}
