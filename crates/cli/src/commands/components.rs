//! `trilby components`: the catalog of this build.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use trilby::{Catalog, component::catalog::Entry};

use super::print;

#[derive(Args)]
pub(super) struct ComponentsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints every component type.
pub(super) fn list(args: &ComponentsArgs) -> Result<ExitCode, String> {
    let catalog = catalog();
    let entries = catalog.entries();
    if args.json {
        let entry = |entry: Entry| json!({"type": entry.type_name, "version": entry.version, "about": entry.about});
        return print(&format!("{:#}\n", entries.map(entry).collect::<Value>()));
    }
    let line = |entry: Entry| format!("{:<26} {:<4} {}\n", entry.type_name, entry.version, entry.about);
    print(&entries.map(line).collect::<String>())
}

fn catalog() -> Catalog {
    #[cfg(feature = "components")]
    return trilby::builtins();
    #[cfg(not(feature = "components"))]
    Catalog::new()
}
