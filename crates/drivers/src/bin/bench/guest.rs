//! What a guest pays: for a call to a block, for a call to another guest, and for being there.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use drivers::Result;
use tokio::process::{Child, Command};
use trilby::{AppSpec, Body, Ctx, Request, Trilby, WasmSettings, runtime::configuration::Isolation};

use crate::{
    Options,
    daprd::{Daprd, free_port},
    load::{self, HttpConnection, Load},
    report::Report,
    sidecar::{micros, one_round},
};

const STORE: &str = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: { name: mem }
spec: { type: state.in-memory, version: v1 }
";

const ROUNDS: usize = 5;
const CALLS: u32 = 20_000;
/// A stock `wasmtime serve` 48 on such a machine, requests per CPU second of a hello; it makes an instance a request.
const WASMTIME_SERVE: f64 = 6_800.0;

pub(crate) async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    report.section(
        "Wasm guests",
        "Per call, timed inside the guest over 20,000 calls; the median of 5 rounds. State in memory, 100-byte values.",
    );
    let get = blocks(options, report).await?;
    doors(options, report, get).await?;
    cold(options, report).await?;
    hello(options, report).await
}

/// State and invocation from inside a guest. Returns what a get costs.
async fn blocks(options: &Options, report: &mut Report) -> Result<Duration> {
    let trilby = guests(options, WasmSettings::default()).await?;
    let mut get = Duration::ZERO;
    for (op, target, what, limit) in [
        ("get", "mem", "state get", Some(2.0)),
        ("set", "mem", "state set", None),
        ("invoke", "other", "invoke of another guest", Some(10.0)),
    ] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let nanos = ask(&trilby, &format!(r#"{{"op":"{op}","count":{CALLS},"target":"{target}"}}"#)).await?;
            let nanos: u64 = nanos.parse().map_err(|_| format!("the bench guest answered {nanos:?}"))?;
            rounds.push(Duration::from_nanos(nanos) / CALLS);
        }
        rounds.sort_unstable();
        let median = rounds[ROUNDS / 2];
        if op == "get" {
            get = median;
        }
        let target = limit.map_or(String::new(), |limit| format!("≤ {limit} µs"));
        report.row(what, format!("{:.2} µs", micros(median)), &target, limit.map(|limit| micros(median) <= limit));
    }
    trilby.shutdown().await;
    Ok(get)
}

/// The same get through our own doors on loopback, one caller.
async fn doors(options: &Options, report: &mut Report, get: Duration) -> Result<()> {
    let daprd = Daprd::start(&options.binaries.join("daprd")).await?;
    for what in ["HTTP get", "gRPC get"] {
        let Load { p50, .. } = one_round(&daprd, what, 1).await?;
        let ratio = p50.as_secs_f64() / get.as_secs_f64();
        let target = (what == "gRPC get").then_some(50.0);
        report.row(
            &format!("the same get over our {} door, one caller", &what[..4]),
            format!("{:.0} µs, {ratio:.0} × the guest's", micros(p50)),
            if target.is_some() { "≥ 50 ×" } else { "" },
            target.map(|target| ratio >= target),
        );
    }
    Ok(())
}

/// A call that makes its own instance against one that finds one.
async fn cold(options: &Options, report: &mut Report) -> Result<()> {
    let mut medians = Vec::new();
    for isolation in [Isolation::Reuse, Isolation::Request] {
        let settings = WasmSettings { isolation: Some(isolation), ..WasmSettings::default() };
        let trilby = guests(options, settings).await?;
        let mut took = Vec::new();
        for _ in 0..2_000 {
            let started = Instant::now();
            call(&trilby, "/echo", "hi").await?;
            took.push(started.elapsed());
        }
        took.sort_unstable();
        medians.push(took[took.len() / 2]);
        trilby.shutdown().await;
    }
    report.row("call of a warm instance, from Rust", format!("{:.1} µs", micros(medians[0])), "", None);
    let cold = medians[1];
    report.row(
        "call of a cold instance: made, called, dropped",
        format!("{:.0} µs", micros(cold)),
        "≤ 100 µs",
        Some(micros(cold) <= 100.0),
    );
    Ok(())
}

/// `wasi:http` hello through the host against the smallest hyper server; and how soon it is there.
async fn hello(options: &Options, report: &mut Report) -> Result<()> {
    // Absolute: the runtime is started in a folder of its own.
    let absolute = |path: PathBuf| std::fs::canonicalize(&path).map_err(|error| format!("{}: {error}", path.display()));
    let trilby = absolute(options.binaries.join("trilby"))?;
    let guest = absolute(options.guests.join("hello.wasm"))?;
    let cache = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (_first, _, _) = serve(&trilby, &guest, cache.path()).await?;
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        let (_child, _, took) = serve(&trilby, &guest, cache.path()).await?;
        starts.push(took);
    }
    starts.sort_unstable();
    let start = starts[ROUNDS / 2].as_secs_f64() * 1e3;
    report.row("start to first answer, compiled code cached", format!("{start:.0} ms"), "≤ 50 ms", Some(start <= 50.0));

    let (child, port, _) = serve(&trilby, &guest, cache.path()).await?;
    let native_port = free_port().await?;
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let native = Command::new(this).args(["--native", &native_port.to_string()]).kill_on_drop(true).spawn();
    let native = native.map_err(|error| error.to_string())?;
    wait_for(native_port).await?;
    let (mut wasm_rounds, mut native_rounds) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        wasm_rounds.push(hammer(&child, port).await?);
        native_rounds.push(hammer(&native, native_port).await?);
    }
    let (wasm, native) = (Load::median(wasm_rounds), Load::median(native_rounds));
    let ratio = wasm.per_cpu_second / WASMTIME_SERVE;
    report.row(
        "wasi:http hello, 16 connections",
        format!("{:.0} per CPU second, p99 {:.0} µs", wasm.per_cpu_second, micros(wasm.p99)),
        "≥ 4 × wasmtime serve's 6,800",
        Some(ratio >= 4.0),
    );
    report.row("a native hyper hello", format!("{:.0} per CPU second", native.per_cpu_second), "", None);
    let ratio = wasm.per_cpu_second / native.per_cpu_second;
    report.row("wasi:http hello to native", format!("{ratio:.2} ×"), "≥ 0.3 ×", Some(ratio >= 0.3));
    Ok(())
}

async fn guests(options: &Options, settings: WasmSettings) -> Result<Trilby> {
    let bench = options.guests.join("bench.wasm").to_string_lossy().into_owned();
    Trilby::builder()
        .resources_text("store", STORE)
        .app(AppSpec::wasm("bench", bench.clone()).wasm_settings(settings.clone()))
        .app(AppSpec::wasm("other", bench).wasm_settings(settings))
        .app(AppSpec::caller("driver"))
        .start()
        .await
        .map_err(|error| error.to_string())
}

async fn ask(trilby: &Trilby, job: &str) -> Result<String> {
    call(trilby, "/", job).await
}

async fn call(trilby: &Trilby, path: &str, body: &str) -> Result<String> {
    let mut request = Request::new(Body::from(body.to_owned()));
    *request.uri_mut() = path.parse().map_err(|_| format!("{path} is no path"))?;
    let api = trilby.api("driver").ok_or("the driver has no blocks")?;
    let response = api.invoke.call(&Ctx::default(), "bench", request).await.map_err(|error| error.to_string())?;
    let body = response.into_body().collect(1 << 20).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Runs a guest with its own HTTP port; says how long it took until the first answer.
async fn serve(trilby: &Path, guest: &Path, folder: &Path) -> Result<(Child, u16, Duration)> {
    let port = free_port().await?;
    let started = Instant::now();
    let child = Command::new(trilby)
        .arg("run")
        .arg(guest)
        .args(["--app-id", "hello", "--app-port", &port.to_string(), "--log-level", "error"])
        .env("XDG_CACHE_HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", trilby.display()))?;
    wait_for(port).await?;
    Ok((child, port, started.elapsed()))
}

async fn wait_for(port: u16) -> Result<()> {
    let started = Instant::now();
    loop {
        if let Ok(mut connection) = HttpConnection::open(port).await
            && connection.call("GET", "/", "").await.is_ok()
        {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(60) {
            return Err(format!("nothing answers on port {port}"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn hammer(server: &Child, port: u16) -> Result<Load> {
    let pid = server.id().ok_or("the server has ended")?;
    load::http(pid, port, 16, "GET", "/", "").await
}
