//! A store that is down: from the start, suddenly, or without a word.

use std::{
    net::TcpListener,
    process::Stdio,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    IN_MEMORY, ask, eventually, status,
    support::{Daprd, DaprdOptions, HttpAnswer, free_port},
    text, within,
};

/// Requests that are sent at once: they must not wait for each other's failures.
const AT_ONCE: usize = 16;

/// A Redis server that ends with the test.
struct Redis {
    port: u16,
    child: Child,
    _folder: TempDir,
}

impl Redis {
    /// Starts one; `None`, and a line that says so, if this machine has none.
    async fn start(port: u16) -> Option<Self> {
        let folder = TempDir::new().expect("a folder");
        let port_text = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let Ok(child) = child else {
            println!("NOT RUN stores that go away: redis-server is not on the PATH");
            return None;
        };
        let is_up = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        eventually(Duration::from_secs(10), "the start of redis-server", is_up).await;
        Some(Self { port, child, _folder: folder })
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().await.expect("kill").success());
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("a child");
    }
}

fn redis(port: u16, spec: &str, metadata: &str) -> String {
    format!(
        "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{ name: rd }}
spec: {{ type: state.redis, version: v1, {spec} metadata: [{{ name: redisHost, value: '127.0.0.1:{port}' }} {metadata}] }}
"
    )
}

fn options(port: u16, spec: &str, metadata: &str) -> DaprdOptions {
    DaprdOptions { components: format!("{IN_MEMORY}---{}", redis(port, spec, metadata)), ..DaprdOptions::default() }
}

async fn save(daprd: &Daprd, store: &str) -> HttpAnswer {
    ask(daprd.http_port, "POST", &format!("/v1.0/state/{store}"), br#"[{"key": "k", "value": 1}]"#).await
}

/// Sends reads and writes at once; all must fail, soon, with what says that it is this store and why. Meanwhile the
/// other store answers as ever.
async fn fails(daprd: &Daprd, limit: Duration, reason: &str) {
    let started = Instant::now();
    let ask_one = async |number: usize| {
        if number.is_multiple_of(2) {
            (save(daprd, "rd").await, "ERR_STATE_SAVE")
        } else {
            (ask(daprd.http_port, "GET", "/v1.0/state/rd/k", b"").await, "ERR_STATE_GET")
        }
    };
    let neighbour = async {
        for _ in 0..20 {
            let answer = within(Duration::from_secs(2), "the other store", save(daprd, "mem")).await;
            assert_eq!(answer.status, 204);
        }
    };
    let (answers, ()) = tokio::join!(join_all((0..AT_ONCE).map(ask_one)), neighbour);
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    for (answer, code) in answers {
        let text = text(&answer);
        assert_eq!(answer.status, 500, "{text}");
        for part in [code, "state store rd", reason] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }
}

async fn recovers(daprd: &Daprd) {
    let saves = async || save(daprd, "rd").await.status == 204;
    eventually(Duration::from_secs(5), "the way back to the store", saves).await;
    assert_eq!(text(&ask(daprd.http_port, "GET", "/v1.0/state/rd/k", b"").await), "1");
}

#[tokio::test]
async fn a_store_that_goes_away_is_named_and_found_again() {
    let Some(server) = Redis::start(free_port().await).await else { return };
    let port = server.port;
    let daprd = Daprd::start(options(port, "", "")).await;
    assert_eq!(save(&daprd, "rd").await.status, 204);

    server.kill().await;
    // Each request is tried four times, with pauses of half a second.
    fails(&daprd, Duration::from_secs(5), &format!("127.0.0.1:{port}")).await;

    let Some(_server) = Redis::start(port).await else { return };
    recovers(&daprd).await;
    daprd.stop().await;
}

#[tokio::test]
async fn a_store_that_says_nothing_costs_its_timeout_and_no_more() {
    let Some(server) = Redis::start(free_port().await).await else { return };
    let port = server.port;
    let daprd = Daprd::start(options(port, "", ", { name: readTimeout, value: 500ms }")).await;
    assert_eq!(save(&daprd, "rd").await.status, 204);

    server.signal("STOP").await;
    let reason = format!("redis at 127.0.0.1:{port} did not answer within 500ms");
    fails(&daprd, Duration::from_secs(3), &reason).await;
    server.signal("CONT").await;
    recovers(&daprd).await;

    server.signal("STOP").await;
    within(Duration::from_secs(10), "the end of daprd", daprd.stop()).await;
}

/// Starts a daprd that must not come up, and returns what it logged.
async fn refused(options: DaprdOptions) -> String {
    let mut daprd = Daprd::spawn(options).await;
    assert_eq!(within(Duration::from_secs(9), "the end of daprd", daprd.exit_code()).await, Some(1));
    daprd.log()
}

#[tokio::test]
async fn a_store_that_is_down_at_the_start_is_fatal_and_named() {
    let down = free_port().await;
    // Takes connections, and never a word of what is said on them.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent_port = silent.local_addr().expect("an address").port();
    let (by_down, by_silent) = tokio::join!(
        refused(options(down, "", "")),
        refused(options(silent_port, "", ", { name: readTimeout, value: 500ms }"))
    );
    for (log, port) in [(by_down, down), (by_silent, silent_port)] {
        let fatal =
            log.lines().find(|line| line.contains("level=fatal")).unwrap_or_else(|| panic!("no fatal in {log}"));
        for part in ["component rd (state.redis/v1)", &format!("127.0.0.1:{port}")] {
            assert!(fatal.contains(part), "no {part:?} in {fatal}");
        }
    }
}

#[tokio::test]
async fn a_store_whose_errors_are_ignored_is_as_if_it_were_not_there() {
    let daprd = Daprd::start(options(free_port().await, "ignoreErrors: true,", "")).await;
    let calls = [
        ("GET", "/v1.0/state/rd/k"),
        ("POST", "/v1.0/state/rd"),
        ("DELETE", "/v1.0/state/rd/k"),
        ("POST", "/v1.0/state/rd/transaction"),
    ];
    for (method, path) in calls {
        let answer = ask(daprd.http_port, method, path, b"[]").await;
        assert_eq!(answer.status, 400, "{method} {path}");
        assert!(text(&answer).contains("ERR_STATE_STORE_NOT_FOUND"), "{}", text(&answer));
    }
    assert_eq!(save(&daprd, "mem").await.status, 204);
    assert_eq!(status(daprd.http_port, "/v1.0/healthz").await, 204);
    let metadata = text(&ask(daprd.http_port, "GET", "/v1.0/metadata", b"").await);
    assert!(metadata.contains(r#""name":"mem""#) && !metadata.contains(r#""name":"rd""#), "{metadata}");
    daprd.stop().await;
}
