//! `trilby compile`: ahead of time, what would be done at the first start.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;
use trilby::wasm::{Engine, FetchLimits, Options, Source};

use super::print;

#[derive(Args)]
pub(super) struct CompileArgs {
    /// Wasm program: a file, or a URL with file, http or https
    #[arg(value_name = "APP.wasm")]
    program: String,
    /// File to write [default: the program's name with .cwasm, in this folder]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Compiles a program to a file that this build, and builds without a compiler, load as they load Wasm.
pub(super) fn compile(args: CompileArgs) -> Result<ExitCode, String> {
    let source = Source::parse(&args.program).map_err(|error| error.to_string())?;
    let output = args.output.or_else(|| default_output(&args.program));
    let output = output.ok_or_else(|| format!("{}: has no name to write to; give one with -o", args.program))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("no threads to run on: {error}"))?;
    let wasm = runtime.block_on(source.fetch(&FetchLimits::default()));
    let wasm = wasm.map_err(|reason| reason.of(source.to_string()).to_string())?;
    let code =
        Engine::new(Options::default()).precompile(&source.to_string(), &wasm).map_err(|error| error.to_string())?;
    fs::write(&output, &code).map_err(|error| format!("cannot write {}: {error}", output.display()))?;
    print(&format!("{}: {} KiB of code for this kind of machine\n", output.display(), code.len() >> 10))
}

fn default_output(program: &str) -> Option<PathBuf> {
    let file = program.split(['?', '#']).next()?.rsplit('/').next()?;
    (!file.is_empty()).then(|| PathBuf::from(file).with_extension("cwasm"))
}
