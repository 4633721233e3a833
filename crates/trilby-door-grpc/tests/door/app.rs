//! Towards apps: invocation by name, and proxying.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_types::Any;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Response, Status, client::Grpc};
use tonic_prost::ProstCodec;
use tower_service::Service as _;
use trilby_core::{AppChannel, Body, Ctx, app::from_fn};
use trilby_door_grpc::{
    Options,
    app::{self, GrpcApp},
};
use trilby_proto::{
    common::v1::{HttpExtension, InvokeRequest, InvokeResponse, http_extension::Verb},
    runtime::v1::{
        InvokeServiceRequest,
        app_callback_server::{AppCallback, AppCallbackServer},
    },
};

use crate::support::{Served, Setup, api, details, serve};

/// An app that is a Rust closure and answers as an HTTP server would.
fn http_app() -> (Arc<dyn AppChannel>, Arc<Mutex<Vec<http::request::Parts>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let app = from_fn(move |request: trilby_core::Request| {
        let (parts, body) = request.into_parts();
        let response = match parts.uri.path() {
            "/teapot" => http::Response::builder().status(418).body(Body::from("short and stout")),
            _ => http::Response::builder()
                .header("content-type", "application/octet-stream")
                .header("date", "today")
                .header("server", "closure")
                .header("content-length", "2")
                .header("x-app", "yes")
                .body(body),
        };
        notes.lock().unwrap().push(parts);
        async { response.expect("a response") }
    });
    (Arc::new(app), seen)
}

fn call(id: &str, method: &str, extension: Option<HttpExtension>) -> InvokeServiceRequest {
    let message = InvokeRequest {
        method: method.to_owned(),
        data: Some(Any { type_url: String::new(), value: b"hi".to_vec() }),
        content_type: "text/plain".to_owned(),
        http_extension: extension,
    };
    InvokeServiceRequest { id: id.to_owned(), message: Some(message) }
}

fn post(querystring: &str) -> Option<HttpExtension> {
    Some(HttpExtension { verb: Verb::Post.into(), querystring: querystring.to_owned() })
}

fn text<'a>(metadata: &'a tonic::metadata::MetadataMap, name: &str) -> &'a str {
    metadata.get(name).unwrap_or_else(|| panic!("{name} in {metadata:?}")).to_str().expect("ASCII")
}

/// Golden: grpc/invoke, app/invocations-over-grpc.
#[tokio::test]
async fn an_http_app_sees_metadata_as_headers_and_answers_with_metadata() {
    let (app, seen) = http_app();
    let door = serve(Setup { app: Some(app), ..Setup::default() }).await;
    let mut request = Request::new(call("myapp", "a b/echo%", post("a=1")));
    request.metadata_mut().insert("x-custom", "v".parse().expect("ASCII"));
    request.metadata_mut().insert("grpc-accept-encoding", "gzip".parse().expect("ASCII"));
    request.set_timeout(Duration::from_secs(5));
    let answer = door.client().await.invoke_service(request).await.expect("answered");

    let parts = seen.lock().unwrap().remove(0);
    assert_eq!((parts.method.as_str(), parts.uri.to_string().as_str()), ("POST", "/a%20b/echo%25?a=1"));
    let mut names: Vec<_> = parts.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let expect =
        ["content-type", "dapr-authority", "dapr-grpc-accept-encoding", "traceparent", "user-agent", "x-custom"];
    assert_eq!(names, expect);
    assert_eq!(parts.headers["content-type"], "text/plain");
    assert_eq!(parts.headers["dapr-authority"], door.address.to_string());

    let metadata = answer.metadata();
    for (name, value) in [
        ("dapr-content-type", "application/octet-stream"),
        ("dapr-date", "today"),
        ("dapr-http-status", "200"),
        ("server", "closure"),
        ("traceparent", "00-00000000000000000000000000000000-0000000000000000-00"),
        ("x-app", "yes"),
    ] {
        assert_eq!(text(metadata, name), value, "{name}");
    }
    assert!(!metadata.contains_key("content-length") && !metadata.contains_key("dapr-content-length"));
    let message = answer.into_inner();
    assert_eq!(message.content_type, "application/octet-stream");
    assert_eq!(message.data.expect("always there").value, b"hi");
}

#[tokio::test]
async fn an_http_status_becomes_a_status_with_the_apps_words() {
    let (app, _) = http_app();
    let door = serve(Setup { app: Some(app), ..Setup::default() }).await;
    let status = door.client().await.invoke_service(call("myapp", "teapot", post(""))).await.expect_err("a teapot");
    assert_eq!((status.code(), status.message()), (Code::Unknown, "I'm a teapot"));
    assert_eq!(text(status.metadata(), "dapr-http-status"), "418");
    let info = details(&status).1.expect("an ErrorInfo");
    assert_eq!(info.reason, "I'm a teapot");
    let metadata = [("http.code", "418"), ("http.error_message", "short and stout")];
    assert_eq!(info.metadata, metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

#[tokio::test]
async fn an_http_app_needs_a_method_and_a_name() {
    let (app, _) = http_app();
    let door = serve(Setup { app: Some(app), ..Setup::default() }).await;
    let mut client = door.client().await;
    let none = Some(HttpExtension::default());
    for (request, message) in [
        (
            call("myapp", "echo", None),
            "failed to invoke, id: myapp, err: rpc error: code = InvalidArgument desc = missing HTTP extension field",
        ),
        (
            call("myapp", "echo", none),
            "failed to invoke, id: myapp, err: rpc error: code = InvalidArgument desc = invalid HTTP verb",
        ),
        (call("noapp", "echo", None), "failed to invoke, id: noapp, err: couldn't find service: noapp"),
        (
            InvokeServiceRequest { id: "noapp".to_owned(), message: None },
            "failed to invoke, id: noapp, err: couldn't find service: noapp",
        ),
    ] {
        let status = client.invoke_service(request).await.expect_err(message);
        assert_eq!((status.code(), status.message()), (Code::Internal, message));
    }
}

/// What `OnInvoke` was called with.
type Calls = Arc<Mutex<Vec<(tonic::metadata::MetadataMap, InvokeRequest)>>>;

struct App(Calls);

#[tonic::async_trait]
impl AppCallback for App {
    async fn on_invoke(&self, request: Request<InvokeRequest>) -> Result<Response<InvokeResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        self.0.lock().unwrap().push((metadata, message.clone()));
        match message.method.as_str() {
            "denied" => {
                let mut status = Status::with_details(Code::PermissionDenied, "not you", Bytes::from_static(b"why"));
                status.metadata_mut().insert("x-trailer", "t".parse().expect("ASCII"));
                Err(status)
            }
            "slow" => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(Response::new(InvokeResponse::default()))
            }
            _ => {
                let mut response =
                    Response::new(InvokeResponse { data: message.data, content_type: "application/x-app".to_owned() });
                response.metadata_mut().insert("x-app", "yes".parse().expect("ASCII"));
                Ok(response)
            }
        }
    }
}

/// A gRPC app: `AppCallback`, and a service of its own that no description here knows.
struct GrpcServer {
    port: u16,
    calls: Calls,
    proxied: Arc<Mutex<Vec<HeaderMap>>>,
    task: JoinHandle<()>,
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server's end of a connection, clear or not.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Io for S {}

/// A certificate that nobody has signed but its own CA.
fn tls() -> TlsAcceptor {
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/localhost.key")).expect("a key");
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/localhost.pem")).expect("a certificate");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn grpc_server() -> GrpcServer {
    grpc_server_with(None).await
}

async fn grpc_server_with(tls: Option<TlsAcceptor>) -> GrpcServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (calls, proxied) = (Calls::default(), Arc::<Mutex<Vec<HeaderMap>>>::default());
    let (app, notes) = (AppCallbackServer::new(App(Arc::clone(&calls))), Arc::clone(&proxied));
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream: Box<dyn Io> = match &tls {
                Some(tls) => Box::new(tls.accept(stream).await.expect("a TLS client")),
                None => Box::new(stream),
            };
            let (app, notes) = (app.clone(), Arc::clone(&notes));
            let service = service_fn(move |request: http::Request<Incoming>| {
                let (mut app, notes) = (app.clone(), Arc::clone(&notes));
                async move {
                    if request.uri().path().starts_with("/dapr.proto.runtime.v1.AppCallback/") {
                        return app.call(request).await.map(|response| response.map(Body::stream));
                    }
                    notes.lock().unwrap().push(request.headers().clone());
                    Ok(own_service(request))
                }
            });
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
    GrpcServer { port, calls, proxied, task }
}

/// `Echo` sends back each frame as it comes, and trailers at the end; any other method fails at once.
fn own_service(request: http::Request<Incoming>) -> http::Response<Body> {
    let is_echo = request.uri().path() == "/own.Service/Echo";
    let mut response = http::Response::new(Body::Empty);
    response.headers_mut().insert("content-type", "application/grpc".parse().expect("ASCII"));
    response.headers_mut().insert("x-header", "h".parse().expect("ASCII"));
    if !is_echo {
        response.headers_mut().insert("grpc-status", "7".parse().expect("ASCII"));
        response.headers_mut().insert("grpc-message", "not%20you".parse().expect("ASCII"));
        return response;
    }
    let trailers: HeaderMap = [("grpc-status", "0"), ("x-trailer", "t")]
        .into_iter()
        .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
        .collect();
    let frames = request.into_body().into_data_stream().map(|data| data.map(Frame::data));
    let frames = frames.chain(tokio_stream::once(Ok(Frame::trailers(trailers))));
    *response.body_mut() = Body::stream(StreamBody::new(frames));
    response
}

impl GrpcServer {
    fn app(&self, change: impl FnOnce(&mut app::Options)) -> Arc<dyn AppChannel> {
        let mut options = app::Options::new(self.port);
        change(&mut options);
        Arc::new(GrpcApp::new(&options).expect("good options"))
    }

    async fn door(&self, change: impl FnOnce(&mut app::Options)) -> Served {
        serve(Setup { app: Some(self.app(change)), protocol: "grpc", ..Setup::default() }).await
    }
}

#[tokio::test]
async fn a_grpc_app_gets_the_message_as_it_was_sent() {
    let server = grpc_server().await;
    let door = server.door(|_| {}).await;
    let mut request = call("myapp", "m/%41 x", None);
    let message = request.message.as_mut().expect("set above");
    message.data = Some(Any { type_url: "type.example/T".to_owned(), value: b"\0\x01".to_vec() });
    let mut request = Request::new(request);
    request.metadata_mut().insert("x-custom", "v".parse().expect("ASCII"));
    let answer = door.client().await.invoke_service(request).await.expect("answered");

    let (metadata, message) = server.calls.lock().unwrap().remove(0);
    assert_eq!((message.method.as_str(), message.http_extension), ("m/%41 x", None));
    let data = message.data.expect("sent");
    assert_eq!((data.type_url.as_str(), &data.value[..]), ("type.example/T", &b"\0\x01"[..]));
    assert_eq!(text(&metadata, "x-custom"), "v");
    assert_eq!(text(answer.metadata(), "x-app"), "yes");
    assert!(!answer.metadata().contains_key("dapr-http-status"), "this app chose no HTTP status");
    let message = answer.into_inner();
    assert_eq!(message.content_type, "application/x-app");
    assert_eq!(message.data.expect("echoed").type_url, "type.example/T");
}

#[tokio::test]
async fn a_status_of_a_grpc_app_reaches_a_grpc_caller_whole() {
    let server = grpc_server().await;
    let door = server.door(|_| {}).await;
    let status = door.client().await.invoke_service(call("myapp", "denied", None)).await.expect_err("denied");
    assert_eq!((status.code(), status.message(), status.details()), (Code::PermissionDenied, "not you", &b"why"[..]));
    assert_eq!(text(status.metadata(), "x-trailer"), "t");
}

#[tokio::test]
async fn an_http_caller_reaches_a_grpc_app() {
    let server = grpc_server().await;
    let api = api("grpc", Some(server.app(|options| options.api_token = Some("t".to_owned()))), false);
    let request = |path: &str| {
        let request = http::Request::put(path).header("accept", "a/b").header("content-type", "text/plain");
        request.header("x-custom", "v").body(Body::from("hi")).expect("a request")
    };
    let response = api.invoke.call(&Ctx::default(), "other", request("/a%20b?q=1")).await.expect("answered");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-app");
    assert_eq!(response.headers()["x-app"], "yes");
    assert_eq!(response.into_body().collect(100).await.expect("whole"), "hi");

    let (metadata, message) = server.calls.lock().unwrap().remove(0);
    let extension = HttpExtension { verb: Verb::Put.into(), querystring: "q=1".to_owned() };
    assert_eq!((message.method.as_str(), message.http_extension), ("a b", Some(extension)));
    assert_eq!(message.content_type, "text/plain");
    for (name, value) in [
        ("dapr-accept", "a/b"),
        ("x-custom", "v"),
        ("dapr-caller-app-id", "myapp"),
        ("dapr-callee-app-id", "other"),
        ("dapr-api-token", "t"),
    ] {
        assert_eq!(text(&metadata, name), value, "{name}");
    }

    let response = api.invoke.call(&Ctx::default(), "other", request("/denied")).await.expect("an answer too");
    assert_eq!(response.status(), 403);
    assert_eq!(response.into_body().collect(100).await.expect("whole"), r#"{"code":7,"message":"not you"}"#);
}

#[tokio::test]
async fn an_app_behind_tls_is_called_whatever_its_certificate() {
    let server = grpc_server_with(Some(tls())).await;
    let door = server.door(|options| options.protocol = app::Protocol::Grpcs).await;
    let answer = door.client().await.invoke_service(call("myapp", "m", None)).await.expect("answered");
    assert_eq!(answer.into_inner().content_type, "application/x-app");
    proxied(&door, "/own.Service/Echo", &[("dapr-app-id", "myapp")]).await.expect("echoed");
}

#[tokio::test]
async fn an_app_gets_no_more_calls_at_once_than_it_wants() {
    let server = grpc_server().await;
    let door = server.door(|options| options.max_concurrency = Some(1)).await;
    let client = door.client().await;
    let started = std::time::Instant::now();
    let calls = [(); 3].map(|()| {
        let mut client = client.clone();
        tokio::spawn(async move { client.invoke_service(call("myapp", "slow", None)).await })
    });
    for call in calls {
        call.await.expect("no panic").expect("answered");
    }
    assert!(started.elapsed() >= Duration::from_millis(300), "one after the other");
}

/// A call of the app's own service by way of `door`.
async fn proxied(door: &Served, method: &str, metadata: &[(&'static str, &str)]) -> Result<Response<()>, Status> {
    let mut request = Request::new(());
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().expect("ASCII"));
    }
    let mut grpc = Grpc::new(door.channel().await);
    grpc.ready().await.expect("connected");
    grpc.unary(request, method.parse().expect("a path"), ProstCodec::default()).await
}

#[tokio::test]
async fn an_unknown_service_is_the_apps_and_passes_untouched() {
    let server = grpc_server().await;
    let door = server.door(|options| options.api_token = Some("t".to_owned())).await;
    let metadata = [("dapr-app-id", "other"), ("x-custom", "v"), ("dapr-api-token", "forged")];
    let answer = proxied(&door, "/own.Service/Echo", &metadata).await.expect("echoed");
    assert_eq!((text(answer.metadata(), "x-header"), text(answer.metadata(), "x-trailer")), ("h", "t"));
    let headers = server.proxied.lock().unwrap().remove(0);
    for (name, value) in
        [("x-custom", "v"), ("dapr-api-token", "t"), ("dapr-caller-app-id", "myapp"), ("dapr-callee-app-id", "other")]
    {
        assert_eq!(headers[name], value, "{name}");
    }
    assert!(!headers.contains_key("dapr-app-id"));

    let status = proxied(&door, "/own.Service/Denied", &[("dapr-callee-app-id", "myapp")]).await.expect_err("denied");
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "not you"));
}

#[tokio::test]
async fn a_proxied_stream_flows_both_ways_at_once() {
    let server = grpc_server().await;
    let door = server.door(|_| {}).await;
    let (send, sent) = tokio::sync::mpsc::channel(1);
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(sent));
    request.metadata_mut().insert("dapr-app-id", "myapp".parse().expect("ASCII"));
    let mut grpc = Grpc::new(door.channel().await);
    grpc.ready().await.expect("connected");
    let path = "/own.Service/Echo".parse().expect("a path");
    let codec = ProstCodec::<HttpExtension, HttpExtension>::default();
    let mut answers = grpc.streaming(request, path, codec).await.expect("open").into_inner();
    for turn in 0..3 {
        let message = HttpExtension { verb: turn, querystring: "x".repeat(40_000) };
        send.send(message.clone()).await.expect("open");
        assert_eq!(answers.next().await.expect("an answer").expect("a good one"), message, "turn {turn}");
    }
    drop(send);
    assert!(answers.next().await.is_none());
    assert_eq!(text(&answers.trailers().await.expect("ended well").expect("sent"), "x-trailer"), "t");
}

#[tokio::test]
async fn what_cannot_be_proxied_is_told() {
    let (app, _) = http_app();
    let door = serve(Setup { app: Some(app), ..Setup::default() }).await;
    let missing = "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found";
    let unsupported = "this app does not speak gRPC; set its app protocol to grpc";
    for (metadata, code, message) in [
        (&[][..], Code::Unknown, missing),
        (&[("dapr-app-id", "noapp")][..], Code::Unknown, "couldn't find service: noapp"),
        (&[("dapr-app-id", "myapp")][..], Code::Unknown, unsupported),
    ] {
        let status = proxied(&door, "/own.Service/Echo", metadata).await.expect_err(message);
        assert_eq!((status.code(), status.message()), (code, message));
    }
}

#[tokio::test]
async fn an_app_that_is_not_there_is_named_with_its_address() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound").port();
    let app = GrpcApp::new(&app::Options::new(closed)).expect("good options");
    let setup = Setup { app: Some(Arc::new(app)), protocol: "grpc", options: Options::default(), no_stores: false };
    let door = serve(setup).await;
    let status = door.client().await.invoke_service(call("myapp", "m", None)).await.expect_err("nobody listens");
    let expect = format!("failed to invoke, id: myapp, err: app did not answer at http://127.0.0.1:{closed}: ");
    assert!(status.message().starts_with(&expect), "{}", status.message());
}
