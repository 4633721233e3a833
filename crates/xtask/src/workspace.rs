//! Where things are: the repository, the target folder and what this tool puts into them.

use std::{
    env,
    path::{self, PathBuf},
    process::Command,
};

use crate::process::Result;

/// The repository and where its builds go.
pub(crate) struct Workspace {
    /// Holds the root `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// `CARGO_TARGET_DIR`, else `target` in the root.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// # Errors
    /// This tool runs from somewhere other than the `crates/xtask` of a workspace.
    pub(crate) fn find() -> Result<Self> {
        // Cargo sets the variable when it runs us; the compiled-in value serves whoever starts the binary directly.
        let here =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = here.ancestors().nth(2).map(path::Path::to_path_buf).unwrap_or_default();
        if !root.join("Cargo.lock").is_file() {
            return Err(
                format!("no workspace around {}; run `cargo xtask` inside the repository", here.display()).into()
            );
        }
        let target = match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => path::absolute(dir)?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// Cargo, as it was when it started this tool, in the root.
    ///
    /// What cargo told this tool about its own package is taken away again: build scripts ask to be run anew when such
    /// a variable changes (`ring`'s does), and half of the tree would be built twice, once by us and once by hand.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            let of_package = name.to_str().is_some_and(|name| {
                name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_BIN_")
            });
            if of_package {
                cargo.env_remove(name);
            }
        }
        cargo
    }

    /// Where guests are put: always in the root's own `target`, so that examples may name them by a relative path.
    pub(crate) fn wasm(&self) -> PathBuf {
        self.root.join("target").join("wasm")
    }

    /// Build folder of the guests. Not the main one: another rustc would rebuild everything that it finds there.
    pub(crate) fn guests_target(&self) -> PathBuf {
        if env::var_os("CARGO_TARGET_DIR").is_some_and(|dir| !dir.is_empty()) {
            let mut name = self.target.as_os_str().to_owned();
            name.push("-guests");
            return name.into();
        }
        self.target.join("guests")
    }

    /// Programs that are fetched for the build, such as the JavaScript compiler.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Data and logs of the servers that tests talk to.
    pub(crate) fn services(&self) -> PathBuf {
        self.target.join("services")
    }
}
