//! Real processes and sockets for the tests of the binaries.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, client::conn::http1::SendRequest, service::service_fn};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinHandle,
};
use tonic::transport::{Channel, Endpoint};

/// How a daprd under test is set up. `FILES` in a text stands for the folder of its files.
#[derive(Default)]
pub(crate) struct DaprdOptions {
    pub(crate) app_id: Option<String>,
    pub(crate) app_port: Option<u16>,
    pub(crate) app_protocol: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) components: String,
    pub(crate) config: Option<String>,
    pub(crate) files: Vec<(&'static str, String)>,
    pub(crate) env: Vec<(&'static str, String)>,
    pub(crate) args: Vec<String>,
}

/// A running daprd. Killed when dropped.
pub(crate) struct Daprd {
    pub(crate) http_port: u16,
    pub(crate) grpc_port: u16,
    pub(crate) app_port: u16,
    pub(crate) folder: TempDir,
    child: Child,
}

/// What a server answered.
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Daprd {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(options: DaprdOptions) -> Self {
        let mut daprd = Self::spawn(options).await;
        let started = Instant::now();
        loop {
            if let Some(answer) = daprd.try_http("GET", "/v1.0/healthz", &[], b"").await
                && answer.status == 204
            {
                return daprd;
            }
            if let Some(status) = daprd.child.try_wait().expect("a child") {
                panic!("daprd ended with {status} instead of starting; its log: {}", daprd.log());
            }
            assert!(started.elapsed() < Duration::from_secs(30), "daprd is not ready; its log: {}", daprd.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it without waiting.
    pub(crate) async fn spawn(options: DaprdOptions) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let files = folder.path().join("files");
        let resources = folder.path().join("resources");
        std::fs::create_dir_all(&files).expect("a folder");
        std::fs::create_dir_all(&resources).expect("a folder");
        let fill = |text: &str| text.replace("FILES", &files.to_string_lossy());
        for (name, text) in &options.files {
            std::fs::write(files.join(name), fill(text)).expect("a file");
        }
        if !options.components.is_empty() {
            std::fs::write(resources.join("components.yaml"), fill(&options.components)).expect("a file");
        }
        let (http_port, grpc_port) = (free_port().await, free_port().await);
        let log = std::fs::File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_daprd"));
        command
            .args(["--app-id", options.app_id.as_deref().unwrap_or("myapp")])
            .args(["--dapr-http-port", &http_port.to_string(), "--dapr-grpc-port", &grpc_port.to_string()])
            .args(["--dapr-listen-addresses", "127.0.0.1", "--enable-metrics=false"])
            .arg("--resources-path")
            .arg(&resources)
            .args(&options.args)
            .envs(options.env.iter().map(|(name, value)| (name, value)))
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(port) = options.app_port {
            command.args(["--app-port", &port.to_string()]);
        }
        if let Some(protocol) = &options.app_protocol {
            command.args(["--app-protocol", protocol]);
        }
        if let Some(config) = &options.config {
            let path = folder.path().join("config.yaml");
            std::fs::write(&path, fill(config)).expect("a file");
            command.arg("--config").arg(path);
        }
        if let Some(namespace) = &options.namespace {
            command.env("NAMESPACE", namespace);
        }
        let child = command.spawn().expect("daprd starts");
        Self { http_port, grpc_port, app_port: options.app_port.unwrap_or_default(), folder, child }
    }

    /// Its files folder.
    pub(crate) fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until it ends by itself and returns its exit code.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        ended.expect("daprd ends within 30 s").expect("a child").code()
    }

    /// Kills it at once, as `kill -9` does.
    pub(crate) async fn kill(mut self) -> TempDir {
        self.child.kill().await.expect("a child");
        self.folder
    }

    /// Sends it a signal.
    pub(crate) async fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().await.expect("kill");
        assert!(status.success(), "daprd had ended already; its log: {}", self.log());
    }

    /// Asks it to stop and waits.
    pub(crate) async fn stop(mut self) {
        self.signal("TERM").await;
        self.exit_code().await;
    }

    /// One request to its HTTP port.
    pub(crate) async fn http(&self, method: &str, path: &str, body: &str) -> HttpAnswer {
        self.raw_http(method, path, &[("content-type", "application/json")], body.as_bytes()).await
    }

    /// One request with exactly these headers.
    pub(crate) async fn raw_http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
        let answer = self.try_http(method, path, headers, body).await;
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}; the log: {}", self.log()))
    }

    async fn try_http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<HttpAnswer> {
        http(self.http_port, method, path, headers, body).await
    }

    /// A connection to its gRPC port.
    pub(crate) fn grpc_channel(&self) -> Channel {
        let address = format!("http://127.0.0.1:{}", self.grpc_port);
        Endpoint::from_shared(address).expect("an address").connect_lazy()
    }
}

/// One request over a connection of its own; `None` if nobody answers.
pub(crate) async fn http(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<HttpAnswer> {
    HttpConnection::open(port).await?.send(method, path, headers, body).await
}

/// A connection for one request after the other.
pub(crate) struct HttpConnection {
    port: u16,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl HttpConnection {
    /// Connects; `None` if nobody listens.
    pub(crate) async fn open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let driver = tokio::spawn(async { drop(connection.await) });
        Some(Self { port, sender, driver })
    }

    /// Sends a request and waits for the whole answer; `None` if the connection breaks before.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<HttpAnswer> {
        let host = format!("127.0.0.1:{}", self.port);
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).expect("a request");
        self.sender.ready().await.ok()?;
        let (parts, body) = self.sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Some(HttpAnswer { status: parts.status.as_u16(), headers, body })
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A request as an app sees it.
pub(crate) struct HttpRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

/// What an app answers.
pub(crate) struct HttpReply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: Bytes,
}

impl HttpReply {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// An ordinary HTTP app. Ends with the test.
pub(crate) struct HttpServer {
    pub(crate) port: u16,
    accepting: JoinHandle<()>,
}

impl HttpServer {
    pub(crate) async fn start(answer: impl Fn(HttpRequest) -> HttpReply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let answer = Arc::new(answer);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                let serve = service_fn(move |request| respond(Arc::clone(&answer), request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        Self { port, accepting }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn respond<F>(answer: Arc<F>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error>
where
    F: Fn(HttpRequest) -> HttpReply,
{
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let reply = answer(HttpRequest { method: parts.method.to_string(), path: parts.uri.to_string(), headers, body });
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(reply.body)).expect("a response"))
}

/// A port that was free a moment ago.
pub(crate) async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// The address of a real server from the environment, or a NOT RUN line.
pub(crate) fn backend(variable: &str, what: &str) -> Option<String> {
    let address = std::env::var(variable).ok();
    if address.is_none() {
        println!("NOT RUN {what}: {variable} is not set");
    }
    address
}

/// A Wasm guest that `cargo xtask guests` built, or a NOT RUN line.
pub(crate) fn guest(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TRILBY_TEST_GUESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/wasm"), PathBuf::from);
    let path = folder.join(format!("{name}.wasm"));
    if path.exists() {
        return Some(path);
    }
    println!("NOT RUN {name}: {} is missing; run `cargo xtask guests`", path.display());
    None
}
