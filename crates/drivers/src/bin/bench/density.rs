//! Resident memory with 1, 100 and 1,000 idle apps in one process.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use drivers::{Result, resident_kib};
use tokio::process::Command;

use crate::{Options, daprd::free_port, load::HttpConnection, report::Report};

pub(crate) async fn measure(options: &Options, report: &mut Report) -> Result<()> {
    report.section(
        "Density",
        "Apps of the bench guest in one `trilby run`, each loaded and idle; compiled code is shared.",
    );
    let mut known = Vec::new();
    for apps in [1u32, 100, 1000] {
        let (resident, took) = idle(options, apps).await?;
        let limit = (apps == 1000).then_some(300.0);
        report.row(
            &format!("{apps} apps: resident"),
            format!("{resident:.1} MiB, up after {:.1} s", took.as_secs_f64()),
            if limit.is_some() { "≤ 300 MiB" } else { "" },
            limit.map(|limit| resident <= limit),
        );
        known.push((apps, resident));
    }
    let [(_, one), .., (many, all)] = known.as_slice() else { return Ok(()) };
    let each = (all - one) * 1024.0 / f64::from(many - 1);
    report.row("one more idle app", format!("{each:.0} KiB"), "≤ 300 KiB", Some(each <= 300.0));
    Ok(())
}

async fn idle(options: &Options, apps: u32) -> Result<(f64, Duration)> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let guests = std::fs::canonicalize(&options.guests).map_err(|error| error.to_string())?;
    let port = free_port().await?;
    let mut file = String::from("version: 1\napps:\n");
    for app in 0..apps {
        file += &format!("- {{ appID: app-{app}, wasm: {}/bench.wasm }}\n", guests.display());
    }
    file += &format!("- {{ appID: last, wasm: {}/hello.wasm, appPort: {port} }}\n", guests.display());
    std::fs::write(folder.path().join("dapr.yaml"), file).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let child =
        Command::new(std::fs::canonicalize(options.binaries.join("trilby")).map_err(|error| error.to_string())?)
            .args(["run", "-f", "dapr.yaml"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
    loop {
        if let Ok(mut connection) = HttpConnection::open(port).await
            && connection.call("GET", "/", "").await.is_ok()
        {
            break;
        }
        if started.elapsed() > Duration::from_secs(120) {
            return Err(format!("{apps} apps are not up after two minutes"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = started.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pid = child.id().ok_or("the apps have ended")?;
    Ok((resident_kib(pid)? as f64 / 1024.0, took))
}
