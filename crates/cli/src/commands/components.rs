//! `trilby components`: the catalog of this build.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use trilby::Catalog;

#[derive(Args)]
pub(super) struct ComponentsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints every component type.
pub(super) fn list(args: &ComponentsArgs) -> Result<ExitCode, String> {
    let catalog = catalog();
    if args.json {
        let entries = catalog.entries();
        let list: Vec<_> = entries.map(|entry| json!({"type": entry.type_name, "version": entry.version, "about": entry.about})).collect();
        println!("{:#}", json!(list));
        return Ok(ExitCode::SUCCESS);
    }
    for entry in catalog.entries() {
        println!("{:<26} {:<4} {}", entry.type_name, entry.version, entry.about);
    }
    Ok(ExitCode::SUCCESS)
}

fn catalog() -> Catalog {
    #[cfg(feature = "components")]
    return trilby::builtins();
    #[cfg(not(feature = "components"))]
    Catalog::new()
}
