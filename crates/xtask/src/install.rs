//! Finding the programs that tests need, and installing them where that can be done without asking.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::{Result, output, run, step, which};

/// A program and how to come by it.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// Debian's package.
    pub(crate) package: &'static str,
    /// Folders outside PATH that may hold it; a part `*` stands for any, the highest version is taken.
    pub(crate) folders: &'static [&'static str],
}

impl Program {
    /// Its path, after an installation if need be.
    ///
    /// # Errors
    /// It is not there, and this is not a Debian machine on which we are root, or apt fails.
    pub(crate) fn find_or_install(&self) -> Result<PathBuf> {
        if let Some(path) = self.find() {
            return Ok(path);
        }
        if !is_root() || which("apt-get").is_none() {
            let Self { name, package, .. } = self;
            return Err(format!(
                "{name} is not installed; install it, on Debian with `apt-get install {package}` as root"
            )
            .into());
        }
        step(&format!("install {} with apt-get", self.package), || apt_install(self.package))?;
        self.find().ok_or_else(|| format!("{} has no {}", self.package, self.name).into())
    }

    fn find(&self) -> Option<PathBuf> {
        which(self.name).or_else(|| {
            let mut found: Vec<_> =
                self.folders.iter().flat_map(|pattern| expand(pattern)).map(|dir| dir.join(self.name)).collect();
            found.retain(|path| path.is_file());
            found.sort_by_key(|path| version_in(path));
            found.pop()
        })
    }
}

/// Whether this process is root: root may install, and PostgreSQL refuses to run as it.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

fn apt_install(package: &str) -> Result {
    let install = || {
        run(Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends", package])
            .env("DEBIAN_FRONTEND", "noninteractive"))
    };
    // The lists of a fresh image are empty or old; reading them anew takes a while, so only when it is needed.
    install().or_else(|_| run(Command::new("apt-get").arg("update")).and_then(|()| install()))
}

/// The folders that `pattern` matches, where `*` is one whole part of the path.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once("/*/") else { return vec![PathBuf::from(pattern)] };
    let versions = fs::read_dir(before).into_iter().flatten().flatten();
    versions.map(|version| version.path().join(after)).collect()
}

/// The numbers in a path, so that 9 sorts before 15.
fn version_in(path: &Path) -> Vec<u32> {
    path.to_string_lossy().split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_numbers() {
        assert!(
            version_in(Path::new("/usr/lib/postgresql/9/bin")) < version_in(Path::new("/usr/lib/postgresql/15/bin"))
        );
    }

    #[test]
    fn a_program_is_looked_for_outside_of_path_too() {
        let find = |folders| Program { name: "main.rs", package: "none", folders }.find();
        const SRC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        assert_eq!(find(&[SRC]), Some(Path::new(SRC).join("main.rs")));
        assert_eq!(find(&["/nowhere/*/bin"]), None);
    }
}
