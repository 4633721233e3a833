//! `trilby inspect`: a Wasm program as the runtime sees it.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use trilby::{
    door_wasm::{Entry, Report},
    wasm::{
        Kind, Program, Source,
        inspect::{Interface, Side},
    },
};

use super::print;
use crate::{
    env,
    run::{self, WasmFlags},
};

#[derive(Args)]
pub(super) struct InspectArgs {
    /// Wasm program: a file, or a URL with file, http or https
    #[arg(value_name = "APP.wasm")]
    program: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    grants: WasmFlags,
}

/// Prints what a program is. Fails if it could not be run with the grants that were given.
pub(super) fn inspect(args: InspectArgs) -> Result<ExitCode, String> {
    let source = Source::parse(&args.program).map_err(|error| error.to_string())?;
    let grants = run::grants(&args.grants.settings())?;
    let engine = run::engine(None, &env::read());
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("no threads to run on: {error}"))?;
    let program = runtime.block_on(engine.load(&source)).map_err(|error| error.to_string())?;
    let report = Report::of(&program, &grants);
    if args.json {
        print(&format!("{:#}\n", as_json(&program, &report)))?;
    } else {
        print(&as_text(&program, &report))?;
    }
    Ok(if report.refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How a program is run, in a few words.
fn way_in(program: &Program, report: &Report) -> &'static str {
    match (report.entry, program.kind()) {
        (Some(Entry::Service), _) => "an app, called through trilby:dapr/service",
        (Some(Entry::Http | Entry::HttpAsync), _) => "an app, called by HTTP through wasi:http",
        (None, _) if report.is_app() => "an app, which handles events and takes no calls",
        (None, _) if run::is_command(program) => "a command, which runs once",
        (None, Kind::Module) => "a core module that is no command; make it a component to run it as an app",
        (None, Kind::Component) => {
            "no app: it exports no trilby:dapr/service, no wasi:http handler and no other handler"
        }
    }
}

fn as_text(program: &Program, report: &Report) -> String {
    let mut text = format!("{}: {}\n", program.name(), program.kind());
    text.push_str(&format!("  runs as  {}\n", way_in(program, report)));
    for unused in &report.unused_entries {
        text.push_str(&format!("           {} is exported too and not used\n", unused.interface()));
    }
    if !report.handlers.is_empty() {
        let handlers = report.handlers.iter().map(|handler| handler.interface()).collect::<Vec<_>>();
        text.push_str(&format!("  handles  {}\n", handlers.join(", ")));
    }
    let blocks = if report.blocks.is_empty() { "none".to_owned() } else { report.blocks.join(", ") };
    text.push_str(&format!("  blocks   {blocks}\n"));
    side(&mut text, "imports", &report.surface.imports);
    side(&mut text, "exports", &report.surface.exports);
    if !report.refusals.is_empty() {
        text.push_str("  refused\n");
        for refusal in &report.refusals {
            text.push_str(&format!("    {refusal}\n"));
        }
    }
    text
}

fn side(text: &mut String, title: &str, side: &Side) {
    text.push_str(&format!("  {title}\n"));
    for interface in &side.interfaces {
        text.push_str(&format!("    {interface}{}\n", functions(interface)));
    }
    for name in side.functions.iter().map(|function| &function.name).chain(&side.others) {
        text.push_str(&format!("    {name}\n"));
    }
}

/// The functions of an interface, but of WASI's, which everybody knows: `--json` has those too.
fn functions(interface: &Interface) -> String {
    if interface.name.starts_with("wasi:") || interface.functions.is_empty() {
        return String::new();
    }
    let names: Vec<_> = interface.functions.iter().map(|function| function.name.as_str()).collect();
    format!(": {}", names.join(", "))
}

fn as_json(program: &Program, report: &Report) -> Value {
    json!({
        "name": program.name(),
        "kind": program.kind().to_string(),
        "entry": report.entry.map(Entry::interface),
        "unusedEntries": report.unused_entries.iter().map(|entry| entry.interface()).collect::<Vec<_>>(),
        "handlers": report.handlers.iter().map(|handler| handler.interface()).collect::<Vec<_>>(),
        "blocks": report.blocks,
        "imports": side_as_json(&report.surface.imports),
        "exports": side_as_json(&report.surface.exports),
        "refused": report.refusals.iter().map(|refusal| json!({
            "import": refusal.import,
            "reason": refusal.to_string(),
        })).collect::<Vec<_>>(),
    })
}

fn side_as_json(side: &Side) -> Value {
    let interface = |interface: &Interface| {
        json!({
            "name": interface.name,
            "version": interface.version,
            "functions": interface.functions.iter().map(|function| &function.name).collect::<Vec<_>>(),
        })
    };
    json!({
        "interfaces": side.interfaces.iter().map(interface).collect::<Vec<_>>(),
        "functions": side.functions.iter().map(|function| &function.name).collect::<Vec<_>>(),
        "others": side.others,
    })
}
