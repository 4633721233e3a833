//! `trilby`: runs Wasm services and ordinary apps on Dapr's building blocks, in one process.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::commands::main()
}
