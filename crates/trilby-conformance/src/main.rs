//! `trilby-conformance`: the suite over components of your own.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, builder::PossibleValuesParser};
use libtest_mimic::{Arguments, FormatSetting};
use trilby::Trilby;
use trilby_conformance::harness::{DOORS, Harness, cases_of};

/// Says whether components do what Dapr's building blocks promise.
///
/// Which cases a component must pass is decided by its type and by what it says it can do. State stores, brokers and
/// bindings are written to: give components that hold nothing of value.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  trilby-conformance --component ./my-store.yaml
  trilby-conformance --component ./my-store.yaml --door http --door grpc etag
  trilby-conformance --component ./my-store.yaml --list

What some components must hold before:
  secret stores             the secret `plain` with the value `p`
  cryptography providers    the AES-256 key `sym`
  JetStream                 a stream for the subjects `suite.>`"
)]
struct Options {
    /// A file of resources, or a folder; each Component in it is tested. May be repeated.
    #[arg(long = "component", value_name = "PATH", required = true)]
    components: Vec<PathBuf>,
    /// Test through this door only. May be repeated. Default: all that can be tested.
    #[arg(long = "door", value_name = "DOOR", value_parser = PossibleValuesParser::new(DOORS))]
    doors: Vec<String>,
    /// The mirror guest (`cargo xtask guests` builds `target/wasm/mirror.wasm`); without it the door `wasm` is NOT RUN.
    #[arg(long, value_name = "FILE")]
    mirror: Option<PathBuf>,
    /// Say what would be run, and run nothing.
    #[arg(long)]
    list: bool,
    /// Run only tests whose name contains this, such as `etag`, `/http/` or `state.redis`.
    filter: Option<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trilby-conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut builder = Trilby::builder();
    for path in &options.components {
        builder = if path.is_dir() { builder.resources_dir(path) } else { builder.resources_file(path) };
    }
    let harness = Harness::start(builder, options.mirror.as_deref())?;
    let is_wanted = |door: &str| options.doors.is_empty() || options.doors.iter().any(|wanted| wanted == door);
    if is_wanted("wasm") && options.mirror.is_none() {
        println!("NOT RUN wasm door: --mirror does not say where the mirror guest is");
    }
    let mut trials = Vec::new();
    for (name, type_name, version) in harness.components() {
        if cases_of(type_name).is_empty() {
            println!("NOT RUN {name} ({type_name}/{version}): the suite has no cases for components of its kind");
        }
        trials.extend(harness.trials(name, &[], is_wanted));
    }
    let arguments = Arguments {
        filter: options.filter.clone(),
        list: options.list,
        format: options.list.then_some(FormatSetting::Terse),
        ..Arguments::default()
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    harness.stop();
    Ok(conclusion.exit_code())
}
