//! Calls into apps and to endpoints, each a real server.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};
use trilby_component::ErrorKind;
use trilby_core::{AppChannel as _, Body, Ctx, Request, Response, invoke::HttpClient as _};
use trilby_door_http::{
    app::{HttpApp, Options, Protocol, wait_for_port},
    client::{Client, Tls},
};

use crate::support::{Answer, Setup, ask_with, door};

const CA: &str = include_str!("tls/ca.pem");
const CERTIFICATE: &str = include_str!("tls/localhost.pem");
const KEY: &str = include_str!("tls/localhost.key");
const SOON: Duration = Duration::from_secs(5);

/// Answers with what arrived: version, method, path and headers in a header each, and the body as it comes.
async fn echo(request: http::Request<Incoming>) -> Result<http::Response<Incoming>, Infallible> {
    let line =
        format!("{:?} {} {}", request.version(), request.method(), request.uri().path_and_query().expect("a path"));
    let mut names: Vec<_> =
        request.headers().iter().map(|(name, value)| format!("{name}={}", value.to_str().expect("text"))).collect();
    names.sort_unstable();
    let arrived = names.join(" ");
    let response = http::Response::builder().header("line", line).header("arrived", arrived).header("keep-alive", "x");
    Ok(response.body(request.into_body()).expect("a response"))
}

/// A server for as long as the runtime lives. Its port.
async fn serve(tls: bool) -> u16 {
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                if tls {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let _ended = builder.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
                } else {
                    let _ended = builder.serve_connection(TokioIo::new(stream), service_fn(echo)).await;
                }
            });
        }
    });
    port
}

fn app(options: &Options) -> Arc<HttpApp> {
    Arc::new(HttpApp::new(options).expect("legal options"))
}

fn request(body: Body) -> Request {
    http::Request::post("/m?q=1").body(body).expect("a request")
}

#[tokio::test]
async fn an_app_sees_what_daprd_would_show_it() {
    let port = serve(false).await;
    let app = app(&Options { api_token: Some("app-token".into()), ..Options::new(port) });
    let (door, _) = door(Setup { app: Some(app), ..Setup::default() });
    let headers =
        [("x-custom", "v"), ("dapr-api-token", "t"), ("host", "h"), ("connection", "close"), ("content-length", "2")];
    let answer = ask_with(&door, "POST", "/v1.0/invoke/myapp/method/echo?x=1&y=a%20b", &headers, "hi").await;
    assert_eq!(answer.header("line"), Some("HTTP/1.1 POST /echo?x=1&y=a%20b"));
    let expect = format!(
        "content-length=2 dapr-api-token=app-token host=127.0.0.1:{port} traceparent=00-00000000000000000000000000000000-0000000000000000-00 x-custom=v"
    );
    assert_eq!(answer.header("arrived"), Some(expect.as_str()));
    assert_eq!(answer.header("keep-alive"), None, "headers of the connection end with it");
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "hi"));
}

#[tokio::test]
async fn apps_are_reached_over_http2_and_tls() {
    let clear = app(&Options { protocol: Protocol::H2c, ..Options::new(serve(false).await) });
    let answer = clear.invoke(&Ctx::default(), request(Body::from("x"))).await.expect("answers");
    assert_eq!(answer.headers()["line"], "HTTP/2.0 POST /m?q=1");
    let secured = app(&Options { protocol: Protocol::Https, ..Options::new(serve(true).await) });
    let answer =
        secured.invoke(&Ctx::default(), request(Body::from("x"))).await.expect("its certificate is not checked");
    assert_eq!(answer.headers()["line"], "HTTP/1.1 POST /m?q=1");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let app = app(&Options::new(serve(false).await));
    let (send, receive) = mpsc::channel::<Bytes>(1);
    let chunks = stream::unfold(receive, |mut receive| async {
        let chunk = receive.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(chunk)), receive))
    });
    send.send(Bytes::from_static(b"one")).await.expect("read");
    let response = app.invoke(&Ctx::default(), request(Body::stream(StreamBody::new(chunks)))).await.expect("answers");
    let mut body = response.into_body();
    for chunk in ["one", "two"] {
        let frame = timeout(SOON, body.frame()).await.expect("comes back").expect("not the end").expect("not broken");
        assert_eq!(frame.into_data().expect("data"), chunk);
        if chunk == "one" {
            send.send(Bytes::from_static(b"two")).await.expect("read");
        }
    }
    drop(send);
    assert!(timeout(SOON, body.frame()).await.expect("ends").is_none());
}

#[tokio::test]
async fn a_call_holds_its_slot_until_its_answer_is_read() {
    let app = app(&Options { max_concurrency: Some(1), ..Options::new(serve(false).await) });
    let first = app.invoke(&Ctx::default(), request(Body::from("first"))).await.expect("answers");
    let ctx = Ctx::default();
    let second = app.invoke(&ctx, request(Body::from("second")));
    tokio::pin!(second);
    assert!(timeout(Duration::from_millis(100), second.as_mut()).await.is_err(), "waits");
    assert_eq!(Answer::of(first).await.body, "first");
    let second: Response = timeout(SOON, second).await.expect("its turn").expect("answers");
    assert_eq!(Answer::of(second).await.body, "second");
}

#[tokio::test]
async fn an_app_that_is_not_there_is_unavailable_and_named() {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let error =
        app(&Options::new(port)).invoke(&Ctx::default(), request(Body::Empty)).await.expect_err("nobody listens");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let expect = format!("app did not answer at http://127.0.0.1:{port}: ");
    assert!(error.message.starts_with(&expect) && error.message.contains("refused"), "{error}");
}

#[tokio::test]
async fn waiting_ends_when_something_listens() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = reserved.local_addr().expect("an address");
    drop(reserved);
    let waiting = tokio::spawn(async move { wait_for_port("127.0.0.1", address.port()).await });
    sleep(Duration::from_millis(150)).await;
    assert!(!waiting.is_finished());
    let _listener = TcpListener::bind(address).await.expect("the same port");
    timeout(SOON, waiting).await.expect("ends").expect("no panic");
}

#[tokio::test]
async fn an_endpoint_is_called_if_its_certificate_is_trusted() {
    let port = serve(true).await;
    let send = async |tls: Tls| {
        let request =
            http::Request::get(format!("https://localhost:{port}/hello")).body(Body::Empty).expect("a request");
        Client::new(&tls).expect("legal settings").send(request).await
    };
    let trusted =
        Tls { root_ca: Some(CA.into()), certificate: Some(CERTIFICATE.into()), private_key: Some(KEY.into()) };
    let answer = send(trusted).await.expect("answers");
    assert_eq!(answer.headers()["line"], "HTTP/1.1 GET /hello");
    let error = send(Tls::default()).await.expect_err("an unknown authority");
    assert!(error.message.contains("tls: failed to verify certificate"), "{error}");
    assert!(error.message.starts_with(&format!("localhost:{port}: ")), "{error}");
}

#[tokio::test]
async fn an_absolute_url_can_be_invoked() {
    let port = serve(false).await;
    let client = Arc::new(Client::new(&Tls::default()).expect("legal settings"));
    let (door, _) = door(Setup { client: Some(client), ..Setup::default() });
    for target in [format!("http://127.0.0.1:{port}"), format!("http%3A%2F%2F127.0.0.1%3A{port}")] {
        let answer = ask_with(&door, "GET", &format!("/v1.0/invoke/{target}/method/echo?a=b"), &[], "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("line")),
            (200, Some("HTTP/1.1 GET /echo?a=b")),
            "{}",
            answer.body
        );
    }
}
