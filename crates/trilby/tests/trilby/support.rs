//! Runtimes and requests for the tests.

use std::{net::SocketAddr, path::PathBuf};

use trilby::{
    AppSpec, Body, Builder, Ctx, Request, Response, Trilby,
    component::{
        Metadata,
        state::{GetRequest, SetRequest, Value, WriteOptions},
    },
    core::invoke::HttpClient as _,
    door_http::client::{Client, Tls},
    http::{self, StatusCode},
};

pub(crate) const MEMORY: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.in-memory, version: v1}
";

pub(crate) fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A builder with a state store in memory.
pub(crate) fn with_memory() -> Builder {
    Trilby::builder().resources_text("memory", MEMORY)
}

/// An app that answers with its name and the path.
pub(crate) fn echo(name: &'static str) -> AppSpec {
    AppSpec::function(name, move |request: Request| async move {
        Response::new(Body::from(format!("{name} {}", request.uri().path())))
    })
}

pub(crate) fn get(uri: &str) -> Request {
    http::Request::get(uri).body(Body::Empty).expect("a request")
}

pub(crate) fn post(uri: &str, body: &'static str) -> Request {
    http::Request::post(uri).body(Body::from(body)).expect("a request")
}

pub(crate) async fn text(response: Response) -> String {
    let body = response.into_body().collect(1 << 20).await.expect("a body");
    String::from_utf8(body.to_vec()).expect("text")
}

/// Sends a request over a socket.
pub(crate) async fn send(request: Request) -> (StatusCode, String) {
    let client = Client::new(&Tls::default()).expect("the default is good");
    let response = client.send(request).await.expect("somebody answers");
    (response.status(), text(response).await)
}

pub(crate) async fn save(trilby: &Trilby, app: &str, key: &str, value: &'static str) {
    let item = SetRequest {
        key: key.into(),
        value: Value::Bytes(value.into()),
        etag: None,
        options: WriteOptions::default(),
        metadata: Metadata::new(),
    };
    let store = trilby.api(app).expect("it runs").state.store("statestore").expect("loaded");
    store.save(&Ctx::default(), vec![item]).await.expect("saved");
}

pub(crate) async fn read(trilby: &Trilby, app: &str, key: &str) -> Option<String> {
    let request = GetRequest { key: key.into(), ..GetRequest::default() };
    let store = trilby.api(app).expect("it runs").state.store("statestore").expect("loaded");
    let item = store.get(&Ctx::default(), request).await.expect("readable");
    item.map(|item| String::from_utf8(item.value.to_vec()).expect("text"))
}

/// A guest that `cargo xtask guests` has built, or a line that says why the test does not run.
pub(crate) fn guest(name: &str) -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/wasm/{name}.wasm"));
    if path.exists() {
        return Some(path.display().to_string());
    }
    println!("NOT RUN guest {name}: {} is missing; run `cargo xtask guests`", path.display());
    None
}
