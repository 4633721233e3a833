//! `cargo xtask bench`: the numbers in docs/benchmarks.md. Everything that is compared is measured in the same run,
//! rounds interleaved, because an absolute time means little on a shared machine.

mod daprd;
mod density;
mod guest;
mod load;
mod native;
mod program;
mod report;
mod sidecar;
mod size;

use std::path::PathBuf;

use clap::Parser;
use drivers::Result;

/// Measures the runtime. Run it as `cargo xtask bench`.
#[derive(Parser)]
struct Options {
    /// Folder with the `trilby` and `daprd` binaries.
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// Folder with the guests.
    #[arg(long, default_value = "target/wasm")]
    guests: PathBuf,
    /// Another daprd to put through the same loads, as NAME=PATH; may be repeated.
    #[arg(long, value_parser = parse_peer)]
    peer: Vec<(String, PathBuf)>,
    /// Only sections whose name contains this: guest, sidecar, program, density, size.
    #[arg(long, default_value = "")]
    only: String,
    /// Only be the native server that guests are compared with, on this port.
    #[arg(long, hide = true)]
    native: Option<u16>,
    /// Where the report is written.
    #[arg(long, default_value = "docs/benchmarks.md")]
    out: PathBuf,
}

impl Options {
    /// Our daprd and those that it is compared with, by name.
    fn daprds(&self) -> Vec<(String, PathBuf)> {
        let ours = ("trilby's daprd".to_owned(), self.binaries.join("daprd"));
        std::iter::once(ours).chain(self.peer.iter().cloned()).collect()
    }
}

fn parse_peer(text: &str) -> Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').ok_or("a peer is given as NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match run(Options::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("the benchmark failed: {problem}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<()> {
    if let Some(port) = options.native {
        return native::serve(port).await;
    }
    let mut report = report::Report::new(&options.peer);
    if "guest".contains(&options.only) {
        guest::measure(&options, &mut report).await?;
    }
    if "sidecar".contains(&options.only) {
        sidecar::measure(&options, &mut report).await?;
    }
    if "program".contains(&options.only) {
        program::measure(&options, &mut report).await?;
    }
    if "density".contains(&options.only) {
        density::measure(&options, &mut report).await?;
    }
    if "size".contains(&options.only) {
        size::measure(&options, &mut report)?;
    }
    if options.only.is_empty() {
        report.write(&options.out)?;
    }
    Ok(())
}
