//! Guests in JavaScript, made into components by `componentize-qjs` from npm.
//!
//! A guest is a folder in `fixtures/guests-js`: `app.js`, an ES module whose exports are those of the world, and
//! `wit/`, which holds that one world; packages it refers to are in (or linked from) `wit/deps/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use crate::{
    process::{Result, at, run, step, which},
    workspace::Workspace,
};

const GUESTS: &str = "fixtures/guests-js";
const COMPILER: &str = "componentize-qjs";
/// Exact: a later one may embed another engine, and with it other imports.
const COMPILER_VERSION: &str = "0.4.5";

/// What became of the JavaScript guests.
pub(crate) enum Outcome {
    Built(Vec<PathBuf>),
    /// This machine lacks what it takes; says what.
    NotRun(String),
}

/// Builds every JavaScript guest into `dir`, if it changed since.
///
/// # Errors
/// The compiler cannot be installed, or a guest does not compile.
pub(crate) fn build(workspace: &Workspace, dir: &Path) -> Result<Outcome> {
    let guests = guests(&workspace.root.join(GUESTS));
    if guests.is_empty() {
        eprintln!("    no guests in {GUESTS}");
        return Ok(Outcome::Built(Vec::new()));
    }
    if which("npm").is_none() {
        return Ok(Outcome::NotRun("npm is not installed; install Node.js".to_owned()));
    }
    let compiler = install(&workspace.tools())?;
    fs::create_dir_all(dir).map_err(at(dir))?;
    let mut components = Vec::new();
    for guest in guests {
        let name = guest.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let component = dir.join(&name).with_extension("wasm");
        if newest(&guest) >= modified(&component) {
            step(&format!("build the JavaScript guest {name}"), || componentize(&compiler, &guest, &component))?;
        }
        components.push(component);
    }
    Ok(Outcome::Built(components))
}

fn guests(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut guests: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.join("app.js").is_file()).collect();
    guests.sort();
    guests
}

/// Installs the compiler into `tools`, once; gives the program to run.
fn install(tools: &Path) -> Result<PathBuf> {
    let modules = tools.join("node_modules");
    let program = modules.join(".bin").join(COMPILER);
    let manifest = fs::read_to_string(modules.join(COMPILER).join("package.json")).unwrap_or_default();
    if program.exists() && manifest.contains(&format!("\"version\": \"{COMPILER_VERSION}\"")) {
        return Ok(program);
    }
    fs::create_dir_all(tools).map_err(at(tools))?;
    let package = format!("{COMPILER}@{COMPILER_VERSION}");
    step(&format!("install {package} with npm"), || {
        run(Command::new("npm")
            .args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"])
            .arg(tools)
            .arg(&package))
    })?;
    Ok(program)
}

/// `--sync`: plain functions of WASI 0.2, no async ABI. `--opt-size`: a third of the size, for an engine that
/// interprets anyway.
fn componentize(compiler: &Path, guest: &Path, component: &Path) -> Result {
    let aside = component.with_extension(format!("{}.tmp", std::process::id()));
    run(Command::new(compiler)
        .args(["--sync", "--opt-size", "--wit"])
        .arg(guest.join("wit"))
        .arg("--js")
        .arg(guest.join("app.js"))
        .arg("--output")
        .arg(&aside))?;
    fs::rename(&aside, component).map_err(at(component))?;
    Ok(())
}

/// When anything in `path` last changed, seen through links.
fn newest(path: &Path) -> Option<SystemTime> {
    let inside = fs::read_dir(path).into_iter().flatten().flatten().filter_map(|entry| newest(&entry.path())).max();
    inside.max(modified(path))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
