//! Two runtimes inside one program: no sidecar, no port, no environment, nothing shared between them.
//!
//! `cargo run -p embed [GUEST.wasm]`; the default guest is the one that `cargo xtask guests` builds.

use std::error::Error;

use trilby::component::{Metadata, state};
use trilby::{AppSpec, Body, Ctx, Request, Response, Trilby, http};

const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/wasm/inventory.wasm");
const RESOURCES: &str = concat!(
    "{apiVersion: dapr.io/v1alpha1, kind: Component, metadata: {name: statestore},\n",
    " spec: {type: state.in-memory, version: v1}}\n---\n",
    "{apiVersion: dapr.io/v1alpha1, kind: Component, metadata: {name: secretstore},\n",
    " spec: {type: secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: '",
    env!("CARGO_MANIFEST_DIR"),
    "/secrets.json'}]}}\n"
);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let guest = std::env::args().nth(1).unwrap_or_else(|| GUEST.to_owned());
    let (one, two) = (start("one", &guest).await?, start("two", &guest).await?);
    for runtime in [&one, &two] {
        let (ctx, api) = (Ctx::default(), runtime.api("greeter").ok_or("the greeter runs")?);
        let store = api.state.store("statestore")?;
        let key = || state::GetRequest { key: "visits".into(), ..Default::default() };
        println!("before: {:?}", store.get(&ctx, key()).await?.map(|item| item.value));
        let (value, options) = (state::Value::Bytes("1".into()), state::WriteOptions::default());
        let visits = state::SetRequest { key: key().key, value, etag: None, options, metadata: Metadata::new() };
        store.save(&ctx, vec![visits]).await?;
        println!("after: {:?}", store.get(&ctx, key()).await?.map(|item| item.value));
        println!("secret: {:?}", api.secrets.get(&ctx, "secretstore", "greeting", &Metadata::new()).await?);

        println!(
            "closure: {}",
            text(runtime.invoke("greeter", http::Request::get("/you").body(Body::Empty)?).await?).await?
        );
        let stock = http::Request::put("/stock/tea").body(Body::from(r#"{"quantity": 3}"#))?;
        println!("guest: {}", text(api.invoke.call(&ctx, "inventory", stock).await?).await?);
    }
    one.shutdown().await;
    two.shutdown().await;
    Ok(())
}

async fn start(name: &'static str, guest: &str) -> Result<Trilby, trilby::Error> {
    let greeter = AppSpec::function("greeter", move |request: Request| async move {
        Response::new(Body::from(format!("runtime {name} greets {}", request.uri().path())))
    });
    Trilby::builder().resources_text(name, RESOURCES).app(greeter).app(AppSpec::wasm("inventory", guest)).start().await
}

async fn text(response: Response) -> Result<String, Box<dyn Error>> {
    Ok(String::from_utf8(response.into_body().collect(1 << 20).await?.to_vec())?)
}
