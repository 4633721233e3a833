//! A build without a compiler says what it cannot do.

#![cfg(not(feature = "compiler"))]

use trilby_wasm::{Engine, LoadReason, Options};

#[tokio::test]
async fn wasm_that_is_not_compiled_is_refused_with_the_way_out() {
    let engine = Engine::new(Options::default());
    let wasm = wat::parse_str("(component)").expect("valid");
    let error = engine.load_bytes("guest", wasm.into()).await.expect_err("no compiler");
    assert!(matches!(error.reason, LoadReason::NoCompiler), "{error}");
    let expect = "guest: is not compiled and this build has no compiler; compile it ahead of time";
    assert_eq!(error.to_string(), expect);
}
