//! The process `daprd`: what tools and scripts around it count on.

mod support;

#[path = "support/running.rs"]
mod running;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use running::Site;
use serde_json::Value;
use support::{Daprd, DaprdOptions, HttpReply, HttpServer, free_port, http};

const MEMORY: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: mem }
spec: { type: state.in-memory, version: v1 }
";

/// Flags for a daprd that does not get in the way of others.
async fn quiet() -> (u16, String) {
    let (http, grpc) = (free_port().await, free_port().await);
    let line = format!(
        "--app-id myapp --dapr-listen-addresses 127.0.0.1 --dapr-http-port {http} --dapr-grpc-port {grpc} --enable-metrics=false"
    );
    (http, line)
}

async fn status(port: u16, path: &str) -> Option<u16> {
    http(port, "GET", path, &[], b"").await.map(|answer| answer.status)
}

#[tokio::test]
async fn the_lines_that_tools_look_for_are_logged_and_the_end_is_graceful() {
    let site = Site::new(&[]);
    let (_, line) = quiet().await;
    let mut daprd = site.daprd(&line);
    let first = daprd.logged("Starting Dapr Runtime -- version ").await;
    assert!(first.starts_with("time=\"20"), "{first}");
    let expected = " level=info msg=\"Starting Dapr Runtime -- version 1.18.3";
    assert!(first.contains(expected) && first.contains(" app_id=myapp instance="), "{first}");
    assert!(first.contains(" scope=dapr.runtime type=log ver="), "{first}");
    daprd.logged("dapr initialized. Status: Running. Init Elapsed ").await;
    assert_eq!(daprd.stop().await, Some(0));
    assert!(daprd.log().contains("Received signal 'terminated'; beginning shutdown"), "{}", daprd.log());
    assert!(daprd.log().lines().last().is_some_and(|last| last.contains("Daprd shutdown gracefully")));
}

#[tokio::test]
async fn json_lines_have_the_keys_of_a_stock_daprd() {
    let site = Site::new(&[]);
    let (_, line) = quiet().await;
    let mut daprd = site.daprd(&format!("{line} --log-as-json"));
    daprd.logged("dapr initialized").await;
    daprd.stop().await;
    let stock = BTreeSet::from(["app_id", "instance", "level", "msg", "scope", "time", "type", "ver"]);
    for line in daprd.log().lines() {
        let line: Value = serde_json::from_str(line).expect("one JSON object a line");
        let keys: BTreeSet<_> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        assert!(keys.is_superset(&stock), "{line}");
        assert_eq!((&line["type"], &line["app_id"]), (&"log".into(), &"myapp".into()));
    }
}

#[tokio::test]
async fn it_waits_for_the_app_and_can_be_called_meanwhile() {
    let site = Site::new(&[]);
    let (http, line) = quiet().await;
    let app_port = free_port().await;
    let mut daprd = site.daprd(&format!("{line} --app-port {app_port}"));
    daprd.logged(&format!("application protocol: http. waiting on port {app_port}.  This will block")).await;
    assert_eq!(status(http, "/v1.0/healthz/outbound").await, Some(204));
    assert_eq!(status(http, "/v1.0/healthz").await, Some(500));

    let listener = TcpListener::bind(("127.0.0.1", app_port)).expect("free a moment ago");
    daprd.logged(&format!("application discovered on port {app_port}")).await;
    daprd.logged("dapr initialized").await;
    assert_eq!(status(http, "/v1.0/healthz").await, Some(204));
    drop(listener);
    assert_eq!(daprd.stop().await, Some(0));
}

/// An app that takes its time, on a thread of its own so that nothing else here waits for it. Returns its port.
fn slow_app(time: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let answer = move |mut stream: TcpStream| {
        // daprd only looks whether the port is open, and sends nothing then.
        if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
            std::thread::sleep(time);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").ok();
        }
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

#[tokio::test]
async fn what_is_under_way_is_finished() {
    let app = slow_app(Duration::from_millis(800));
    let site = Site::new(&[]);
    let (port, line) = quiet().await;
    let mut daprd = site.daprd(&format!("{line} --app-port {app}"));
    daprd.logged("dapr initialized").await;
    let call = tokio::spawn(async move { http(port, "GET", "/v1.0/invoke/myapp/method/slow", &[], b"").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(daprd.stop().await, Some(0));
    let answer = call.await.expect("a task").expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"done"[..]));
}

#[tokio::test]
async fn whoever_says_it_twice_does_not_wait() {
    let app = slow_app(Duration::from_secs(4));
    let site = Site::new(&[]);
    let (port, line) = quiet().await;
    let mut daprd = site.daprd(&format!("{line} --app-port {app} --dapr-graceful-shutdown-seconds 60"));
    daprd.logged("dapr initialized").await;
    let call = tokio::spawn(async move { http(port, "GET", "/v1.0/invoke/myapp/method/slow", &[], b"").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = Instant::now();
    daprd.signal("TERM").await;
    daprd.logged("Dapr is shutting down").await;
    daprd.signal("INT").await;
    assert_eq!(daprd.ended().await, Some(1));
    assert!(asked.elapsed() < Duration::from_secs(3), "it took {:?}", asked.elapsed());
    call.abort();
}

#[tokio::test]
async fn a_hangup_reads_the_files_again() {
    let site = Site::new(&[("res/mem.yaml", MEMORY)]);
    let (port, line) = quiet().await;
    let mut daprd = site.daprd(&format!("{line} --resources-path res"));
    daprd.logged("dapr initialized").await;
    site.write("res/more.yaml", MEMORY.replace("name: mem", "name: more"));
    daprd.signal("HUP").await;
    daprd.logged("component=more").await;
    let started = Instant::now();
    while status(port, "/v1.0/state/more/k").await != Some(204) {
        assert!(started.elapsed() < Duration::from_secs(10), "{}", daprd.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(daprd.stop().await, Some(0));
}

#[tokio::test]
async fn the_app_may_ask_for_the_end() {
    let site = Site::new(&[]);
    for (headers, code) in [(&[][..], 0), (&[("dapr-force-shutdown", "true")][..], 1)] {
        let (port, line) = quiet().await;
        let mut daprd = site.daprd(&line);
        daprd.logged("dapr initialized").await;
        let answer = http(port, "POST", "/v1.0/shutdown", headers, b"").await.expect("an answer");
        assert_eq!(answer.status, 204);
        assert_eq!(daprd.ended().await, Some(code));
    }
}

#[tokio::test]
async fn metrics_the_public_port_and_sockets_are_where_they_were_asked_for() {
    let site = Site::new(&[("res/mem.yaml", MEMORY)]);
    let (metrics, public) = (free_port().await, free_port().await);
    let mut daprd = site.daprd(&format!(
        "--app-id myapp --unix-domain-socket . --metrics-port {metrics} --metrics-listen-address 127.0.0.1 \
         --dapr-public-port {public} --dapr-public-listen-address 127.0.0.1 --resources-path res"
    ));
    daprd.logged("dapr initialized").await;
    assert_eq!(status(metrics, "/metrics").await, Some(200));
    assert_eq!(status(public, "/v1.0/healthz").await, Some(204));
    assert_eq!(status(public, "/v1.0/state/mem/k").await, Some(404));
    for door in ["http", "grpc"] {
        assert!(site.path(&format!("dapr-myapp-{door}.socket")).exists(), "{door}");
    }
    assert_eq!(daprd.stop().await, Some(0));
    assert!(!site.path("dapr-myapp-http.socket").exists());
}

#[tokio::test]
async fn tokens_come_from_the_environment() {
    let app = HttpServer::start(|request| {
        let token = request.headers.iter().find(|(name, _)| name == "dapr-api-token");
        HttpReply::new(200, token.map(|(_, value)| value.clone()).unwrap_or_default())
    })
    .await;
    let options = DaprdOptions {
        app_port: Some(app.port),
        env: vec![("DAPR_API_TOKEN", "inward".into()), ("APP_API_TOKEN", "outward".into())],
        ..DaprdOptions::default()
    };
    let daprd = Daprd::start(options).await;
    assert_eq!(daprd.raw_http("GET", "/v1.0/metadata", &[], b"").await.status, 401);
    let token = [("dapr-api-token", "inward")];
    let answer = daprd.raw_http("GET", "/v1.0/invoke/myapp/method/x", &token, b"").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"outward"[..]));
    daprd.stop().await;
}

#[tokio::test]
async fn waiting_for_another_daprd_ends_when_it_can_be_called() {
    let site = Site::new(&[]);
    let (port, line) = quiet().await;
    let other = Site::new(&[]);
    let mut waiting = other.daprd(&format!("--wait --dapr-http-port {port}"));
    waiting.logged("Waiting for Dapr to be outbound ready").await;
    let mut daprd = site.daprd(&line);
    assert_eq!(waiting.ended().await, Some(0));
    daprd.stop().await;
}

#[tokio::test]
async fn what_this_version_does_not_have_is_said_once() {
    let site = Site::new(&[]);
    let (_, line) = quiet().await;
    let mut daprd =
        site.daprd(&format!("{line} --placement-host-address a:1 --enable-mtls --mode kubernetes --components-path ."));
    daprd.logged("dapr initialized").await;
    daprd.stop().await;
    let log = daprd.log();
    for flag in ["placement-host-address", "enable-mtls", "mode", "components-path"] {
        let lines =
            log.lines().filter(|line| line.contains("level=warning") && line.contains(&format!("flag --{flag} ")));
        assert_eq!(lines.count(), 1, "{flag}: {log}");
    }
}
