//! The program `trilby`: its commands.

mod compile;
mod components;
mod inspect;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::run::{self, RunArgs};

/// Runs Wasm services and ordinary apps on Dapr's building blocks, in one process
#[derive(Parser)]
#[command(name = "trilby", version, max_term_width = 100, after_help = EXAMPLES)]
struct Trilby {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  trilby run app.wasm --app-port 8080        one Wasm service, at http://localhost:8080
  trilby run -f dapr.yaml                    several apps of any kind, in one process
  trilby run -a shop -p 3000 -- node app.js  an ordinary app beside Dapr's HTTP and gRPC APIs
  trilby inspect app.wasm                    what a program needs, and what it would be refused";

#[derive(Subcommand)]
enum Command {
    /// Runs apps until ctrl-c
    ///
    /// A Wasm app runs inside this process: it keeps state, reads secrets and calls other apps through WIT interfaces,
    /// without a sidecar and without a socket. A command after `--` runs as an ordinary app beside Dapr's HTTP and gRPC
    /// APIs, whose ports it finds in DAPR_HTTP_PORT and DAPR_GRPC_PORT. The options are those of `dapr run`.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Shows what a Wasm program imports, exports, needs, and would be refused
    Inspect(inspect::InspectArgs),
    /// Compiles a Wasm program ahead of time, for builds without a compiler and for faster first starts
    Compile(compile::CompileArgs),
    /// Lists the component types that this build has
    Components(components::ComponentsArgs),
    /// Prints a completion script for a shell: trilby completions bash > /etc/bash_completion.d/trilby
    Completions { shell: Shell },
}

const RUN_EXAMPLES: &str = "\
Examples:
  trilby run app.wasm --app-port 8080
      The app answers at http://localhost:8080. Its state is in ./.trilby/state.db, its secrets
      come from ./.trilby/secrets.json.
  trilby run app.wasm -p 8080 -d ./resources --max-memory 64Mi --allow-host api.example.com
      The same with components of your own, less memory, and one host outside that it may call.
  trilby run --app-id shop --app-port 3000 --dapr-http-port 3500 -- node app.js
      node app.js answers on port 3000 and finds Dapr's HTTP API on port 3500.
  trilby run -f dapr.yaml
      Every app of the file, in one process. An app has `wasm: FILE`, or a `command`, or just an
      `appPort` where it listens already.
  trilby run tool.wasm -- some arguments
      A program that is a command runs once; its exit code is trilby's.";

/// Runs it, from command line to exit code.
#[must_use]
pub fn main() -> ExitCode {
    crate::open_files::raise_limit();
    let done = match Trilby::parse().command {
        Command::Run(args) => run::run(*args),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Compile(args) => compile::compile(args),
        Command::Components(args) => components::list(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Trilby::command(), "trilby", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    };
    done.unwrap_or_else(|message| {
        eprintln!("error: {message}");
        ExitCode::FAILURE
    })
}

/// Prints what was asked for. Whoever stops reading, as `head` does, has enough.
fn print(text: &str) -> Result<ExitCode, String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Trilby::command().debug_assert();
    }
}
