//! Load on a server: a number of connections, one request in flight on each.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use drivers::{Result, cpu_time};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Mutex};

/// How long one round of a load lasts.
const ROUND: Duration = Duration::from_secs(2);

/// What a load showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    /// Requests per second of processor time that the server's process used.
    pub(crate) per_cpu_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

impl Load {
    /// The round in the middle by requests per CPU second.
    pub(crate) fn median(mut rounds: Vec<Self>) -> Self {
        rounds.sort_by(|a, b| a.per_cpu_second.total_cmp(&b.per_cpu_second));
        rounds[rounds.len() / 2]
    }
}

/// Runs `callers` for one round, each repeating its own call, against the process `pid`.
pub(crate) async fn run<C, F>(pid: u32, callers: Vec<C>) -> Result<Load>
where
    C: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let used = cpu_time(pid)?;
    let started = Instant::now();
    let tasks = callers.into_iter().map(|mut call| {
        tokio::spawn(async move {
            let mut took = Vec::new();
            while started.elapsed() < ROUND {
                let began = Instant::now();
                call().await?;
                took.push(began.elapsed());
            }
            Ok::<_, String>(took)
        })
    });
    let took = try_join_all(tasks).await.map_err(|error| error.to_string())?;
    let elapsed = started.elapsed().as_secs_f64();
    let cpu = (cpu_time(pid)? - used).as_secs_f64();
    let mut took = took.into_iter().collect::<Result<Vec<_>>>()?.concat();
    took.sort_unstable();
    let requests = took.len() as f64;
    Ok(Load {
        per_second: requests / elapsed,
        per_cpu_second: requests / cpu,
        p50: took[took.len() / 2],
        p99: took[took.len() * 99 / 100],
    })
}

/// Repeats one HTTP request over a number of connections.
pub(crate) async fn http(
    pid: u32,
    port: u16,
    connections: usize,
    method: &'static str,
    path: &'static str,
    body: &'static str,
) -> Result<Load> {
    let mut callers = Vec::new();
    for _ in 0..connections {
        let connection = Arc::new(Mutex::new(HttpConnection::open(port).await?));
        callers.push(move || {
            let connection = Arc::clone(&connection);
            async move { connection.lock().await.call(method, path, body).await.map(drop) }
        });
    }
    run(pid, callers).await
}

/// One HTTP/1.1 connection that is kept open.
pub(crate) struct HttpConnection {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl HttpConnection {
    pub(crate) async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// Sends a request and reads the answer to its end; anything but success is a failure.
    pub(crate) async fn call(&mut self, method: &str, path: &str, body: &'static str) -> Result<Bytes> {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request =
            request.body(Full::new(Bytes::from_static(body.as_bytes()))).map_err(|error| error.to_string())?;
        // The connection may still be putting the previous exchange away.
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let response = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(format!("{method} {path}: {status} {body:?}")) }
    }
}
