//! More connections than anyone needs.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    IN_MEMORY, JSON, eventually, memory,
    running::{Running, Site},
    status,
    support::{Daprd, DaprdOptions, HttpConnection, free_port, http},
    within,
};

const IDLE: usize = 10_000;
/// File descriptors that the test and daprd need besides.
const SPARE: u64 = 500;
const MOST_MEMORY: usize = 200 << 20;

const PROBE: &[u8] = b"GET /v1.0/healthz/outbound HTTP/1.1\r\nhost: h\r\n\r\n";

/// Lets this process, and those that it starts, have as many open files as it takes.
fn raise_open_files(needed: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return true;
    }
    let raised = Rlimit { current: Some(needed), maximum: limit.maximum };
    let can = limit.maximum.is_none_or(|maximum| maximum >= needed) && setrlimit(Resource::Nofile, raised).is_ok();
    if !can {
        println!("NOT RUN {needed} open files: this user may have {:?}", limit.maximum);
    }
    can
}

/// Sends a request on an open connection and reads its answer, which has no body.
async fn probe(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(PROBE).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 204 "));
    Ok(())
}

/// Connects from an address of its own where the system lets it: ten thousand connections take a third of its ports,
/// and other tests look for free ones.
async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let _ = socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)));
    socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await
}

/// Opens connections; every second one is used once.
async fn open(port: u16, count: usize) -> Vec<TcpStream> {
    let open_one = |number| async move {
        let mut stream = connect(port).await?;
        if number % 2 == 0 {
            probe(&mut stream).await?;
        }
        Ok::<_, std::io::Error>(stream)
    };
    stream::iter(0..count).map(open_one).buffer_unordered(64).try_collect().await.expect("daprd takes connections")
}

#[tokio::test]
async fn ten_thousand_idle_connections_stop_nobody() {
    if !raise_open_files(IDLE as u64 + SPARE) {
        return;
    }
    let daprd = Daprd::start(DaprdOptions { components: IN_MEMORY.into(), ..DaprdOptions::default() }).await;
    let before = memory::resident(daprd.pid());
    let mut idle = within(Duration::from_secs(60), "opening", open(daprd.http_port, IDLE)).await;

    let mut slowest = Duration::ZERO;
    for number in 0..100 {
        let began = Instant::now();
        let body = format!(r#"[{{"key": "k", "value": {number}}}]"#);
        let answer = http(daprd.http_port, "POST", "/v1.0/state/mem", JSON, body.as_bytes()).await.expect("an answer");
        assert_eq!(answer.status, 204);
        slowest = slowest.max(began.elapsed());
    }
    println!("slowest of 100 requests beside {IDLE} idle connections: {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");

    let after = memory::resident(daprd.pid());
    if let (Some(before), Some(after)) = (before, after) {
        println!("resident: {} MiB, {} MiB with the connections", before >> 20, after >> 20);
        assert!(after < MOST_MEMORY, "{after} bytes");
    }
    for stream in idle.iter_mut().step_by(IDLE / 50) {
        within(Duration::from_secs(5), "an idle connection", probe(stream)).await.expect("it is open still");
    }
    // Whoever closes first keeps the port for a while: one port there, ten thousand here.
    daprd.kill().await;
}

/// A daprd with fewer open files than it would like.
async fn limited(site: &Site, limit: &str, port: u16) -> Running {
    site.write("res/mem.yaml", IN_MEMORY);
    let script = format!(r#"ulimit {limit}; exec "$0" "$@""#);
    let (http, grpc) = (port.to_string(), free_port().await.to_string());
    let daprd = Path::new(env!("CARGO_BIN_EXE_daprd")).to_string_lossy();
    let words = [
        "-c",
        &script,
        &daprd,
        "--app-id",
        "a",
        "--dapr-listen-addresses",
        "127.0.0.1",
        "--enable-metrics=false",
        "--resources-path",
        "res",
        "--dapr-http-port",
        &http,
        "--dapr-grpc-port",
        &grpc,
    ];
    let mut running = site.run_words("sh", &words, &[]);
    running.logged("dapr initialized").await;
    running
}

#[tokio::test]
async fn a_daprd_out_of_open_files_serves_who_is_connected_and_recovers() {
    let (site, port) = (Site::new(&[]), free_port().await);
    let mut daprd = limited(&site, "-n 64", port).await;
    let mut early = HttpConnection::open(port).await.expect("it listens");
    assert_eq!(early.send("GET", "/v1.0/healthz", &[], b"").await.expect("an answer").status, 204);

    // More than it can take, and no more than the system keeps waiting for it.
    let crowd: Vec<_> =
        stream::iter(0..120).map(|_| connect(port)).buffered(64).try_collect().await.expect("a backlog");
    daprd.logged("no connection can be accepted").await;
    for _ in 0..20 {
        let answer = early.send("GET", "/v1.0/state/mem/k", &[], b"").await.expect("an answer");
        assert_eq!(answer.status, 204);
    }
    drop(crowd);
    let is_back = async || status(port, "/v1.0/healthz").await == 204;
    eventually(Duration::from_secs(5), "taking connections again", is_back).await;
    let complaints = daprd.log().matches("no connection can be accepted").count();
    assert!(complaints < 500, "{complaints} lines say that no connection can be accepted");
    assert_eq!(daprd.stop().await, Some(0));
}

#[tokio::test]
async fn a_low_soft_limit_of_open_files_is_raised() {
    if !raise_open_files(1000 + SPARE) {
        return;
    }
    let (site, port) = (Site::new(&[]), free_port().await);
    let mut daprd = limited(&site, "-S -n 256", port).await;
    let _idle = within(Duration::from_secs(5), "opening 1,000 connections", open(port, 1000)).await;
    assert_eq!(within(Duration::from_secs(5), "an answer", status(port, "/v1.0/healthz")).await, 204);
    assert!(!daprd.log().contains("no connection can be accepted"));
    assert_eq!(daprd.stop().await, Some(0));
}
