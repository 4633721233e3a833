//! `daprd`: the building blocks beside one app, with the flags of the stock one.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::sidecar::main()
}
