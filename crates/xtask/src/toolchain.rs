//! Finds a rustc that can build Wasm guests, and makes one where there is none.
//!
//! In this order: the rustc at hand; the same after `rustup target add`; one that was unpacked earlier; Debian's,
//! unpacked now into a cache folder, for machines where rustup can download nothing but apt can.

mod debian;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::{Result, output, run_within, step, which};

/// What guests are built for: components on WASI 0.2.
pub(crate) const COMPONENT: &str = "wasm32-wasip2";
/// What programs are built for besides: modules on WASI preview 1, which is all that a stock daprd runs.
pub(crate) const MODULE: &str = "wasm32-wasip1";

/// A machine without a way out lets connections hang; after this the next way is tried.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// The rustc to build guests with: the value for cargo's `RUSTC`.
///
/// # Errors
/// None of the ways works; the message says what to install.
pub(crate) fn wasm_rustc() -> Result<PathBuf> {
    let host = env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    if can_build_all(&host) || (added_by_rustup() && can_build_all(&host)) {
        return Ok(host);
    }
    let cache = cache_dir()?;
    let unpacked = debian::rustc_in(&cache);
    if can_build_all(&unpacked) {
        return Ok(unpacked);
    }
    debian::unpack(&host, &cache).map_err(|error| {
        format!("no rustc for Wasm: {error}; on most machines `rustup target add {COMPONENT} {MODULE}` is all it takes")
            .into()
    })
}

fn can_build_all(rustc: &Path) -> bool {
    [COMPONENT, MODULE].iter().all(|target| can_build(rustc, target))
}

/// Whether `rustc` runs and its standard library for `target` is there.
fn can_build(rustc: &Path, target: &str) -> bool {
    let libdir = output(Command::new(rustc).args(["--print", "target-libdir", "--target", target]));
    let Ok(entries) = libdir.and_then(|dir| Ok(fs::read_dir(dir)?)) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

fn added_by_rustup() -> bool {
    let allowed = env::var_os("RUSTUP_AUTO_INSTALL").is_none_or(|value| value != "0");
    if !allowed || which("rustup").is_none() {
        return false;
    }
    let add = || run_within(Command::new("rustup").args(["target", "add", COMPONENT, MODULE]), RUSTUP_LIMIT);
    match step(&format!("rustup target add {COMPONENT} {MODULE}"), add) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("    {error}");
            false
        }
    }
}

/// Shared by every checkout on the machine, so that the download happens once.
fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("RUST_WASM_DIR")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("rust-wasm")))
        .or_else(|| Some(set("HOME")?.join(".cache").join("rust-wasm")))
        .ok_or_else(|| "no cache folder; set HOME or RUST_WASM_DIR".into())
}
