//! Sizes of what is shipped.

use std::{fs, path::Path};

use drivers::Result;

use crate::{Options, report::Report};

const MB: f64 = 1e6;

pub(crate) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    report.section("Size", "Stripped release binaries, x86-64.");
    for name in ["daprd", "trilby"] {
        let size = megabytes(&options.binaries.join(name))?;
        report.row(name, format!("{size:.1} MB"), "≤ 45 MB", Some(size <= 45.0));
    }
    let embedded = options.binaries.join("../small/trilby");
    match megabytes(&embedded) {
        Ok(size) => report.row(
            "trilby without a compiler, running precompiled guests only",
            format!("{size:.1} MB"),
            "≤ 15 MB",
            Some(size <= 15.0),
        ),
        Err(problem) => report.row("trilby without a compiler", format!("not measured: {problem}"), "≤ 15 MB", None),
    }
    Ok(())
}

fn megabytes(path: &Path) -> Result<f64> {
    let metadata = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(metadata.len() as f64 / MB)
}
