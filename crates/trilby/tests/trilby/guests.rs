//! Apps that are Wasm guests, beside others and without a socket.

use trilby::{
    AppSpec, Body, Engine, Trilby, WasmSettings,
    http::{self, StatusCode},
    wasm,
};

use crate::support::{anywhere, echo, get, guest, post, send, text, with_memory};

#[tokio::test]
async fn a_guest_keeps_state_and_is_called_like_any_app() {
    let Some(inventory) = guest("inventory") else { return };
    let trilby = with_memory().app(AppSpec::wasm("inventory", inventory)).app(echo("a")).start().await.expect("starts");
    let put = http::Request::put("/stock/tea").body(Body::from(r#"{"quantity": 3}"#)).expect("a request");
    assert_eq!(trilby.invoke("inventory", put).await.expect("answers").status(), StatusCode::OK);
    let api = trilby.api("a").expect("it runs");
    let reserve = post("/reserve", r#"{"item": "tea", "quantity": 2}"#);
    let answer = api.invoke.call(&Default::default(), "inventory", reserve).await.expect("answers");
    assert!(answer.status().is_success(), "{}", answer.status());
    let stock = trilby.invoke("inventory", get("/stock/tea")).await.expect("answers");
    assert_eq!(text(stock).await, r#"{"quantity":1}"#);
    assert!(trilby.wasm_stats("inventory").expect("a guest").calls >= 3);
    assert!(trilby.wasm_stats("a").is_none());
    assert_eq!(trilby.wasm_report("inventory").expect("a guest").blocks, ["state"]);
    trilby.shutdown().await;
}

#[tokio::test]
async fn a_guest_answers_the_world_through_its_ingress() {
    let Some(hello) = guest("hello") else { return };
    let trilby =
        Trilby::builder().app(AppSpec::wasm("hello", hello).ingress(anywhere())).start().await.expect("starts");
    let url = format!("http://{}/", trilby.ingress_address("hello").expect("listens"));
    assert_eq!(send(get(&url)).await, (StatusCode::OK, "hello from a guest\n".into()));
    trilby.shutdown().await;
}

#[tokio::test]
async fn two_runtimes_may_share_an_engine_and_nothing_else() {
    let Some(inventory) = guest("inventory") else { return };
    let engine = Engine::new(wasm::Options::default());
    let start = async || {
        let app = AppSpec::wasm("inventory", inventory.clone());
        with_memory().engine(engine.clone()).app(app).start().await.expect("starts")
    };
    let (one, two) = (start().await, start().await);
    let put = http::Request::put("/stock/tea").body(Body::from(r#"{"quantity": 3}"#)).expect("a request");
    one.invoke("inventory", put).await.expect("answers");
    let stock =
        async |trilby: &Trilby| text(trilby.invoke("inventory", get("/stock/tea")).await.expect("answers")).await;
    assert_eq!(stock(&one).await, r#"{"quantity":3}"#);
    assert_ne!(stock(&two).await, r#"{"quantity":3}"#);
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test]
async fn a_guest_that_cannot_be_loaded_is_named() {
    let error = async |app: AppSpec| Trilby::builder().app(app).start().await.err().expect("bad input").to_string();
    let missing = error(AppSpec::wasm("a", "/missing/app.wasm")).await;
    assert!(missing.starts_with("app a: /missing/app.wasm: no such file"), "{missing}");
    let scheme = error(AppSpec::wasm("a", "ftp://x/app.wasm")).await;
    assert!(scheme.starts_with("app a: ftp://x/app.wasm: "), "{scheme}");
    let settings = WasmSettings { allowed_hosts: vec!["a b".into()], ..WasmSettings::default() };
    let host = error(AppSpec::wasm("a", "/missing/app.wasm").wasm_settings(settings)).await;
    assert!(host.starts_with("app a: allowedHosts: \"a b\" is not a host"), "{host}");
}
