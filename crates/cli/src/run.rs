//! `trilby run`: apps of every kind in one process, with one log.

mod args;
mod file;
mod plan;
mod process;
mod serve;
mod settings;
mod tool;

use std::{path::PathBuf, process::ExitCode};

use tokio::runtime::Runtime;
use trilby::{Engine, Env, wasm};

use crate::{env, log::Log};

pub use args::{RunArgs, WasmFlags};
pub use tool::{grants, is_command};

/// Runs what the arguments say until it is told to end.
///
/// # Errors
/// A text for people that names what is wrong and the fix.
pub fn run(args: RunArgs) -> Result<ExitCode, String> {
    let env = env::read();
    let (plan, cache_dir) = args.plan(&env)?;
    let log = Log::open(plan.log.clone())?;
    log.install();
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let engine = engine(cache_dir, &env);
    let runtime = Runtime::new().map_err(|error| format!("no threads to run on: {error}"))?;
    let ended = runtime.block_on(serve::serve(plan, env, engine, &log));
    // Whatever still blocks a thread has had its time.
    runtime.shutdown_background();
    ended
}

/// An engine that keeps compiled code in a folder, unless that is empty.
#[must_use]
pub fn engine(cache_dir: Option<PathBuf>, env: &Env) -> Engine {
    let cache_dir = cache_dir.or_else(|| default_cache_dir(env)).filter(|dir| !dir.as_os_str().is_empty());
    Engine::new(wasm::Options { cache_dir, ..wasm::Options::default() })
}

fn default_cache_dir(env: &Env) -> Option<PathBuf> {
    let cache = env.get("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env.get("HOME")?).join(".cache")))?;
    Some(cache.join("trilby/compiled"))
}
