//! Programs that are no apps, and what is said about them.

use bytes::Bytes;
use trilby_door_wasm::{Entry, LoadError, Report, WasmApp};
use trilby_wasm::{Grants, Source};

use crate::world::{World, built};

async fn refusal(world: &World, wat: &str) -> String {
    let program = match wat::parse_str(wat) {
        Ok(wasm) => world.engine.load_bytes("guest.wasm", wasm.into()).await,
        Err(_) => world.engine.load_bytes("guest.wasm", Bytes::copy_from_slice(wat.as_bytes())).await,
    };
    let app = match program {
        Ok(program) => WasmApp::from_program(&world.engine, &program, world.options(), world.api("guest")).await,
        Err(error) => Err(error.into()),
    };
    app.err().map(|error: LoadError| error.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn what_is_wrong_with_a_program_is_said_with_its_name() {
    let world = World::new();
    for (wat, expect) in [
        ("this is no Wasm", "guest.wasm: is not WebAssembly"),
        ("(module)", "guest.wasm: is a core module; a component is needed here"),
        (
            "(component)",
            "guest.wasm: is no app: an app exports trilby:dapr/service@0.2, wasi:http/incoming-handler@0.2, wasi:http/handler@0.3 or a handler such as trilby:dapr/subscriber@0.2, and this exports nothing",
        ),
        (
            r#"(component (import "acme:shop/cart@1.0.0" (instance (export "add" (func)))))"#,
            "guest.wasm: imports acme:shop/cart@1.0.0, which this build does not have",
        ),
        (
            r#"(component (import "wasi:sockets/tcp@0.2.3" (instance (export "add" (func)))))"#,
            "guest.wasm: imports wasi:sockets/tcp@0.2.3, which needs a grant: give the app hosts to connect to (allowedHosts)",
        ),
        (
            r#"(component (import "trilby:dapr/state@0.2.0" (instance (export "query" (func)))))"#,
            "guest.wasm: cannot be linked: component imports instance `trilby:dapr/state@0.2.0`",
        ),
        (
            r#"(component (instance $empty) (export "trilby:dapr/subscriber@0.2.0" (instance $empty)))"#,
            "guest.wasm: cannot be linked: ",
        ),
        (r#"(component (import "do-it" (func)))"#, "guest.wasm: imports do-it, which this build does not have"),
    ] {
        let text = refusal(&world, wat).await;
        assert!(text.starts_with(expect), "{text}");
    }
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let world = World::new();
    let source = Source::parse("/nowhere/app.wasm").expect("a path");
    let error = world.load(&source, "app", world.options()).await.err().expect("there is nothing");
    assert_eq!(error.to_string(), "/nowhere/app.wasm: no such file; check the path");
}

#[tokio::test]
async fn a_report_says_what_a_guest_is_and_uses() {
    let world = World::new();
    let Some(source) = built("storefront") else { return };
    let program = world.engine.load(&source).await.expect("the guest is sound");
    let report = Report::of(&program, &Grants::default());
    assert_eq!(report.entry, Some(Entry::Http));
    assert_eq!(report.blocks, ["secrets", "invoke"]);
    assert!(report.refusals.is_empty() && report.unused_entries.is_empty());
}

#[tokio::test]
async fn a_guest_sees_nothing_of_the_world() {
    let world = World::new();
    let Some(source) = built("mirror") else { return };
    let program = world.engine.load(&source).await.expect("the guest is sound");
    let imports = &program.surface().imports;
    assert!(imports.interface("wasi:filesystem/preopens").is_none() && imports.interface("wasi:sockets/tcp").is_none());
}
