//! Connections, limits, tokens and reflection.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, client::Grpc};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::{v1, v1alpha};
use trilby_core::Body;
use trilby_door_grpc::{Access, GrpcDoor, Options};
use trilby_proto::{
    common::v1::StateItem,
    runtime::v1::{GetMetadataRequest, GetSecretRequest, GetStateRequest, SaveStateRequest, dapr_client::DaprClient},
};

use crate::support::{Served, Setup, api, client, details, serve};

fn get(key: &str) -> GetStateRequest {
    GetStateRequest { store_name: "mem".to_owned(), key: key.to_owned(), ..GetStateRequest::default() }
}

fn save(key: &str, size: usize) -> SaveStateRequest {
    let item = StateItem { key: key.to_owned(), value: Bytes::from(vec![7; size]), ..StateItem::default() };
    SaveStateRequest { store_name: "mem".to_owned(), states: vec![item] }
}

async fn with(options: Options) -> Served {
    serve(Setup { options, ..Setup::default() }).await
}

#[tokio::test]
async fn without_the_token_nothing_is_served() {
    let door = with(Options { api_token: Some("secret".to_owned()), ..Options::default() }).await;
    let mut client = door.client().await;
    for (token, text) in
        [(None, "missing api token in request metadata"), (Some("wrong"), "authentication error: api token mismatch")]
    {
        let mut request = Request::new(get("a"));
        if let Some(token) = token {
            request.metadata_mut().insert("dapr-api-token", token.parse().expect("ASCII"));
        }
        let status = client.get_state(request).await.expect_err(text);
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "Unauthorized"));
        assert_eq!(details(&status).1.expect("an ErrorInfo").metadata["http.error_message"], text);
    }
    let mut request = Request::new(get("a"));
    request.metadata_mut().insert("dapr-api-token", "secret".parse().expect("ASCII"));
    client.get_state(request).await.expect("admitted");

    let status = list_services(&door).await.expect_err("reflection needs it too");
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut grpc = Grpc::new(door.channel().await);
    grpc.ready().await.expect("connected");
    let path = "/unknown.Service/Method".parse().expect("a path");
    let proxied = grpc.unary(Request::new(()), path, ProstCodec::<(), ()>::default()).await;
    assert_eq!(proxied.expect_err("the proxy needs it too").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_denied_api_is_not_available() {
    let access = Access { allowed: vec!["v1/state".to_owned()], denied: Vec::new() };
    let door = with(Options { access, ..Options::default() }).await;
    let mut client = door.client().await;
    client.get_state(get("a")).await.expect("allowed");
    let status = client.get_secret(GetSecretRequest::default()).await.expect_err("not allowed");
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "Not Implemented"));
    let info = details(&status).1.expect("an ErrorInfo");
    assert_eq!(info.metadata["http.error_message"], "requested endpoint is not available");
}

#[tokio::test]
async fn messages_over_the_limit_are_refused_both_ways() {
    let door = with(Options { max_body_bytes: 100_000, ..Options::default() }).await;
    let mut client = door.client().await;
    client.save_state(save("big", 99_900)).await.expect("within the limit");
    let status = client.save_state(save("bigger", 100_001)).await.expect_err("over the limit");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("grpc: received message larger than max (1000"), "{}", status.message());

    let door = with(Options { max_body_bytes: 20, ..Options::default() }).await;
    let status = door.client().await.get_metadata(GetMetadataRequest {}).await.expect_err("a long answer");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("grpc: trying to send message larger than max ("), "{}", status.message());
}

#[tokio::test]
async fn a_message_of_many_frames_arrives_whole() {
    let (mut client, _door) = client().await;
    client.save_state(save("big", 3 << 20)).await.expect("under 4 MiB");
    let read = client.get_state(get("big")).await.expect("read").into_inner().data;
    assert_eq!((read.len(), read.iter().all(|byte| *byte == 7)), (3 << 20, true));
}

#[tokio::test]
async fn metadata_over_the_limit_cost_their_own_call_only() {
    let (mut client, _door) = client().await;
    for (size, accepted) in [(3_000, true), (5_000, false), (100_000, false)] {
        let mut request = Request::new(get("a"));
        request.metadata_mut().insert("x-long", "x".repeat(size).parse().expect("ASCII"));
        assert_eq!(client.get_state(request).await.is_ok(), accepted, "{size} bytes");
    }
    client.get_state(get("a")).await.expect("the connection is still good");
}

#[tokio::test]
async fn a_panic_costs_its_own_call_only() {
    let (mut client, _door) = client().await;
    let status = client.get_state(get("panics")).await.expect_err("a bug");
    assert_eq!(status.code(), Code::Internal);
    client.get_state(get("a")).await.expect("the connection is still good");
}

#[tokio::test]
async fn a_deadline_of_the_caller_ends_the_call() {
    let (mut client, _door) = client().await;
    let mut request = Request::new(get("slow"));
    request.set_timeout(Duration::from_millis(50));
    let status = client.get_state(request).await.expect_err("too slow");
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded | Code::Internal), "{status:?}");
    client.get_state(get("a")).await.expect("the connection is still good");
}

async fn list_services(door: &Served) -> Result<Vec<String>, tonic::Status> {
    use v1::{server_reflection_request::MessageRequest, server_reflection_response::MessageResponse};
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(door.channel().await);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = v1::ServerReflectionRequest { host: String::new(), message_request };
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    let answer = answers.next().await.expect("an answer")?;
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    Ok(list.service.into_iter().map(|service| service.name).collect())
}

#[tokio::test]
async fn reflection_lists_what_is_served_here() {
    let (_client, door) = client().await;
    let expect = [
        "dapr.proto.runtime.v1.Dapr",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    let mut services = list_services(&door).await.expect("listed");
    services.sort_unstable();
    assert_eq!(services, expect);
}

#[tokio::test]
async fn reflection_of_either_version_describes_dapr() {
    use v1alpha::{server_reflection_request::MessageRequest, server_reflection_response::MessageResponse};
    let (_client, door) = client().await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(door.channel().await);
    let message_request = Some(MessageRequest::FileContainingSymbol("dapr.proto.runtime.v1.Dapr".to_owned()));
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.expect("answered");
    let answer = answers.into_inner().next().await.expect("an answer").expect("a good one");
    let Some(MessageResponse::FileDescriptorResponse(file)) = answer.message_response else { panic!("{answer:?}") };
    assert_eq!(file.file_descriptor_proto.len(), 1);
}

#[tokio::test]
async fn shutdown_lets_calls_finish() {
    let door = GrpcDoor::new(api("", None, true), Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move { door.serve(listener, async { stopped.await.unwrap_or_default() }).await });
    let mut client = DaprClient::connect(format!("http://{address}")).await.expect("listening");
    let mut slow = client.clone();
    let call = tokio::spawn(async move { slow.get_state(get("slow")).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).expect("still serving");
    call.await.expect("no panic").expect("finished although the door closes");
    serving.await.expect("ended");
    assert!(client.get_state(get("a")).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn calls_that_never_end_are_cut_off_after_the_drain_timeout() {
    let options = Options { drain_timeout: Duration::from_millis(20), ..Options::default() };
    let door = GrpcDoor::new(api("", None, true), options);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move { door.serve(listener, async { stopped.await.unwrap_or_default() }).await });
    let mut client = DaprClient::connect(format!("http://{address}")).await.expect("listening");
    let call = tokio::spawn(async move { client.get_state(get("slow")).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).expect("still serving");
    serving.await.expect("ended");
    assert!(call.await.expect("no panic").is_err());
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("grpc.socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let door = GrpcDoor::new(api("", None, true), Options::default());
    let serving = tokio::spawn(async move { door.serve_unix(listener, std::future::pending()).await });
    let stream = TokioIo::new(UnixStream::connect(path).await.expect("listening"));
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://door/dapr.proto.runtime.v1.Dapr/Nothing");
    let request = request.header("content-type", "application/grpc").body(Body::Empty).expect("a request");
    let response = client.send_request(request).await.expect("served");
    assert_eq!(response.headers()["grpc-status"], "12");
    serving.abort();
    connection.abort();
}

#[tokio::test]
async fn a_call_needs_no_socket() {
    let door = GrpcDoor::new(api("", None, true), Options::default());
    let mut client = DaprClient::new(InProcess(door.clone()));
    client.save_state(save("a", 3)).await.expect("saved");
    assert_eq!(client.get_state(get("a")).await.expect("read").into_inner().data, &[7, 7, 7][..]);
    assert_eq!(client.get_state(get("a||b")).await.expect_err("illegal").code(), Code::InvalidArgument);

    for (request, status) in [
        (http::Request::get("/x").body(Body::Empty), StatusCode::METHOD_NOT_ALLOWED),
        (
            http::Request::post("/x").header("content-type", "text/plain").body(Body::Empty),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
    ] {
        let response = door.handle(request.expect("a request")).await;
        assert_eq!(response.status(), status);
        assert!(response.headers().contains_key("grpc-status"));
        assert!(response.into_body().collect(0).await.expect("empty").is_empty());
    }
}

/// A door as a generated client calls it.
struct InProcess(GrpcDoor);

impl tower_service::Service<http::Request<tonic::body::Body>> for InProcess {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let door = self.0.clone();
        Box::pin(async move { Ok(door.handle(request.map(Body::stream)).await) })
    }
}
