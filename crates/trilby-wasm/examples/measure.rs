//! Measures what the engine costs: a call, an instance, an idle app. Run it with `--release`.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use trilby_wasm::wasmtime::component::{InstancePre, TypedFunc};
use trilby_wasm::wasmtime::{self, Store};
use trilby_wasm::{Allocator, Blueprint, Engine, HostState, Isolation, Limits, Meter, Options, Pool};

const GUEST: &str = r#"(component
  (import "host" (func $host (param "n" u32) (result u32)))
  (core func $host' (canon lower (func $host)))
  (core module $m
    (import "" "host" (func $host (param i32) (result i32)))
    (memory 17)
    (data (i32.const 1048576) "some initial memory")
    (func (export "add") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
    (func (export "spin") (param i32) (result i32) (loop (br 0)) unreachable)
    (func (export "ask") (param i32) (result i32)
      (loop
        (drop (call $host (local.get 0)))
        (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
        (br_if 0 (local.get 0)))
      (i32.const 0)))
  (core instance $i (instantiate $m (with "" (instance (export "host" (func $host'))))))
  (func (export "add") (param "n" u32) (result u32) (canon lift (core func $i "add")))
  (func (export "spin") (param "n" u32) (result u32) (canon lift (core func $i "spin")))
  (func (export "ask") (param "n" u32) (result u32) (canon lift (core func $i "ask"))))"#;

struct Guest(Meter);

impl HostState for Guest {
    fn meter(&mut self) -> &mut Meter {
        &mut self.0
    }
}

struct App {
    pre: InstancePre<Guest>,
    limits: Limits,
}

struct Exports {
    add: TypedFunc<(u32,), (u32,)>,
    spin: TypedFunc<(u32,), (u32,)>,
    ask: TypedFunc<(u32,), (u32,)>,
}

impl Blueprint for App {
    type Data = Guest;
    type Exports = Exports;

    fn data(&self) -> wasmtime::Result<Guest> {
        Ok(Guest(Meter::new(&self.limits)))
    }

    async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<Exports> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        Ok(Exports {
            add: instance.get_typed_func(&mut *store, "add")?,
            spin: instance.get_typed_func(&mut *store, "spin")?,
            ask: instance.get_typed_func(&mut *store, "ask")?,
        })
    }
}

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

async fn app(engine: &Engine, limits: Limits, isolation: Isolation) -> Outcome<Pool<App>> {
    let program = engine.load_bytes("guest", wat::parse_str(GUEST)?.into()).await?;
    let mut linker = engine.linker::<Guest>()?;
    linker.root().func_wrap_async("host", |_, (n,): (u32,)| Box::new(async move { Ok((n,)) }))?;
    let pre = linker.instantiate_pre(program.component()?)?;
    Ok(Pool::new(engine.clone(), App { pre, limits: limits.clone() }, limits, isolation))
}

async fn add(pool: &Pool<App>) -> Outcome<u32> {
    let answer = pool.call(|instance| {
        Box::pin(async move { Ok(instance.exports.add.call_async(&mut instance.store, (1,)).await?.0) })
    });
    Ok(answer.await?)
}

async fn ask(pool: &Pool<App>, times: u32) -> Outcome<u32> {
    let answer = pool.call(move |instance| {
        Box::pin(async move { Ok(instance.exports.ask.call_async(&mut instance.store, (times,)).await?.0) })
    });
    Ok(answer.await?)
}

async fn spin(pool: &Pool<App>) -> bool {
    let answer = pool.call(|instance| {
        Box::pin(async move { Ok(instance.exports.spin.call_async(&mut instance.store, (1,)).await?.0) })
    });
    answer.await.is_ok()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

/// The 50th and 99th of a hundred, in microseconds.
fn percentiles(mut samples: Vec<Duration>) -> (f64, f64) {
    samples.sort();
    let at = |part: usize| samples[samples.len() * part / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}

async fn sample(pool: &Pool<App>, times: usize) -> Outcome<Vec<Duration>> {
    let mut samples = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        add(pool).await?;
        samples.push(began.elapsed());
    }
    Ok(samples)
}

/// As `sample`, but with a pause between calls, as a service has.
async fn sample_sparse(pool: &Pool<App>, times: usize) -> Outcome<Vec<Duration>> {
    let mut samples = Vec::with_capacity(times);
    for _ in 0..times {
        samples.extend(sample(pool, 1).await?);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(samples)
}

async fn measure(allocator: Allocator) -> Outcome<()> {
    let mut out = io::stdout();
    writeln!(out, "-- {allocator:?}")?;
    let before = resident_kib();
    let engine = Engine::new(Options { allocator, ..Options::default() });
    writeln!(out, "engine, not used:        {:>9} KiB", resident_kib() - before)?;
    let began = Instant::now();
    engine.wasmtime()?;
    let took = began.elapsed();
    writeln!(out, "engine, started:         {:>9} KiB, {took:.1?}", resident_kib() - before)?;

    let warm = app(&engine, Limits::default(), Isolation::Reuse).await?;
    sample(&warm, 20_000).await?;
    let (p50, p99) = percentiles(sample(&warm, 200_000).await?);
    writeln!(out, "warm call:               {p50:>9.2} us, p99 {p99:.2} us")?;
    let began = Instant::now();
    ask(&warm, 10_000).await?;
    writeln!(out, "host call from a guest:  {:>9.3} us", began.elapsed().as_secs_f64() * 1e6 / 10_000.0)?;

    let cold = app(&engine, Limits::default(), Isolation::PerCall).await?;
    sample(&cold, 2_000).await?;
    let (p50, p99) = percentiles(sample(&cold, 20_000).await?);
    writeln!(out, "cold instance and call:  {p50:>9.2} us, p99 {p99:.2} us")?;

    let before = resident_kib();
    let mut apps = Vec::new();
    for _ in 0..1000 {
        let app = app(&engine, Limits::default(), Isolation::Reuse).await?;
        add(&app).await?;
        apps.push(app);
    }
    let each = (resident_kib().saturating_sub(before)) as f64 / 1000.0;
    writeln!(out, "idle app of 1,000:       {each:>9.1} KiB")?;
    drop(apps);

    let quiet = percentiles(sample_sparse(&warm, 1000).await?);
    let limits = Limits { call_timeout: Duration::from_secs(4), ..Limits::default() };
    let spinner = app(&engine, limits, Isolation::Reuse).await?;
    let spinning = tokio::spawn(async move { join_all((0..16).map(|_| spin(&spinner))).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let loaded = percentiles(sample_sparse(&warm, 1000).await?);
    writeln!(out, "neighbour, quiet:        {:>9.2} us, p99 {:.2} us", quiet.0, quiet.1)?;
    writeln!(out, "neighbour, 16 spinning:  {:>9.2} us, p99 {:.2} us", loaded.0, loaded.1)?;
    spinning.await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    writeln!(io::stdout(), "process at start:        {:>9} KiB", resident_kib())?;
    for allocator in [Allocator::Pooling, Allocator::OnDemand] {
        tokio::spawn(measure(allocator)).await??;
    }
    Ok(())
}
