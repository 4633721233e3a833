//! `cargo xtask guests`: builds the Wasm guests, workspaces of their own for another target and another rustc.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use crate::{
    args::Args,
    js,
    process::{Result, at, step},
    toolchain,
    workspace::Workspace,
};

pub(crate) const COMMAND: crate::Command = crate::Command {
    name: "guests",
    usage: "guests [--dir DIR]",
    about: "Build the Wasm guests of the examples and tests",
    details: DETAILS,
    run: |workspace, mut args: Args| {
        let dir = args.option("--dir")?.map_or_else(|| workspace.wasm(), PathBuf::from);
        args.finish_without_trailing()?;
        let mut built = rust(workspace, &dir)?;
        match js::build(workspace, &dir)? {
            js::Outcome::Built(components) => built.extend(components),
            js::Outcome::NotRun(reason) => eprintln!("NOT RUN guests-js: {reason}"),
        }
        built.sort();
        for component in built {
            println!("{}", component.display());
        }
        Ok(ExitCode::SUCCESS)
    },
};

const DETAILS: &str = "\
Builds the Rust guests of examples/ and fixtures/guests for wasm32-wasip2, the programs of fixtures/programs for that and
for wasm32-wasip1, and fixtures/guests-js with componentize-qjs from npm; prints the path of each file, which bears the
name of its package or folder, with -p1 behind it if it is a module of preview 1.

A rustc that can do it is found or made: the one at hand, `rustup target add` (not with RUSTUP_AUTO_INSTALL=0), or
Debian's, unpacked into a cache folder (RUST_WASM_DIR, else rust-wasm in XDG_CACHE_HOME or ~/.cache).

Options:
  --dir DIR   Where to put NAME.wasm [default: target/wasm]";

/// A cargo workspace whose members are guests or programs, what they are built for, and what is put behind their names.
struct Guests {
    path: &'static str,
    target: &'static str,
    suffix: &'static str,
}

impl Guests {
    const fn components(path: &'static str) -> Self {
        Self { path, target: toolchain::COMPONENT, suffix: "" }
    }

    const fn modules(path: &'static str) -> Self {
        Self { path, target: toolchain::MODULE, suffix: "-p1" }
    }
}

const WORKSPACES: &[Guests] = &[
    Guests::components("examples/orders"),
    Guests::components("examples/pipeline/enricher"),
    Guests::components("fixtures/guests"),
    Guests::components("fixtures/programs"),
    Guests::modules("fixtures/programs"),
];

/// Builds the guests written in Rust and copies each to `dir` under its package's name.
///
/// # Errors
/// No rustc can be had for the target, or a guest does not compile.
pub(crate) fn rust(workspace: &Workspace, dir: &Path) -> Result<Vec<PathBuf>> {
    let (present, absent): (Vec<_>, Vec<_>) =
        WORKSPACES.iter().partition(|guests| workspace.root.join(guests.path).join("Cargo.toml").is_file());
    for guests in absent {
        eprintln!("    no guests in {}", guests.path);
    }
    if present.is_empty() {
        return Ok(Vec::new());
    }
    let rustc = toolchain::wasm_rustc()?;
    fs::create_dir_all(dir).map_err(at(dir))?;
    let mut components = Vec::new();
    for guests in present {
        let what = format!("build {} for {}", guests.path, guests.target);
        for artifact in step(&what, || compile(workspace, guests, &rustc))? {
            let name = artifact.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
            components.push(place(&artifact, &dir.join(format!("{name}{}.wasm", guests.suffix)))?);
        }
    }
    Ok(components)
}

/// Runs cargo in a workspace of guests; gives the files it names as its results, new or still fresh.
fn compile(workspace: &Workspace, guests: &Guests, rustc: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace.root.join(guests.path))
        .args([
            "build",
            "--release",
            "--target",
            guests.target,
            "--message-format=json-render-diagnostics",
            "--target-dir",
        ])
        .arg(workspace.guests_target())
        .env("RUSTC", rustc)
        // Flags meant for this machine's processor and linker would break the guest's.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{} does not build for {}", guests.path, guests.target).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().flat_map(components_in).collect())
}

/// The Wasm files that one of cargo's JSON messages names.
fn components_in(message: &str) -> Vec<PathBuf> {
    if !message.contains(r#""reason":"compiler-artifact""#) {
        return Vec::new();
    }
    let Some((_, rest)) = message.split_once(r#""filenames":["#) else { return Vec::new() };
    let list = rest.split(']').next().unwrap_or_default();
    list.split(',')
        .map(|path| path.trim_matches('"'))
        .filter(|path| path.ends_with(".wasm"))
        .map(PathBuf::from)
        .collect()
}

/// Copies by way of a temporary name: a runtime that reads `to` meanwhile sees the old or the new file, never a part.
fn place(from: &Path, to: &Path) -> Result<PathBuf> {
    let bytes = fs::read(from).map_err(at(from))?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(to.to_owned());
    }
    let aside = to.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&aside, bytes).map_err(at(&aside))?;
    fs::rename(&aside, to).map_err(at(to))?;
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_read_from_cargos_messages() {
        let message =
            r#"{"reason":"compiler-artifact","target":{},"filenames":["/t/release/a.wasm","/t/release/a.d"]}"#;
        assert_eq!(components_in(message), [PathBuf::from("/t/release/a.wasm")]);
        assert!(components_in(r#"{"reason":"build-finished","success":true}"#).is_empty());
    }
}
