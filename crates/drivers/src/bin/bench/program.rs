//! `bindings.wasm` over HTTP: a small program of preview 1 that is run for each request, ours and any peer's in
//! alternating rounds.

use std::path::Path;

use drivers::{Result, resident_kib};

use crate::{
    Options,
    daprd::Daprd,
    load::{self, HttpConnection, Load},
    report::Report,
    sidecar::micros,
};

const ROUNDS: usize = 3;
const CONNECTIONS: usize = 16;
const PATH: &str = "/v1.0/bindings/wasm";
/// The example of Dapr's page on the Wasm binding; the program knows as much of Ruby as it takes.
const EXECUTE: &str = r#"{"operation":"execute","metadata":{"args":"-ne,print \"Hello \"; print"},"data":"salaboy"}"#;
const ANSWER: &str = r#"Hello "salaboy""#;

/// A stock daprd's requests per CPU second of its process, measured once on such a machine.
const STOCK: f64 = 2_200.0;
const TARGET: f64 = 20_000.0;

pub(crate) async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    report.section(
        "Programs",
        "`bindings.wasm` runs a 64 KB program of WASI preview 1 for each request over HTTP; 16 connections with one request \
         in flight on each, the median of 3 rounds. Requests per CPU second count the sidecar's processor time only.",
    );
    let program = options.guests.join("one-liner-p1.wasm");
    let mut running = Vec::new();
    for (name, binary) in options.daprds() {
        match start(&binary, &program).await {
            Ok(daprd) => running.push((name, daprd, Vec::new())),
            Err(problem) if running.is_empty() => return Err(problem),
            Err(problem) => report.row(&format!("execute, {name}"), format!("not measured: {problem}"), "", None),
        }
    }
    for _ in 0..ROUNDS {
        for (_, daprd, rounds) in &mut running {
            rounds.push(load::http(daprd.pid()?, daprd.http_port, CONNECTIONS, "POST", PATH, EXECUTE).await?);
        }
    }
    let mut known = Vec::new();
    for (name, daprd, rounds) in running {
        let load = Load::median(rounds);
        let ours = known.is_empty();
        report.row(
            &format!("execute, {name}"),
            format!("{:.0} per CPU second, {:.0}/s", load.per_cpu_second, load.per_second),
            if ours { "≥ 20,000 per CPU second" } else { "" },
            ours.then_some(load.per_cpu_second >= TARGET),
        );
        report.row(
            &format!("execute, {name}: latency"),
            format!("p50 {:.0} µs, p99 {:.0} µs", micros(load.p50), micros(load.p99)),
            "",
            None,
        );
        let resident = resident_kib(daprd.pid()?)? as f64 / 1024.0;
        report.row(&format!("{name}: resident after that"), format!("{resident:.1} MiB"), "", None);
        known.push(load);
    }
    let ours = known[0].per_cpu_second;
    let (what, other) = match known.get(1) {
        Some(peer) => ("execute: ours to the peer's, per CPU second".to_owned(), peer.per_cpu_second),
        None => (format!("execute: to a stock daprd's {STOCK:.0}, measured earlier"), STOCK),
    };
    report.row(&what, format!("{:.1} ×", ours / other), "", None);
    Ok(())
}

/// A daprd that runs the program, and has done so once.
async fn start(binary: &Path, program: &Path) -> Result<Daprd> {
    let program = std::fs::canonicalize(program).map_err(|error| format!("{}: {error}", program.display()))?;
    let component = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: wasm }}\nspec:\n  type: bindings.wasm\n  \
         version: v1\n  metadata: [{{ name: url, value: \"file://{}\" }}]\n",
        program.display()
    );
    let daprd = Daprd::start_with(binary, &component).await?;
    let answer = HttpConnection::open(daprd.http_port).await?.call("POST", PATH, EXECUTE).await?;
    if answer != ANSWER { Err(format!("the program answered {answer:?}")) } else { Ok(daprd) }
}
