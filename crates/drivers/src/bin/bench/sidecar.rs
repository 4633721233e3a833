//! As a sidecar: state get and set over HTTP and gRPC, ours and any peer's in alternating rounds.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use drivers::{Result, resident_kib};
use trilby_proto::{
    common::v1::StateItem,
    runtime::v1::{GetStateRequest, SaveStateRequest, dapr_client::DaprClient},
};

use crate::{
    Options,
    daprd::{Daprd, ITEM},
    load::{self, Load},
    report::Report,
};

const ROUNDS: usize = 3;

/// A stock daprd's requests per CPU second of its process at 16 connections, measured once on such a machine; 4 times
/// that is the target where no peer is given.
const LOADS: [(&str, f64); 4] =
    [("HTTP get", 23_500.0), ("HTTP set", 21_000.0), ("gRPC get", 21_500.0), ("gRPC set", 20_100.0)];

pub(crate) async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    report.section(
        "As a sidecar",
        "State in memory, 100-byte values, 16 connections with one request in flight on each; the median of 3 rounds. \
         Requests per CPU second count the sidecar's processor time only.",
    );
    let binaries = options.daprds();
    let mut running = Vec::new();
    for (name, binary) in &binaries {
        let daprd = Daprd::start(binary).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let idle = resident_kib(daprd.pid()?)? as f64 / 1024.0;
        let ours = running.is_empty();
        report.row(
            &format!("{name}: idle, resident"),
            format!("{idle:.1} MiB"),
            if ours { "≤ 15 MiB" } else { "" },
            ours.then_some(idle <= 15.0),
        );
        report.row(&format!("{name}: start to healthy"), format!("{:.0} ms", millis(daprd.ready_after)), "", None);
        running.push(daprd);
    }
    for (what, stock) in LOADS {
        let mut rounds = vec![Vec::new(); running.len()];
        for _ in 0..ROUNDS {
            for (daprd, rounds) in running.iter().zip(&mut rounds) {
                rounds.push(one_round(daprd, what, 16).await?);
            }
        }
        let medians: Vec<_> = rounds.into_iter().map(Load::median).collect();
        compare(report, what, stock, &binaries, &medians);
    }
    for what in ["HTTP get", "gRPC get"] {
        let load = one_round(&running[0], what, 1).await?;
        report.row(&format!("{what}, one caller"), format!("p50 {:.0} µs", micros(load.p50)), "", None);
    }
    Ok(())
}

fn compare(report: &mut Report, what: &str, stock: f64, binaries: &[(String, PathBuf)], medians: &[Load]) {
    let ours = medians[0];
    for ((name, _), load) in binaries.iter().zip(medians) {
        let measured = format!("{:.0} per CPU second, {:.0}/s", load.per_cpu_second, load.per_second);
        report.row(&format!("{what}, {name}"), measured, "", None);
        report.row(
            &format!("{what}, {name}: latency"),
            format!("p50 {:.0} µs, p99 {:.0} µs", micros(load.p50), micros(load.p99)),
            "",
            None,
        );
    }
    match medians.get(1) {
        Some(peer) => {
            let ratio = ours.per_cpu_second / peer.per_cpu_second;
            report.row(
                &format!("{what}: ours to the peer's, per CPU second"),
                format!("{ratio:.1} ×"),
                "≥ 4 ×",
                Some(ratio >= 4.0),
            );
            let ratio = ours.p99.as_secs_f64() / peer.p99.as_secs_f64();
            report.row(
                &format!("{what}: ours to the peer's, p99"),
                format!("{ratio:.2} ×"),
                "≤ 0.5 ×",
                Some(ratio <= 0.5),
            );
        }
        None => {
            let ratio = ours.per_cpu_second / stock;
            report.row(
                &format!("{what}: to a stock daprd's {stock:.0}, measured earlier"),
                format!("{ratio:.1} ×"),
                "≥ 4 ×",
                Some(ratio >= 4.0),
            );
        }
    }
}

pub(crate) async fn one_round(daprd: &Daprd, what: &str, connections: usize) -> Result<Load> {
    let pid = daprd.pid()?;
    if what.starts_with("HTTP") {
        let (method, path, body) =
            if what.ends_with("get") { ("GET", "/v1.0/state/mem/k", "") } else { ("POST", "/v1.0/state/mem", ITEM) };
        return load::http(pid, daprd.http_port, connections, method, path, body).await;
    }
    let get = what.ends_with("get");
    let mut callers = Vec::new();
    for _ in 0..connections {
        let address = format!("http://127.0.0.1:{}", daprd.grpc_port);
        let client = DaprClient::connect(address).await.map_err(|error| error.to_string())?;
        callers.push(move || {
            let mut client = client.clone();
            async move {
                if get {
                    let request =
                        GetStateRequest { store_name: "mem".into(), key: "k".into(), ..GetStateRequest::default() };
                    client.get_state(request).await.map(drop).map_err(|status| status.to_string())
                } else {
                    let value = Bytes::from_static(&[b'v'; 100]);
                    let states = vec![StateItem { key: "k".into(), value, ..StateItem::default() }];
                    let request = SaveStateRequest { store_name: "mem".into(), states };
                    client.save_state(request).await.map(drop).map_err(|status| status.to_string())
                }
            }
        });
    }
    load::run(pid, callers).await
}

pub(crate) fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
