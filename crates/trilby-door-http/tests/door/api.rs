//! Requests and answers as a stock daprd has them: lines of golden/http, against stores of these tests.

use std::sync::{Arc, Mutex};

use trilby_core::{Body, Request, Response, app};
use trilby_door_http::{Access, HttpDoor, Options, Shutdown};

use crate::support::{Setup, api, ask, ask_with, door};

const UNTRACED: &str = "00-00000000000000000000000000000000-0000000000000000-00";
const NO_APP_ID: &str = r#"{"errorCode":"ERR_DIRECT_INVOKE","message":"failed getting app id either from the URL path or the header dapr-app-id"}"#;

/// Asks one thing after the other and compares status and body.
async fn replay(door: &HttpDoor, lines: &[(&str, &str, &str, u16, &str)]) {
    for (method, path, body, status, expect) in lines {
        let answer = ask(door, method, path, body).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (*status, *expect), "{method} {path} {body}");
        assert_eq!(answer.header("traceparent"), Some(UNTRACED), "{method} {path}");
        let content_type = (!expect.is_empty()).then_some("application/json");
        assert_eq!(answer.header("content-type"), content_type, "{method} {path}");
    }
}

#[tokio::test]
async fn saved_items_are_read_as_json() {
    let (door, _) = door(Setup::default());
    let saved = r#"[{"key": "s", "value": "text"}, {"key": "o", "value": {"b": 1, "a": [1, "x<&>", null]}}, {"key": "nul", "value": null}]"#;
    replay(
        &door,
        &[
            ("POST", "/v1.0/state/mem", saved, 204, ""),
            ("GET", "/v1.0/state/mem/s", "", 200, r#""text""#),
            ("GET", "/v1.0/state/mem/o", "", 200, r#"{"a":[1,"x\u003c\u0026\u003e",null],"b":1}"#),
            ("GET", "/v1.0/state/mem/nul", "", 200, "null"),
            ("GET", "/v1.0/state/mem/missing", "", 204, ""),
            ("POST", "/v1.0/state/mem", "[]", 204, ""),
            ("PUT", "/v1.0/state/mem", r#"[{"key": "put", "value": 1}]"#, 204, ""),
            ("GET", "/v1.0/state/mem/put?consistency=bad", "", 200, "1"),
            ("GET", "//v1.0//state/mem/put/", "", 200, "1"),
            ("DELETE", "/v1.0/state/mem/put", "", 204, ""),
            ("GET", "/v1.0/state/mem/put", "", 204, ""),
            ("GET", "/v1.0/state/mem/sp%20ace%2Fslash", "", 204, ""),
        ],
    )
    .await;
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be_are_malformed_requests() {
    let (door, _) = door(Setup::default());
    let key_required = r#"{"errorCode":"ERR_MALFORMED_REQUEST","message":"\"key\" is a required field"}"#;
    let not_json = r#"{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: invalid character 'x' looking for beginning of value"}"#;
    replay(
        &door,
        &[
            ("POST", "/v1.0/state/mem", "{}", 400, r#"{"errorCode":"ERR_MALFORMED_REQUEST","message":"json: cannot unmarshal object into Go value of type []state.SetRequest"}"#),
            ("POST", "/v1.0/state/mem", "not json", 400, r#"{"errorCode":"ERR_MALFORMED_REQUEST","message":"invalid character 'o' in literal null (expecting 'u')"}"#),
            ("POST", "/v1.0/state/mem", "", 400, r#"{"errorCode":"ERR_MALFORMED_REQUEST","message":"EOF"}"#),
            ("POST", "/v1.0/state/mem", r#"[{"value":1}]"#, 400, key_required),
            ("POST", "/v1.0/state/mem", r#"[{"key": "", "value": 1}]"#, 400, key_required),
            ("POST", "/v1.0/state/mem/bulk", "x", 400, not_json),
            ("POST", "/v1.0/state/mem/transaction", "x", 400, not_json),
            ("POST", "/v1.0/state/mem/transaction", r#"{"operations": [{"operation": "upsert", "request": 5}]}"#, 400, r#"{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: '' expected a map, got 'float64'"}"#),
            ("POST", "/v1.0/state/mem/transaction", r#"{"operations": [{"operation": "bad", "request": {"key": "t1"}}]}"#, 400, r#"{"errorCode":"ERR_NOT_SUPPORTED_STATE_OPERATION","message":"operation type bad not supported"}"#),
        ],
    )
    .await;
    for body in
        [r#"[{"key": "k", "value": 1},]"#, r#"[{"key": "k", "etag": 1}]"#, r#"[{"key": "k", "metadata": {"a": 1}}]"#]
    {
        let answer = ask(&door, "POST", "/v1.0/state/mem", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.starts_with(r#"{"errorCode":"ERR_MALFORMED_REQUEST","#), "{}", answer.body);
    }
}

#[tokio::test]
async fn rich_errors_have_details() {
    let illegal = r#"{"errorCode":"ERR_MALFORMED_REQUEST","message":"api error: code = InvalidArgument desc = input key/keyPrefix 'a||b' can't contain '||'","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":[{"field":"a||b","description":"api error: code = InvalidArgument desc = input key/keyPrefix 'a||b' can't contain '||'"}]},{"@type":"type.googleapis.com/google.rpc.ResourceInfo","description":"","owner":"","resource_name":"mem","resource_type":"state"},{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":null,"reason":"DAPR_STATE_ILLEGAL_KEY"}]}"#;
    let no_query = r#"{"errorCode":"ERR_STATE_STORE_NOT_SUPPORTED","message":"state store does not support querying","details":[{"@type":"type.googleapis.com/google.rpc.ResourceInfo","description":"","owner":"","resource_name":"mem","resource_type":"state"},{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":null,"reason":"DAPR_STATE_QUERYING_NOT_SUPPORTED"}]}"#;
    let (with_stores, _) = door(Setup::default());
    replay(
        &with_stores,
        &[
            ("GET", "/v1.0/state/mem/a%7C%7Cb", "", 400, illegal),
            ("POST", "/v1.0/state/mem", r#"[{"key": "a||b", "value": 1}]"#, 400, illegal),
            ("POST", "/v1.0/state/mem/bulk", r#"{"keys": ["a||b", "n"]}"#, 400, illegal),
            ("POST", "/v1.0-alpha1/state/mem/query", r#"{"filter": {}}"#, 500, no_query),
            ("POST", "/v1.0-alpha1/state/mem/query", "x", 500, no_query),
            ("GET", "/v1.0/state/mem/broken", "", 500, r#"{"errorCode":"ERR_STATE_GET","message":"fail to get broken from state store mem: the store is \u003cdown\u003e"}"#),
            ("POST", "/v1.0/state/plain/transaction", "ignored", 500, r#"{"errorCode":"ERR_STATE_STORE_NOT_SUPPORTED","message":"state store plain doesn't support transactions","details":[{"@type":"type.googleapis.com/google.rpc.Help","links":[{"url":"https://docs.dapr.io/reference/components-reference/supported-state-stores/","description":"Check the list of state stores and the features they support"}]},{"@type":"type.googleapis.com/google.rpc.ResourceInfo","description":"","owner":"","resource_name":"plain","resource_type":"state"},{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":null,"reason":"DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED"}]}"#),
        ],
    )
    .await;
    let (without, _) = door(Setup { no_stores: true, ..Setup::default() });
    let not_configured = r#"{"errorCode":"ERR_STATE_STORE_NOT_CONFIGURED","message":"state store nostore is not configured","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":{"appID":"myapp"},"reason":"DAPR_STATE_NOT_CONFIGURED"}]}"#;
    replay(
        &without,
        &[
            ("GET", "/v1.0/state/nostore/k", "", 500, not_configured),
            ("POST", "/v1.0/state/nostore", r#"[{"key": "a", "value": 1}]"#, 500, not_configured),
            (
                "POST",
                "/v1.0-alpha1/state/nostore/query",
                "{}",
                500,
                &not_configured.replace(r#"{"appID":"myapp"}"#, "null"),
            ),
            (
                "GET",
                "/v1.0/secrets/nos/k",
                "",
                500,
                r#"{"errorCode":"ERR_SECRET_STORES_NOT_CONFIGURED","message":"secret store is not configured"}"#,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_no_route_falls_through_to_invocation() {
    let (door, _) = door(Setup::default());
    let through = ["GET /v1.0/state/mem", "GET /v1.0/state/mem/", "GET /v1.0/state/mem/a/b", "PATCH /v1.0/state/mem"]
        .into_iter()
        .chain(["HEAD /v1.0/state/mem/s", "DELETE /v1.0/state/mem", "OPTIONS /v1.0/metadata", "TRACE /v1.0/metadata"])
        .chain(["GET /", "GET /nothing", "GET /v1.0/invoke//method/x"])
        .chain(["GET /v1.0/invoke/noapp/x", "POST /v1.0/secrets/sec/plain", "POST /v1.0/shutdown"]);
    for line in through {
        let (method, path) = line.split_once(' ').expect("two words");
        replay(&door, &[(method, path, "", 404, NO_APP_ID)]).await;
    }
    let unknown = r#"{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: noapp, err: couldn't find service: noapp"}"#;
    replay(&door, &[("GET", "/v1.0/invoke/noapp/method/echo", "", 500, unknown)]).await;
}

#[tokio::test]
async fn a_badly_escaped_path_gets_the_words_of_gos_server() {
    let (door, _) = door(Setup::default());
    let answer = ask(&door, "GET", "/v1.0/state/mem/bad%zz", "").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (400, "400 Bad Request"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("traceparent"), None);
    assert_eq!(ask(&door, "GET", "/v1.0/state/mem/%FF", "").await.status, 400);
}

#[tokio::test]
async fn etags_guard_writes_and_deletions() {
    let (door, _) = door(Setup::default());
    let save = async |item: &str| ask(&door, "POST", "/v1.0/state/mem", &format!("[{item}]")).await;
    assert_eq!(save(r#"{"key": "e", "value": 1, "etag": "nope"}"#).await.status, 409);
    assert_eq!(save(r#"{"key": "e", "value": 1, "options": {"concurrency": "first-write"}}"#).await.status, 204);
    let lost = save(r#"{"key": "e", "value": 2, "options": {"concurrency": "first-write"}}"#).await;
    assert_eq!(lost.status, 409);
    assert_eq!(
        lost.body,
        r#"{"errorCode":"ERR_STATE_SAVE","message":"failed saving state in state store mem: possible etag mismatch. error from state store: exists"}"#
    );
    let odd = save(r#"{"key": "e", "value": 3, "options": {"concurrency": "odd"}}"#).await;
    assert_eq!((odd.status.as_u16(), odd.body.contains("unrecognized concurrency model 'odd'")), (500, true));

    let etag = ask(&door, "GET", "/v1.0/state/mem/e", "").await.header("etag").expect("an etag").to_owned();
    let delete = async |etag: &str| ask_with(&door, "DELETE", "/v1.0/state/mem/e", &[("if-match", etag)], "").await;
    let stale = delete("wrong").await;
    assert_eq!(
        stale.body,
        r#"{"errorCode":"ERR_STATE_DELETE","message":"failed deleting state with key e: possible etag mismatch. error from state store: key=myapp||e"}"#
    );
    assert_eq!(stale.status, 409);
    let guarded = ask(&door, "DELETE", "/v1.0/state/mem/e?concurrency=first-write", "").await;
    assert_eq!(guarded.status, 409);
    assert_eq!(delete(&etag).await.status, 204);
    assert_eq!(delete("").await.status, 204, "an empty etag is none");
}

#[tokio::test]
async fn ttl_comes_from_item_or_query_and_goes_into_a_header() {
    let (door, _) = door(Setup::default());
    let item = r#"[{"key": "t", "value": 1, "metadata": {"ttlInSeconds": "100"}}]"#;
    assert_eq!(ask(&door, "POST", "/v1.0/state/mem", item).await.status, 204);
    assert_eq!(ask(&door, "GET", "/v1.0/state/mem/t", "").await.header("metadata.ttlexpiretime"), Some("in 100"));
    assert_eq!(ask(&door, "POST", "/v1.0/state/mem?metadata.ttlInSeconds=50", item).await.status, 204);
    assert_eq!(ask(&door, "GET", "/v1.0/state/mem/t", "").await.header("metadata.ttlexpiretime"), Some("in 50"));
}

#[tokio::test]
async fn a_bulk_get_splices_stored_json_and_survives_what_is_none() {
    let (door, store) = door(Setup::default());
    store.put_raw("myapp||o", br#"{ "a": "x<&>" }"#);
    store.put_raw("myapp||bytes", b"\0\x01");
    store.put_raw("myapp||empty", b"");
    replay(
        &door,
        &[
            ("POST", "/v1.0/state/mem/bulk", r#"{"keys": []}"#, 200, "[]\n"),
            ("PUT", "/v1.0/state/mem/bulk", "{}", 200, "[]\n"),
            (
                "POST",
                "/v1.0/state/mem/bulk",
                r#"{"keys": ["o", "missing", "bytes", "empty", "broken"], "parallelism": 1}"#,
                200,
                concat!(
                    r#"[{"key":"o","data":{"a":"x\u003c\u0026\u003e"},"etag":"raw"},{"key":"missing"},"#,
                    r#"{"key":"bytes","data":"AAE=","etag":"raw"},{"key":"empty","etag":"raw"},"#,
                    r#"{"key":"broken","error":"the store is \u003cdown\u003e"}]"#,
                    "\n"
                ),
            ),
            ("GET", "/v1.0/state/mem/bytes", "", 200, "\0\x01"),
        ],
    )
    .await;
    let empty = ask(&door, "GET", "/v1.0/state/mem/empty", "").await;
    assert_eq!((empty.status.as_u16(), empty.header("etag")), (200, Some("raw")), "empty is not missing");
}

#[tokio::test]
async fn a_transaction_is_applied_whole_or_not_at_all() {
    let (door, _) = door(Setup::default());
    let all = r#"{"operations": [{"operation": "upsert", "request": {"key": "t1", "value": {"a": 1}}}, {"operation": "delete", "request": {"key": "n"}}], "metadata": {"partitionKey": "p"}}"#;
    let none = r#"{"operations": [{"operation": "upsert", "request": {"key": "t3", "value": 1}}, {"operation": "upsert", "request": {"key": "t1", "value": 2, "etag": "wrong"}}]}"#;
    replay(
        &door,
        &[
            ("POST", "/v1.0/state/mem/transaction", all, 204, ""),
            ("GET", "/v1.0/state/mem/t1", "", 200, r#"{"a":1}"#),
            ("POST", "/v1.0/state/mem/transaction", r#"{"operations": []}"#, 204, ""),
            ("POST", "/v1.0/state/mem/transaction", "{}", 204, ""),
            ("POST", "/v1.0/state/mem/transaction", r#"{"operations": [{"operation": "upsert"}]}"#, 204, ""),
            ("POST", "/v1.0/state/mem/transaction", none, 500, r#"{"errorCode":"ERR_STATE_TRANSACTION","message":"error while executing state transaction: possible etag mismatch. error from state store: key=myapp||t1"}"#),
            ("GET", "/v1.0/state/mem/t3", "", 204, ""),
        ],
    )
    .await;
}

#[tokio::test]
async fn secrets_are_read_within_their_scope() {
    let (door, _) = door(Setup::default());
    replay(
        &door,
        &[
            ("GET", "/v1.0/secrets/sec/plain?metadata.version_id=3", "", 200, "{\"plain\":\"p\"}\n"),
            ("GET", "/v1.0/secrets/sec/bulk", "", 200, "{\"plain\":{\"plain\":\"p\"}}\n"),
            ("GET", "/v1.0/secrets/sec/enc", "", 403, r#"{"errorCode":"ERR_PERMISSION_DENIED","message":"access denied by policy to get \"enc\" from \"sec\""}"#),
            ("GET", "/v1.0/secrets/sec/nope", "", 500, r#"{"errorCode":"ERR_SECRET_GET","message":"failed getting secret with key nope from secret store sec: secret nope not found"}"#),
            ("GET", "/v1.0/secrets/other/k", "", 401, r#"{"errorCode":"ERR_SECRET_STORE_NOT_FOUND","message":"failed finding secret store with key other"}"#),
        ],
    )
    .await;
}

#[tokio::test]
async fn metadata_lists_the_runtime_and_keeps_notes() {
    let (door, _) = door(Setup::default());
    let metadata = |extended: &str| {
        format!(
            "{{\"id\":\"myapp\",\"runtimeVersion\":\"edge\",\"enabledFeatures\":[\"HotReload\"],\"components\":[{{\"name\":\"mem\",\"type\":\"state.in-memory\",\"version\":\"v1\",\"capabilities\":[\"ETAG\",\"TRANSACTIONAL\"]}}],\"extended\":{{{extended}\"daprRuntimeVersion\":\"edge\"}},\"appConnectionProperties\":{{\"protocol\":\"http\",\"channelAddress\":\"127.0.0.1\"}},\"actorRuntime\":{{\"runtimeStatus\":\"DISABLED\",\"hostReady\":false,\"placement\":\"placement: disconnected\"}}}}\n"
        )
    };
    replay(
        &door,
        &[
            ("GET", "/v1.0/metadata", "", 200, &metadata("")),
            ("PUT", "/v1.0/metadata/color", "blue", 204, ""),
            ("GET", "/v1.0/metadata/", "", 200, &metadata("\"color\":\"blue\",")),
        ],
    )
    .await;
}

#[tokio::test]
async fn probes_answer_by_readiness_and_are_not_traced() {
    let (blocks, _) = api(None, None, false);
    let door = HttpDoor::new(blocks.clone(), Options::default());
    let probe = async |path: &str| {
        let answer = ask(&door, "GET", path, "").await;
        assert_eq!(answer.header("traceparent"), None);
        (answer.status.as_u16(), answer.body)
    };
    let not_ready = r#"{"errorCode":"ERR_HEALTH_NOT_READY","message":"dapr is not ready: [app]"}"#.to_owned();
    assert_eq!(probe("/v1.0/healthz/outbound").await, (204, String::new()));
    assert_eq!(probe("/v1.0/healthz").await, (500, not_ready));
    blocks.health.set_ready(true);
    assert_eq!(probe("/v1.0/healthz?appid=myapp").await, (204, String::new()));
    let mismatch = r#"{"errorCode":"ERR_HEALTH_APPID_NOT_MATCH","message":"dapr app-id does not match"}"#.to_owned();
    assert_eq!(probe("/v1.0/healthz?appid=other").await, (500, mismatch));
}

#[tokio::test]
async fn the_public_door_is_for_probes_and_reading_metadata() {
    let (blocks, _) = api(None, None, true);
    let door = HttpDoor::public(blocks, Options { api_token: Some("t".into()), ..Options::default() });
    assert_eq!(ask(&door, "GET", "/v1.0/metadata", "").await.status, 200);
    assert_eq!(ask(&door, "GET", "/v1.0/healthz/outbound", "").await.status, 204);
    for (method, path) in
        [("PUT", "/v1.0/metadata/x"), ("GET", "/v1.0/state/mem/k"), ("GET", "/v1.0/invoke/a/method/b")]
    {
        let answer = ask(&door, method, path, "").await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (404, "404 page not found\n"));
    }
}

#[tokio::test]
async fn a_token_is_asked_for_but_by_probes_and_stays_here() {
    let seen = Arc::new(Mutex::new(None));
    let notes = Arc::clone(&seen);
    let app = app::from_fn(move |request: Request| {
        *notes.lock().unwrap() = Some(request.headers().contains_key("dapr-api-token"));
        async { Response::new(Body::Empty) }
    });
    let app: Arc<dyn trilby_core::AppChannel> = Arc::new(app);
    let options = Options { api_token: Some("secret".into()), ..Options::default() };
    let (guarded, _) = door(Setup { options, app: Some(Arc::clone(&app)), ..Setup::default() });
    for headers in [&[][..], &[("dapr-api-token", "wrong")]] {
        let refused = ask_with(&guarded, "GET", "/v1.0/metadata", headers, "").await;
        assert_eq!((refused.status.as_u16(), refused.body.as_str()), (401, "invalid api token\n"));
    }
    assert_eq!(ask(&guarded, "GET", "/v1.0/healthz/outbound", "").await.status, 204);

    let path = "/v1.0/invoke/other/method/m";
    assert_eq!(ask_with(&guarded, "GET", path, &[("dapr-api-token", "secret")], "").await.status, 200);
    assert_eq!(seen.lock().unwrap().take(), Some(false));
    let (open, _) = door(Setup { app: Some(app), ..Setup::default() });
    assert_eq!(ask_with(&open, "GET", path, &[("dapr-api-token", "t")], "").await.status, 200);
    assert_eq!(seen.lock().unwrap().take(), Some(true), "a token that is not ours is the callee's");
}

#[tokio::test]
async fn browsers_are_answered_before_the_token_is_asked_for() {
    let with = |origin: &str| Options {
        api_token: Some("t".into()),
        allowed_origins: vec![origin.into()],
        ..Options::default()
    };
    let ask_permission = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
    for (allowed, expect) in
        [("*", Some("*")), ("https://a.example", Some("https://a.example")), ("https://b.example", None)]
    {
        let (door, _) = door(Setup { options: with(allowed), ..Setup::default() });
        let preflight = ask_with(&door, "OPTIONS", "/v1.0/metadata", &ask_permission, "").await;
        assert_eq!(preflight.status, 200);
        assert_eq!(preflight.header("access-control-allow-origin"), expect);
        assert_eq!(preflight.header("vary"), Some("Origin"));
        let refused = ask_with(&door, "GET", "/v1.0/metadata", &ask_permission[..1], "").await;
        assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (401, expect));
    }
    let (door, _) = door(Setup::default());
    let without = ask_with(&door, "OPTIONS", "/v1.0/metadata", &ask_permission, "").await;
    assert_eq!((without.status.as_u16(), without.header("vary")), (404, None));
}

#[tokio::test]
async fn a_denied_api_is_not_there() {
    let access = Access { allowed: Vec::new(), denied: vec!["v1.0/state".into()] };
    let (no_state, _) = door(Setup { options: Options { access, ..Options::default() }, ..Setup::default() });
    replay(&no_state, &[("GET", "/v1.0/state/mem/k", "", 404, NO_APP_ID)]).await;
    assert_eq!(ask(&no_state, "GET", "/v1.0/secrets/sec/plain", "").await.status, 200);
    let access = Access { allowed: Vec::new(), denied: vec!["v1/invoke".into()] };
    let (no_invoke, _) = door(Setup { options: Options { access, ..Options::default() }, ..Setup::default() });
    let answer = ask(&no_invoke, "GET", "/v1.0/invoke/a/method/b", "").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (404, "404 page not found\n"));
}

#[tokio::test]
async fn shutdown_is_passed_on() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    let hook: trilby_door_http::ShutdownHook = Arc::new(move |shutdown| notes.lock().unwrap().push(shutdown));
    let (door, _) = door(Setup { options: Options { shutdown: Some(hook), ..Options::default() }, ..Setup::default() });
    replay(&door, &[("POST", "/v1.0/shutdown", "", 204, "")]).await;
    let forced = [("dapr-force-shutdown", "True")];
    assert_eq!(ask_with(&door, "POST", "/v1.0/shutdown", &forced, "").await.status, 204);
    assert_eq!(*asked.lock().unwrap(), [Shutdown::Graceful, Shutdown::Forced]);
}

#[tokio::test]
async fn a_trace_is_answered_with_itself() {
    let (door, _) = door(Setup::default());
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", parent), ("tracestate", "k=v"), ("baggage", "a=b")];
    let answer = ask_with(&door, "GET", "/v1.0/state/mem/k", &headers, "").await;
    for (name, value) in headers {
        assert_eq!(answer.header(name), Some(value));
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_what_would_read_it() {
    let options = Options { max_body_bytes: 10, ..Options::default() };
    let echo: Arc<dyn trilby_core::AppChannel> =
        Arc::new(app::from_fn(|request: Request| async { Response::new(request.into_body()) }));
    let (door, _) = door(Setup { options, app: Some(echo), ..Setup::default() });
    let body = r#"[{"key":"k"}]"#;
    let limit = "body is larger than the limit of 10 bytes; raise --max-body-size";
    let error = |code: &str, message: &str| format!(r#"{{"errorCode":"{code}","message":"{message}{limit}"}}"#);
    replay(
        &door,
        &[
            ("POST", "/v1.0/state/mem", body, 400, &error("ERR_MALFORMED_REQUEST", "")),
            ("PUT", "/v1.0/metadata/k", body, 400, &error("ERR_BODY_READ", "failed to read request body: ")),
            (
                "POST",
                "/v1.0/invoke/other/method/m",
                body,
                500,
                &error("ERR_DIRECT_INVOKE", "failed to invoke, id: other, err: "),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_invocation_passes_method_query_and_headers_on() {
    let echo = app::from_fn(|request: Request| async move {
        let line = format!("{} {}", request.method(), request.uri());
        http::Response::builder().status(418).header("x-app", "1").body(Body::from(line)).expect("a response")
    });
    let (door, _) = door(Setup { app: Some(Arc::new(echo)), ..Setup::default() });
    let call = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let answer = ask_with(&door, method, path, headers, "").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-app")), (418, Some("1")));
        assert_eq!(answer.header("traceparent"), Some(UNTRACED));
        answer.body
    };
    assert_eq!(call("PATCH", "/v1.0/invoke/other/method/echo?x=1&y=a%20b", &[]).await, "PATCH /echo?x=1&y=a%20b");
    assert_eq!(call("GET", "/v1.0/invoke/myapp/method/a/b%2Fc/%C5%BE?q=%2F", &[]).await, "GET /a/b/c/%C5%BE?q=%2F");
    assert_eq!(call("GET", "/v1.0/invoke/myapp/method//x//y/", &[]).await, "GET /x/y");
    assert_eq!(call("GET", "/v1.0/invoke/myapp/method/../x", &[]).await, "GET /x");
    assert_eq!(call("GET", "/v1.0/invoke/myapp/method/", &[]).await, "GET /");
    assert_eq!(call("POST", "/echo?z=1", &[("dapr-app-id", "myapp")]).await, "POST /echo?z=1");
    assert_eq!(call("GET", "/echo", &[("authorization", "Basic ZGFwci1hcHAtaWQ6b3RoZXI=")]).await, "GET /echo");
}
