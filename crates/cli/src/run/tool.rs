//! A Wasm program that is no app but a command: it runs once, from its beginning to its exit code.

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use trilby::{
    Engine, WasmSettings,
    door_wasm::Report,
    wasm::{AllowedHosts, Capture, Command, Directory, Finished, Grants, Invocation, Kind, Limits, Program, Source},
};

use super::{args::Plan, plan};

/// The interface and the function by which the two sorts of program say that they are commands.
const RUN: &str = "wasi:cli/run";
const START: &str = "_start";
/// What is kept of each of a command's outputs, until it ends.
const OUTPUT_BYTES: usize = 64 << 20;

/// The one program of a plan, loaded.
pub(super) struct Loaded {
    /// Held so that it is not compiled again when it is run.
    program: Program,
    is_command: bool,
}

impl Loaded {
    /// Loads the program of a plan that is about one Wasm program.
    ///
    /// # Errors
    /// If it cannot be loaded, in words that name it.
    pub(super) async fn of(plan: &Plan, engine: &Engine) -> Result<Option<Self>, String> {
        let [plan::App { program: plan::Program::Wasm { source, .. }, .. }] = &plan.apps[..] else { return Ok(None) };
        let source = Source::parse(source).map_err(|error| error.to_string())?;
        let program = engine.load(&source).await.map_err(|error| error.to_string())?;
        let is_command = is_command(&program);
        if !is_command && !plan.arguments.is_empty() {
            return Err(format!("{source} is an app, which takes no arguments; give it variables with --env"));
        }
        Ok(Some(Self { program, is_command }))
    }

    /// Runs it, if it is a command.
    ///
    /// # Errors
    /// If it cannot be linked or did not end by itself.
    pub(super) async fn run(&self, plan: &Plan, engine: &Engine) -> Option<Result<ExitCode, String>> {
        let [plan::App { program: plan::Program::Wasm { settings, .. }, .. }] = &plan.apps[..] else { return None };
        if !self.is_command {
            return None;
        }
        Some(self.run_command(settings, &plan.arguments, engine).await)
    }

    async fn run_command(&self, settings: &WasmSettings, args: &[String], engine: &Engine) -> Result<ExitCode, String> {
        let name = self.program.name();
        let command = Command::new(engine, &self.program, limits(settings)).map_err(|error| error.to_string())?;
        let mut grants = grants(settings)?;
        grants.args = std::iter::once(name.to_owned()).chain(args.iter().cloned()).collect();
        let invocation = Invocation { grants, capture: Capture::Bytes(OUTPUT_BYTES), ..Invocation::default() };
        let finished = command.run(invocation).await.map_err(|error| format!("{name}: {error}"))?;
        show(name, &finished).map_err(|error| format!("{name}: its output cannot be written: {error}"))?;
        Ok(u8::try_from(finished.code).map_or(ExitCode::FAILURE, ExitCode::from))
    }
}

/// Whether a program is to be run once, and not to be called.
#[must_use]
pub fn is_command(program: &Program) -> bool {
    let exports = program.surface().exports;
    match program.kind() {
        Kind::Module => exports.functions.iter().any(|function| function.name == START),
        Kind::Component => exports.interface(RUN).is_some() && !Report::of(program, &Grants::default()).is_app(),
    }
}

fn limits(settings: &WasmSettings) -> Limits {
    let default = Limits::default();
    let memory_bytes = settings.memory_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    Limits {
        memory_bytes: memory_bytes.unwrap_or(default.memory_bytes),
        // Nobody waits for an answer, so it may take its time unless that was limited.
        call_timeout: settings.call_timeout.unwrap_or(Duration::ZERO),
        ..default
    }
}

/// What a program is granted by settings.
///
/// # Errors
/// If a host is not one.
pub fn grants(settings: &WasmSettings) -> Result<Grants, String> {
    let hosts = settings.allowed_hosts.iter().map(|host| host.parse()).collect::<Result<AllowedHosts, _>>();
    let dirs = settings.directories.iter().map(|directory| Directory {
        host: PathBuf::from(&directory.host),
        guest: directory.guest.clone(),
        writable: directory.writable,
    });
    Ok(Grants {
        env: settings.env.clone().into_iter().collect(),
        dirs: dirs.collect(),
        hosts: Arc::new(hosts.map_err(|error| format!("allow-host: {error}"))?),
        ..Grants::default()
    })
}

fn show(name: &str, finished: &Finished) -> std::io::Result<()> {
    std::io::stdout().write_all(&finished.stdout)?;
    std::io::stderr().write_all(&finished.stderr)?;
    if finished.is_cut {
        eprintln!("{name}: output beyond {} MiB was dropped", OUTPUT_BYTES >> 20);
    }
    Ok(())
}
