//! What `demo` and `bench` share: the guests and the programs are built, then another crate's binary drives them.

use std::process::Command;

use crate::{
    guests,
    process::{Result, run, step},
    workspace::Workspace,
};

/// Builds everything in `profile` and runs the binary `name` of the package `drivers` with `args`, ours first.
///
/// # Errors
/// Something does not build, or the driver fails.
pub(crate) fn drive(workspace: &Workspace, profile: &str, name: &str, args: &[String]) -> Result {
    guests::rust(workspace, &workspace.wasm())?;
    let programs = || run(workspace.cargo().args(["build", "--profile", profile, "--package", "cli", "--bins"]));
    step("build trilby and daprd", programs)?;
    let binaries = workspace.target.join(profile);
    let build = || run(workspace.cargo().args(["build", "--profile", profile, "--package", "drivers", "--bin", name]));
    step(&format!("build the {name}"), build)?;
    let driver = || {
        let mut driver = Command::new(binaries.join(name));
        driver.arg("--binaries").arg(&binaries).arg("--guests").arg(workspace.wasm()).args(args);
        let status = driver.current_dir(&workspace.root).status()?;
        if status.success() { Ok(()) } else { Err(format!("the {name} failed: {status}").into()) }
    };
    step(&format!("run the {name}"), driver)
}
