//! `cargo xtask bench`: the numbers in docs/benchmarks.md, measured anew.

use std::process::ExitCode;

use crate::{
    args::Args,
    driver::drive,
    process::{run, step},
};

pub(crate) const COMMAND: crate::Command = crate::Command {
    name: "bench",
    usage: "bench [--peer NAME=PATH]... [-- ARGS]",
    about: "Measure, and compare with any other daprd binary",
    details: DETAILS,
    run: |workspace, mut args: Args| {
        let peers = args.options("--peer")?;
        let mut passed: Vec<_> = peers.into_iter().flat_map(|peer| ["--peer".to_owned(), peer]).collect();
        passed.extend(args.finish()?);
        let small = || {
            let embedded = ["--no-default-features", "--features", "components"];
            run(workspace
                .cargo()
                .args(["build", "--profile", "small", "--package", "cli", "--bin", "trilby"])
                .args(embedded))
        };
        step("build trilby without a compiler", small)?;
        drive(workspace, "release", "bench", &passed)?;
        Ok(ExitCode::SUCCESS)
    },
};

const DETAILS: &str = "\
Options:
  --peer NAME=PATH   Put the daprd at PATH through the same loads, rounds interleaved; may be repeated

What follows `--` goes to the benchmark driver.";
