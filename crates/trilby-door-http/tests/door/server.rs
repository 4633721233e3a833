//! The listener, over real sockets and mostly by hand: what a polite client would never send.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use trilby_core::{AppChannel, Body, Request, Response, app};
use trilby_door_http::Options;

use crate::support::{Setup, door};

const SOON: Duration = Duration::from_secs(5);
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(setup: Setup) -> Self {
        let (door, _) = door(setup);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move { door.serve(listener, async { drop(stopped.await) }).await });
        Self { address, stop, running }
    }

    async fn with(options: Options) -> Self {
        Self::start(Setup { options, ..Setup::default() }).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("listening")
    }

    /// Sends text and reads all that comes until the server closes.
    async fn exchange(&self, sent: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(sent.as_bytes()).await.expect("sends");
        read_to_end(&mut stream).await
    }
}

async fn read_to_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut received = Vec::new();
    timeout(SOON, stream.read_to_end(&mut received)).await.expect("the server closes").expect("no reset");
    String::from_utf8_lossy(&received).into_owned()
}

/// Reads until the text has come.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut received = Vec::new();
    while !String::from_utf8_lossy(&received).contains(text) {
        let read = timeout(SOON, stream.read_buf(&mut received)).await.expect("an answer").expect("no reset");
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&received));
    }
    String::from_utf8_lossy(&received).into_owned()
}

#[tokio::test]
async fn requests_sent_together_are_answered_in_order() {
    let server = Server::with(Options::default()).await;
    let answers = server
        .exchange("GET /v1.0/healthz/outbound HTTP/1.1\r\nhost: h\r\n\r\nGET /nothing HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .await;
    let second = answers.find("HTTP/1.1 404 Not Found\r\n").expect("two answers");
    assert!(answers.starts_with("HTTP/1.1 204 No Content\r\n"));
    assert!(answers[second..].contains("\r\ncontent-type: application/json\r\n"));
    assert!(answers[second..].contains("\r\ndate: "));
    assert!(answers.ends_with("dapr-app-id\"}"));
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_rest_of_the_next_request() {
    let server = Server::with(Options::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /v1.0/healthz/outbound HTTP/1.1\r\nhost: h\r\n\r\nGET /v1.0/hea").await.expect("sends");
    read_until(&mut stream, "HTTP/1.1 204 No Content").await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_with_431() {
    let server = Server::with(Options::default()).await;
    let long = "x".repeat(9 << 10);
    let answer = server.exchange(&format!("GET / HTTP/1.1\r\nhost: h\r\nlong: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let raised = Server::with(Options { max_header_bytes: 16 << 10, ..Options::default() }).await;
    let answer =
        raised.exchange(&format!("GET / HTTP/1.1\r\nhost: h\r\nlong: {long}\r\nconnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn a_slow_head_is_cut_off_but_an_idle_connection_is_not() {
    let server = Server::with(Options { header_read_timeout: Duration::from_millis(200), ..Options::default() }).await;
    for start in ["GET", "GET /v1.0/healthz HTTP/1.1\r\nho"] {
        assert_eq!(server.exchange(start).await, "", "closed without an answer");
    }
    let mut idle = server.connect().await;
    for _ in 0..2 {
        sleep(Duration::from_millis(500)).await;
        idle.write_all(b"PUT /v1.0/metadata/k HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\na")
            .await
            .expect("still open");
        sleep(Duration::from_millis(500)).await;
        idle.write_all(b"b").await.expect("a body may take its time");
        assert!(read_until(&mut idle, "\r\n\r\n").await.starts_with("HTTP/1.1 204 "));
    }
    idle.write_all(b"GET / HTTP/1.1\r\n").await.expect("still open");
    assert_eq!(read_to_end(&mut idle).await, "", "the limit holds for later heads too");
}

#[tokio::test]
async fn a_caller_that_has_nothing_more_to_say_gets_its_answer() {
    let started = Arc::new(Notify::new());
    let notify = Arc::clone(&started);
    let slow = app::from_fn(move |_| {
        let notify = Arc::clone(&notify);
        async move {
            notify.notify_one();
            sleep(Duration::from_millis(200)).await;
            Response::new(Body::from("late"))
        }
    });
    let server = Server::start(Setup { app: Some(Arc::new(slow)), ..Setup::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /v1.0/invoke/other/method/m HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sends");
    started.notified().await;
    stream.shutdown().await.expect("half-closes");
    assert!(read_to_end(&mut stream).await.ends_with("\r\n\r\nlate"));
}

#[tokio::test]
async fn the_sender_of_too_much_sees_why_it_is_refused() {
    let server = Server::with(Options { max_body_bytes: 1 << 10, ..Options::default() }).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST /v1.0/state/mem HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 5000000\r\n\r\n")
        .await
        .expect("sends");
    stream.write_all(&vec![b' '; 5_000_000]).await.expect("is read to its end");
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("body is larger than the limit of 1024 bytes"), "{answer}");
}

#[tokio::test]
async fn chunks_arrive_as_they_are_made() {
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let events = app::from_fn(move |_| {
        let wait = Arc::clone(&wait);
        async move {
            let chunks = stream::iter(["data: 1\n\n", "data: 2\n\n"]).enumerate().then(move |(index, chunk)| {
                let wait = Arc::clone(&wait);
                async move {
                    if index > 0 {
                        wait.notified().await;
                    }
                    Ok::<_, std::convert::Infallible>(Frame::data(chunk.into()))
                }
            });
            let mut response = Response::new(Body::stream(StreamBody::new(chunks)));
            response.headers_mut().insert("content-type", "text/event-stream".parse().expect("a value"));
            response
        }
    });
    let server = Server::start(Setup { app: Some(Arc::new(events)), ..Setup::default() }).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /v1.0/invoke/other/method/m HTTP/1.1\r\nhost: h\r\naccept: text/event-stream\r\n\r\n")
        .await
        .expect("sends");
    let first = read_until(&mut stream, "data: 1").await;
    assert!(first.contains("\r\ncontent-type: text/event-stream\r\n") && !first.contains("data: 2"), "{first}");
    go_on.notify_one();
    read_until(&mut stream, "data: 2").await;
}

#[tokio::test]
async fn http2_is_spoken_from_the_first_byte() {
    let server = Server::with(Options::default()).await;
    let io = TokioIo::new(server.connect().await);
    let handshake = hyper::client::conn::http2::handshake::<_, _, Empty<bytes::Bytes>>(TokioExecutor::new(), io);
    let (mut requests, connection) = handshake.await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let request = http::Request::get("http://h/v1.0/secrets/sec/plain").body(Empty::new()).expect("a request");
    let response = requests.send_request(request).await.expect("an answer");
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body, "{\"plain\":\"p\"}\n");
    driver.abort();
}

#[tokio::test]
async fn a_request_that_asks_for_http2_is_answered_in_it() {
    let server = Server::with(Options::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /v1.0/healthz/outbound HTTP/1.1\r\nhost: h\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n").await.expect("sends");
    let switched = read_until(&mut stream, "\r\n\r\n").await;
    assert!(switched.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{switched}");
    assert!(
        switched.contains("\r\nconnection: Upgrade\r\n") && switched.contains("\r\nupgrade: h2c\r\n"),
        "{switched}"
    );

    stream.write_all(HTTP2_PREFACE).await.expect("sends");
    loop {
        let mut head = [0; 9];
        timeout(SOON, stream.read_exact(&mut head)).await.expect("a frame").expect("not closed");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.expect("its payload");
        // HEADERS of stream 1.
        if head[3] == 1 && head[5..] == [0, 0, 0, 1] {
            assert_eq!(payload[0], 0x89, "`:status: 204` in the static table");
            break;
        }
    }
}

#[tokio::test]
async fn http2_can_be_switched_off() {
    let server = Server::with(Options { h2c: false, ..Options::default() }).await;
    let answer = server.exchange("GET /v1.0/healthz/outbound HTTP/1.1\r\nhost: h\r\nconnection: Upgrade, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    let mut stream = server.connect().await;
    stream.write_all(HTTP2_PREFACE).await.expect("sends");
    assert_eq!(read_to_end(&mut stream).await, "", "closed without an answer");
}

/// An app that says when it was asked and answers when told to.
fn held() -> (Arc<dyn AppChannel>, Arc<Notify>, Arc<Notify>) {
    let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&asked), Arc::clone(&go_on));
    let app = app::from_fn(move |_: Request| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            tell.notify_one();
            wait.notified().await;
            Response::new(Body::from("done"))
        }
    });
    (Arc::new(app), asked, go_on)
}

const HELD: &[u8] = b"GET /v1.0/invoke/other/method/m HTTP/1.1\r\nhost: h\r\n\r\n";

#[tokio::test]
async fn stopping_lets_requests_finish_and_closes_idle_connections() {
    let (app, asked, go_on) = held();
    let server = Server::start(Setup { app: Some(app), ..Setup::default() }).await;
    let (mut busy, mut idle, mut unused) = (server.connect().await, server.connect().await, server.connect().await);
    idle.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sends");
    read_until(&mut idle, "dapr-app-id\"}").await;
    busy.write_all(HELD).await.expect("sends");
    asked.notified().await;

    server.stop.send(()).expect("running");
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(read_to_end(&mut unused).await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "no longer listening");
    go_on.notify_one();
    assert!(read_to_end(&mut busy).await.ends_with("done"));
    timeout(SOON, server.running).await.expect("ends").expect("no panic");
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let (app, asked, _) = held();
    let options = Options { drain_timeout: Duration::from_millis(100), ..Options::default() };
    let server = Server::start(Setup { options, app: Some(app), ..Setup::default() }).await;
    let mut busy = server.connect().await;
    busy.write_all(HELD).await.expect("sends");
    asked.notified().await;
    server.stop.send(()).expect("running");
    timeout(SOON, server.running).await.expect("ends").expect("no panic");
    assert_eq!(read_to_end(&mut busy).await, "");
}

#[tokio::test]
async fn a_unix_socket_is_served_too() {
    let folder = std::env::temp_dir().join(format!("trilby-door-http-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("dapr-myapp-http.socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let (door, _) = door(Setup::default());
    let running = tokio::spawn(async move { door.serve_unix(listener, std::future::pending()).await });
    let mut stream = UnixStream::connect(&path).await.expect("listening");
    stream
        .write_all(b"GET /v1.0/healthz/outbound HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .await
        .expect("sends");
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 204 "));
    running.abort();
    std::fs::remove_dir_all(&folder).expect("removed");
}
