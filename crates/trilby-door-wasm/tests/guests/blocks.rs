//! Every function of every block, called by the mirror guest.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use trilby_core::{Body, Response, app};
use trilby_door_wasm::WasmApp;
use trilby_wasm::Stream;

use crate::world::{World, call};

pub(crate) async fn perform(mirror: &WasmApp, operation: Value) -> Value {
    let (status, answer) = call(mirror, "POST", "/", operation.to_string()).await.expect("the mirror answers");
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).expect("JSON")
}

/// The result, where none of the operations may fail.
pub(crate) async fn ok(mirror: &WasmApp, operation: Value) -> Value {
    let mut answer = perform(mirror, operation).await;
    assert!(answer["error"].is_null(), "{answer}");
    answer["ok"].take()
}

/// Kind and code, where all of them must.
pub(crate) async fn error(mirror: &WasmApp, operation: Value) -> (String, String) {
    let answer = perform(mirror, operation).await;
    let text = |name: &str| answer["error"][name].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("code"))
}

pub(crate) fn bytes(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(crate) fn pair(kind: &str, code: &str) -> (String, String) {
    (kind.to_owned(), code.to_owned())
}

#[tokio::test]
async fn any_bytes_are_saved_and_read_back() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let value: Vec<u8> = (0..=255).collect();
    ok(&mirror, json!({ "op": "save", "store": "statestore", "key": "k", "value": bytes(&value) })).await;
    let item = ok(&mirror, json!({ "op": "get", "store": "statestore", "key": "k" })).await;
    assert_eq!(item, json!({ "key": "k", "value": bytes(&value), "etag": "1", "metadata": {} }));
    ok(&mirror, json!({ "op": "delete", "store": "statestore", "key": "k" })).await;
    assert_eq!(ok(&mirror, json!({ "op": "get", "store": "statestore", "key": "k" })).await, Value::Null);
}

#[tokio::test]
async fn json_is_saved_as_json() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let save = |value: &str| {
        json!({ "op": "save", "store": "statestore", "key": "k", "value": bytes(value.as_bytes()),
            "options": { "content-type": "application/json" } })
    };
    ok(&mirror, save("{ \"a\" : 1 }")).await;
    let item = ok(&mirror, json!({ "op": "get", "store": "statestore", "key": "k" })).await;
    assert_eq!(item["value"], bytes(b"{\"a\":1}"));
    assert_eq!(error(&mirror, save("{ nothing")).await.0, "invalid");
}

#[tokio::test]
async fn many_items_go_in_one_call_each_with_its_own_result() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let items = json!([{ "key": "a", "value": bytes(b"1") }, { "key": "b", "value": bytes(b"2") }]);
    ok(&mirror, json!({ "op": "save-bulk", "store": "statestore", "items": items })).await;
    let rows =
        ok(&mirror, json!({ "op": "get-bulk", "store": "statestore", "keys": ["b", "none", "broken", "a"] })).await;
    assert_eq!(rows[0][1]["ok"]["value"], bytes(b"2"));
    assert_eq!(rows[1], json!(["none", { "ok": null }]));
    assert_eq!(rows[2][0], "broken");
    assert_eq!(
        rows[2][1]["error"],
        json!({ "kind": "unavailable", "code": "ERR_STATE_GET", "message": "no such disk" })
    );
    assert_eq!(rows[3][1]["ok"]["value"], bytes(b"1"));
}

#[tokio::test]
async fn a_stale_etag_is_a_conflict() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let save = |options: Value| json!({ "op": "save", "store": "statestore", "key": "k", "value": bytes(b"1"), "options": options });
    ok(&mirror, save(json!({ "concurrency": "first-write" }))).await;
    let conflict = pair("conflict", "ERR_STATE_SAVE");
    assert_eq!(error(&mirror, save(json!({ "concurrency": "first-write" }))).await, conflict);
    assert_eq!(error(&mirror, save(json!({ "etag": "7" }))).await, conflict);
    ok(&mirror, save(json!({ "etag": "1" }))).await;
    let delete = json!({ "op": "delete", "store": "statestore", "key": "k", "options": { "etag": "1" } });
    assert_eq!(error(&mirror, delete).await, pair("conflict", "ERR_STATE_DELETE"));
}

#[tokio::test]
async fn a_transaction_is_done_as_a_whole_or_not_at_all() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let transact = |operations: Value| json!({ "op": "transact", "store": "statestore", "operations": operations });
    ok(&mirror, transact(json!([{ "upsert": { "key": "a", "value": bytes(b"1") } }]))).await;
    let half_wrong = json!([
        { "delete": { "key": "a" } },
        { "upsert": { "key": "b", "value": bytes(b"2"), "options": { "etag": "9" } } },
    ]);
    assert_eq!(error(&mirror, transact(half_wrong)).await, pair("conflict", "ERR_STATE_TRANSACTION"));
    let item = ok(&mirror, json!({ "op": "get", "store": "statestore", "key": "a" })).await;
    assert_eq!(item["value"], bytes(b"1"));
}

#[tokio::test]
async fn errors_say_what_kind_they_are() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    for (operation, kind, code) in [
        (json!({ "op": "get", "store": "nostore", "key": "k" }), "not-found", "ERR_STATE_STORE_NOT_FOUND"),
        (json!({ "op": "get", "store": "statestore", "key": "a||b" }), "invalid", "ERR_MALFORMED_REQUEST"),
        (json!({ "op": "get", "store": "statestore", "key": "broken" }), "unavailable", "ERR_STATE_GET"),
        (json!({ "op": "save", "store": "statestore", "key": "", "value": "" }), "invalid", "ERR_MALFORMED_REQUEST"),
        (json!({ "op": "get-secret", "store": "nostore", "key": "k" }), "not-found", "ERR_SECRET_STORE_NOT_FOUND"),
        (json!({ "op": "get-secret", "store": "secretstore", "key": "none" }), "not-found", "ERR_SECRET_GET"),
        (json!({ "op": "get-secret", "store": "secretstore", "key": "hidden" }), "denied", "ERR_PERMISSION_DENIED"),
        (
            json!({ "op": "invoke", "app-id": "nobody", "request": { "method": "GET", "path": "/" } }),
            "not-found",
            "ERR_DIRECT_INVOKE",
        ),
        (
            json!({ "op": "invoke", "app-id": "mirror", "request": { "method": "G T", "path": "/" } }),
            "invalid",
            "ERR_MALFORMED_REQUEST",
        ),
    ] {
        assert_eq!(error(&mirror, operation.clone()).await, pair(kind, code), "{operation}");
    }
}

#[tokio::test]
async fn secrets_are_read_within_their_scope() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    let secret = json!({ "order-key": "s3cret" });
    assert_eq!(ok(&mirror, json!({ "op": "get-secret", "store": "secretstore", "key": "order-key" })).await, secret);
    let all = ok(&mirror, json!({ "op": "get-secret-bulk", "store": "secretstore" })).await;
    assert_eq!(all, json!({ "order-key": secret }));
}

#[tokio::test]
async fn a_guest_calls_any_app_and_gets_its_whole_answer() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    world.register(
        "closure",
        app::from_fn(|request| async {
            let (head, body) = request.into_parts();
            let body = body.collect(1 << 20).await.expect("in hand");
            let caller = head.headers["dapr-caller-app-id"].to_str().expect("text").to_owned();
            let mut response = Response::new(Body::from(format!("{} {} {caller} {body:?}", head.method, head.uri)));
            *response.status_mut() = http::StatusCode::IM_A_TEAPOT;
            response.headers_mut().insert("x-answer", http::HeaderValue::from_static("42"));
            response
        }),
    );
    let request =
        json!({ "method": "PUT", "path": "a/b", "query": "q=1", "headers": [["x-a", "1"]], "body": bytes(b"hi") });
    let answer = ok(&mirror, json!({ "op": "invoke", "app-id": "closure", "request": request })).await;
    let body = bytes(b"PUT /a/b?q=1 mirror b\"hi\"");
    assert_eq!(answer, json!({ "status": 418, "headers": [["x-answer", "42"]], "body": body }));
}

#[tokio::test]
async fn an_answer_over_the_limit_is_an_error_and_not_cut() {
    let world = World::new();
    let Some(mirror) = world.start_with("mirror", "mirror", |options| options.max_body_bytes = 1000).await else {
        return;
    };
    world.register("closure", app::from_fn(|_| async { Response::new(Body::from(vec![b'x'; 1001])) }));
    let invoke = json!({ "op": "invoke", "app-id": "closure", "request": { "method": "GET", "path": "/" } });
    let answer = perform(&mirror, invoke).await;
    assert_eq!(answer["error"]["kind"], "invalid");
    assert_eq!(
        answer["error"]["message"],
        "failed to invoke, id: closure, err: the answer's body is larger than the limit of 1000 bytes; raise --max-body-size"
    );
}

#[tokio::test]
async fn an_app_knows_itself() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    ok(&mirror, json!({ "op": "set-metadata", "key": "build", "value": "7" })).await;
    let itself = ok(&mirror, json!({ "op": "app" })).await;
    let metadata = json!({ "build": "7", "daprRuntimeVersion": "9.9.9" });
    assert_eq!(itself, json!({ "id": "mirror", "namespace": "default", "metadata": metadata }));
}

#[tokio::test]
async fn what_a_guest_logs_becomes_lines_with_their_level() {
    let world = World::new();
    let Some(mirror) = world.start("mirror", "mirror").await else { return };
    ok(&mirror, json!({ "op": "log", "message": "one\ntwo" })).await;
    let lines = world.lines.take();
    assert_eq!(
        lines,
        [(Stream::Stderr, "[warn] mirror: one".to_owned()), (Stream::Stderr, "[warn] mirror: two".to_owned()),]
    );
}

#[tokio::test]
async fn an_instance_is_used_again_and_replaced_when_it_has_served_enough() {
    let world = World::new();
    let start = world.start_with("mirror", "mirror", |options| options.limits.max_calls_per_instance = 10);
    let Some(mirror) = start.await else { return };
    for _ in 0..40 {
        ok(&mirror, json!({ "op": "app" })).await;
    }
    let stats = mirror.stats();
    // One to see whether it starts, then one for every ten calls.
    assert_eq!((stats.started, stats.live), (5, 0), "{stats:?}");
}
