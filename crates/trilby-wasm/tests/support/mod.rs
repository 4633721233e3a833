//! A guest that misbehaves on request, and a pool of it.

use std::time::Duration;

use bytes::Bytes;
use trilby_wasm::wasmtime::component::{Instance as Exports, InstancePre};
use trilby_wasm::wasmtime::{self, Store};
use trilby_wasm::{
    Allocator, Blueprint, CallError, Engine, HostState, Isolation, Limits, Meter, Options, Pool, Program,
};

/// Each export does one thing; those that return give a number.
pub(crate) const GUEST: &str = r#"
(component
  (core module $m
    (memory 1)
    (table 1 funcref)
    (global $calls (mut i32) (i32.const 0))
    (func (export "count") (result i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (global.get $calls))
    (func (export "spin") (result i32) (loop (br 0)) unreachable)
    (func (export "eat-memory") (result i32)
      (loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
      unreachable)
    (func (export "try-memory") (result i32) (memory.grow (i32.const 60000)))
    (func (export "eat-table") (result i32)
      (loop (br_if 0 (i32.ne (table.grow (ref.null func) (i32.const 1000)) (i32.const -1))))
      unreachable)
    (func $deep (export "recurse") (result i32) (i32.add (call $deep) (i32.const 1)))
    (func (export "trap") (result i32) unreachable)
    (func (export "divide") (result i32) (i32.div_u (i32.const 1) (i32.const 0)))
    (func (export "work") (result i32) (local $left i32)
      (local.set $left (i32.const 100000000))
      (loop
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if 0 (local.get $left)))
      (local.get $left)))
  (core instance $i (instantiate $m))
  (func (export "count") (result u32) (canon lift (core func $i "count")))
  (func (export "spin") (result u32) (canon lift (core func $i "spin")))
  (func (export "eat-memory") (result u32) (canon lift (core func $i "eat-memory")))
  (func (export "try-memory") (result u32) (canon lift (core func $i "try-memory")))
  (func (export "eat-table") (result u32) (canon lift (core func $i "eat-table")))
  (func (export "recurse") (result u32) (canon lift (core func $i "recurse")))
  (func (export "trap") (result u32) (canon lift (core func $i "trap")))
  (func (export "divide") (result u32) (canon lift (core func $i "divide")))
  (func (export "work") (result u32) (canon lift (core func $i "work"))))
"#;

pub(crate) fn wat(text: &str) -> Bytes {
    wat::parse_str(text).expect("the test's own text is valid").into()
}

pub(crate) fn engine(allocator: Allocator) -> Engine {
    Engine::new(Options { allocator, max_instances: 100, ..Options::default() })
}

pub(crate) async fn load(engine: &Engine, text: &str) -> Program {
    engine.load_bytes("guest", wat(text)).await.expect("the guest is valid")
}

pub(crate) fn limits() -> Limits {
    Limits { memory_bytes: 8 << 20, table_elements: 10_000, call_timeout: Duration::from_secs(20), ..Limits::default() }
}

pub(crate) struct Guest(Meter);

impl HostState for Guest {
    fn meter(&mut self) -> &mut Meter {
        &mut self.0
    }
}

pub(crate) struct App {
    pre: InstancePre<Guest>,
    limits: Limits,
}

impl Blueprint for App {
    type Data = Guest;
    type Exports = Exports;

    fn data(&self) -> wasmtime::Result<Guest> {
        Ok(Guest(Meter::new(&self.limits)))
    }

    async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<Exports> {
        self.pre.instantiate_async(store).await
    }
}

pub(crate) async fn pool_of(engine: &Engine, text: &str, limits: Limits, isolation: Isolation) -> Pool<App> {
    let program = load(engine, text).await;
    let linker = engine.linker().expect("the engine runs");
    let pre = linker.instantiate_pre(program.component().expect("a component")).expect("nothing to link");
    Pool::new(engine.clone(), App { pre, limits: limits.clone() }, limits, isolation)
}

pub(crate) async fn pool(engine: &Engine, limits: Limits, isolation: Isolation) -> Pool<App> {
    pool_of(engine, GUEST, limits, isolation).await
}

pub(crate) async fn call(pool: &Pool<App>, function: &'static str) -> Result<u32, CallError> {
    pool.call(move |instance| {
        Box::pin(async move {
            let function = instance.exports.get_typed_func::<(), (u32,)>(&mut instance.store, function)?;
            let (answer,) = function.call_async(&mut instance.store, ()).await?;
            Ok(answer)
        })
    })
    .await
}
