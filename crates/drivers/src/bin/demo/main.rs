//! `cargo xtask demo`: starts the services of `examples/orders` in one process, drives them with real HTTP
//! requests, and prints each step, how long it took and what it proves. Ends with an error if a step does not hold.

mod client;
mod messages;
mod process;
mod sockets;
mod story;

use std::path::PathBuf;

use clap::Parser;
use drivers::Result;

/// Drives the services of examples/orders. Run it as `cargo xtask demo`.
#[derive(Parser)]
struct Options {
    /// Folder with the `trilby` binary.
    #[arg(long)]
    binaries: PathBuf,
    /// Folder with the guests, `storefront.wasm` and the others.
    #[arg(long)]
    guests: PathBuf,
    /// The multi-app file.
    #[arg(long, default_value = "examples/orders/dapr.yaml")]
    apps: PathBuf,
    /// A Component `pubsub` that stands in for the embedded broker.
    #[arg(long)]
    pubsub: Option<PathBuf>,
    /// Keep the services up afterwards and print URLs to try.
    #[arg(long)]
    stay: bool,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match story::tell(Options::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("\nthe demo failed: {problem}");
            std::process::ExitCode::FAILURE
        }
    }
}
