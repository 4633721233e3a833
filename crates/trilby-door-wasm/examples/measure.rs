//! Measures what calls cost, into guests and out of them: `cargo run --release -p trilby-door-wasm --example measure`,
//! after `cargo xtask guests`.

#[path = "../tests/guests/fakes.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod fakes;
#[path = "../tests/guests/world.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod world;

use std::time::{Duration, Instant};

use trilby_core::{AppChannel as _, Ctx};
use trilby_door_wasm::WasmApp;
use world::{World, call, get};

const CALLS: u32 = 100_000;
const ROUNDS: u32 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let world = World::new();
    let (Some(bench), Some(_), Some(hello)) = (
        world.start("bench", "bench").await,
        world.start("callee", "bench").await,
        world.start("hello", "hello").await,
    ) else {
        return;
    };
    for (op, target) in [("nothing", ""), ("get", "statestore"), ("set", "statestore"), ("invoke", "callee")] {
        print(op, best(async || inside(&bench, op, target).await).await);
    }
    print("service", best(async || repeat(async || drop(call(&bench, "POST", "/echo", "x").await)).await).await);
    print("wasi:http", best(async || repeat(async || drop(hello.invoke(&Ctx::default(), get("/")).await)).await).await);
}

/// Time of one call by the guest's own clock.
async fn inside(bench: &WasmApp, op: &str, target: &str) -> Duration {
    let job = format!(r#"{{"op":"{op}","count":{CALLS},"target":"{target}"}}"#);
    let (status, nanos) = call(bench, "POST", "/", job).await.expect("answers");
    assert_eq!(status, 200, "{nanos}");
    Duration::from_nanos(nanos.parse().expect("a number")) / CALLS
}

async fn repeat(mut once: impl AsyncFnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..CALLS {
        once().await;
        // As between the requests of a server: the budget of a task is per turn.
        tokio::task::yield_now().await;
    }
    began.elapsed() / CALLS
}

async fn best(mut round: impl AsyncFnMut() -> Duration) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        best = best.min(round().await);
    }
    best
}

fn print(what: &str, each: Duration) {
    println!("{what:10} {each:?}");
}
