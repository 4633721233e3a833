//! Collects rows, prints each when it is known, and writes docs/benchmarks.md.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use drivers::Result;

struct Section {
    title: &'static str,
    about: &'static str,
    rows: Vec<[String; 4]>,
}

/// The report as far as it is known.
pub(crate) struct Report {
    peers: Vec<String>,
    sections: Vec<Section>,
}

impl Report {
    pub(crate) fn new(peers: &[(String, PathBuf)]) -> Self {
        Self { peers: peers.iter().map(|(name, _)| name.clone()).collect(), sections: Vec::new() }
    }

    /// Begins a section.
    pub(crate) fn section(&mut self, title: &'static str, about: &'static str) {
        println!("\n{title}\n");
        self.sections.push(Section { title, about, rows: Vec::new() });
    }

    /// Adds what was measured, and what it should be at most or at least, if anything.
    pub(crate) fn row(&mut self, what: &str, measured: String, target: &str, verdict: Option<bool>) {
        let verdict = match verdict {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        println!("  {what:<58} {measured:<28} {target:<24} {verdict}");
        if let Some(section) = self.sections.last_mut() {
            section.rows.push([what.to_owned(), measured, target.to_owned(), verdict.to_owned()]);
        }
    }

    /// Writes the document.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::from("# Benchmarks\n\n");
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let peers = if self.peers.is_empty() { "none".to_owned() } else { self.peers.join(", ") };
        let _ = writeln!(
            text,
            "Written by the driver of `cargo xtask bench`, {}. Machine: {}. Peers: {peers}.\n\nRead ratios, not times: what is compared \
             was measured in one run, rounds interleaved, on a machine that others use too.",
            &date[..10],
            machine()
        );
        for section in &self.sections {
            let _ = writeln!(
                text,
                "\n## {}\n\n{}\n\n| what | measured | target | |\n|---|---|---|---|",
                section.title, section.about
            );
            for row in &section.rows {
                let _ = writeln!(text, "| {} |", row.join(" | "));
            }
        }
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("\nwritten to {}", path.display());
        Ok(())
    }
}

fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cpus} cores of {}, Linux {}", model.unwrap_or("an unknown processor"), kernel.trim())
}
