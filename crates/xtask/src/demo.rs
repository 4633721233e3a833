//! `cargo xtask demo`: the order services in one process, driven and measured before your eyes.

use std::process::ExitCode;

use crate::{args::Args, driver::drive};

pub(crate) const COMMAND: crate::Command = crate::Command {
    name: "demo",
    usage: "demo [--stay]",
    about: "Run three Wasm services in one process and show what they do",
    details: DETAILS,
    run: |workspace, mut args: Args| {
        let stay = args.flag("--stay").then(|| "--stay".to_owned());
        args.finish_without_trailing()?;
        drive(workspace, "demo", "demo", stay.as_slice())?;
        Ok(ExitCode::SUCCESS)
    },
};

const DETAILS: &str = "\
Builds the runtime and the guests of examples/orders, starts the services, drives them with HTTP requests and prints
each step with its latency.

Options:
  --stay   Keep the services up afterwards and print URLs to try";
