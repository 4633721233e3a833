//! The program `daprd`: the building blocks beside one app.

mod flags;
mod options;
mod serve;
mod wait;

use std::process::ExitCode;

use tokio::runtime::Runtime;
use trilby::VERSION;

use crate::{
    env,
    go_flags::{self, Given, UsageError},
    log::Log,
    signals::Signals,
};

use self::{
    options::Options,
    serve::{Ended, serve},
};

/// Of this program, where [`VERSION`] is that of the Dapr whose API it serves.
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");
/// What programs in Go end with when they do not understand their command line.
const USAGE: u8 = 2;

/// Runs it, from command line to exit code.
#[must_use]
pub fn main() -> ExitCode {
    crate::open_files::raise_limit();
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    let given = match go_flags::parse(&flags::flags(), args) {
        Ok(given) => given,
        Err(UsageError::Help) => {
            print!("{}", flags::help());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\nrun daprd --help for the flags that there are");
            return USAGE.into();
        }
    };
    let is_on = |flag| given.bool(flag) == Some(true);
    if is_on("version") {
        println!("{VERSION}");
        return ExitCode::SUCCESS;
    }
    if is_on("build-info") {
        let commit = option_env!("TRILBY_COMMIT").unwrap_or_default();
        println!("Version: {VERSION}\nGit Commit: {commit}\nGit Version: trilby {OWN_VERSION}");
        return ExitCode::SUCCESS;
    }
    if is_on("wait") {
        return wait::until_outbound_ready(given.text("dapr-http-port").unwrap_or("3500"));
    }
    match options::log_options(&given).and_then(Log::open) {
        Ok(log) => run(&given, &log),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(given: &Given, log: &Log) -> ExitCode {
    log.install();
    // Tools look for the first of these lines.
    let commit = option_env!("TRILBY_COMMIT").unwrap_or_default();
    tracing::info!("Starting Dapr Runtime -- version {VERSION} -- commit {commit}");
    tracing::info!("this is trilby {OWN_VERSION}");
    tracing::info!("Log level set to: {}", log.level().name());
    for warning in flags::warnings(given) {
        tracing::warn!("{warning}");
    }
    for word in &given.rest {
        tracing::warn!("argument {word:?} is not a flag and has no effect");
    }

    let started = Runtime::new().map_err(|error| format!("no threads to run on: {error}"));
    let ended = started.and_then(|runtime| {
        let ended = runtime.block_on(repeat(given));
        // Whatever still blocks a thread has had its time.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(Ended::Gracefully | Ended::ToRestart) => {
            tracing::info!("Daprd shutdown gracefully");
            ExitCode::SUCCESS
        }
        Ok(Ended::ByForce) => ExitCode::FAILURE,
        Err(message) => {
            log.fatal(&format!("Fatal error from runtime: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves, and begins again, files read anew, for as long as that is asked for.
async fn repeat(given: &Given) -> Result<Ended, String> {
    let env = env::read();
    let options = Options::read(given, &env)?;
    let mut signals = Signals::catch().map_err(|error| format!("signals cannot be caught: {error}"))?;
    loop {
        match serve(&options, &env, &mut signals).await? {
            Ended::ToRestart => tracing::info!("restarting: resources and configuration are read again"),
            ended => return Ok(ended),
        }
    }
}
