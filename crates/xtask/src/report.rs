//! What a test run did: read off the output of `cargo test` line by line, printed as one table.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

/// The results so far.
#[derive(Default)]
pub(crate) struct Report {
    suites: Vec<Suite>,
    /// Whose output is being read; it becomes a suite when its result line comes.
    current: Option<Program>,
    provided: Vec<String>,
    /// Name to reason. A map: the same thing may be missed by several tests.
    not_run: BTreeMap<String, String>,
    failures: Vec<String>,
    /// Failures outside of any suite: a build, a crash.
    broken: usize,
}

/// A test program, as cargo announces it.
#[derive(Clone, Debug, PartialEq)]
struct Program {
    /// `unittests src/lib.rs`, `tests/http.rs` or `doc tests`.
    source: String,
    /// The crate of a unit test, the file of another.
    stem: String,
}

struct Suite {
    program: Program,
    passed: usize,
    failed: usize,
    ignored: usize,
    seconds: f64,
}

impl Report {
    /// Takes in one line of output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(program) = Program::announced_by(line) {
            self.close();
            self.current = Some(program);
        } else if let Some((name, reason)) =
            line.trim_start().strip_prefix("NOT RUN ").and_then(|rest| rest.split_once(": "))
        {
            self.not_run(name, reason);
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            let program = self.current.as_ref().map(|program| format!("{}: ", program.stem)).unwrap_or_default();
            self.failures.push(format!("{program}{name}"));
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.finish_suite(result);
        }
    }

    /// Notes programs that were run as a user would, by name and what went wrong.
    pub(crate) fn examples(&mut self, outcomes: &[(String, Option<String>)], seconds: f64) {
        let failed = outcomes.iter().filter(|(_, problem)| problem.is_some()).count();
        let program = Program { source: "as a user runs them".to_owned(), stem: "examples".to_owned() };
        self.suites.push(Suite { program, passed: outcomes.len() - failed, failed, ignored: 0, seconds });
        let lines =
            outcomes.iter().filter_map(|(name, problem)| Some(format!("example {name}: {}", problem.as_ref()?)));
        self.failures.extend(lines);
    }

    /// Ends reading; `success` is what cargo says of the whole.
    pub(crate) fn end(&mut self, success: bool) {
        self.close();
        if !success && !self.failed() {
            self.fail("cargo test", "failed without a failing test");
        }
    }

    /// Notes something that tests had at their disposal.
    pub(crate) fn provided(&mut self, what: String) {
        self.provided.push(what);
    }

    /// Notes that `name` did not run; the first reason is kept.
    pub(crate) fn not_run(&mut self, name: &str, reason: &str) {
        self.not_run.entry(name.to_owned()).or_insert_with(|| reason.to_owned());
    }

    /// Notes a failure outside of any test.
    pub(crate) fn fail(&mut self, what: &str, reason: &str) {
        self.failures.push(format!("{what}: {reason}"));
        self.broken += 1;
    }

    pub(crate) fn failed(&self) -> bool {
        self.broken > 0 || self.suites.iter().any(|suite| suite.failed > 0)
    }

    pub(crate) fn names_not_run(&self) -> impl Iterator<Item = &str> {
        self.not_run.keys().map(String::as_str)
    }

    /// `N passed, N failed, N skipped`.
    pub(crate) fn totals(&self) -> String {
        let sum = |count: fn(&Suite) -> usize| self.suites.iter().map(count).sum::<usize>();
        let skipped = sum(|suite| suite.ignored) + self.not_run.len();
        format!(
            "{} passed, {} failed, {skipped} skipped",
            sum(|suite| suite.passed),
            sum(|suite| suite.failed) + self.broken
        )
    }

    /// Writes everything but the totals.
    ///
    /// # Errors
    /// Those of `out`.
    pub(crate) fn print(&self, root: &Path, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nSummary")?;
        for what in &self.provided {
            writeln!(out, "  with {what}")?;
        }
        let (ran, empty): (Vec<_>, Vec<_>) =
            self.suites.iter().partition(|suite| suite.passed + suite.failed + suite.ignored > 0);
        let names: Vec<_> = ran.iter().map(|suite| suite.program.label(root)).collect();
        let width = names.iter().map(String::len).max().unwrap_or_default();
        if !ran.is_empty() {
            writeln!(out, "\n  {:width$}  {:>6}  {:>6}  {:>7}  {:>8}", "suite", "passed", "failed", "ignored", "time")?;
        }
        for (suite, name) in ran.iter().zip(&names) {
            let Suite { passed, failed, ignored, seconds, .. } = suite;
            writeln!(out, "  {name:width$}  {passed:>6}  {failed:>6}  {ignored:>7}  {seconds:>6.2} s")?;
        }
        if !empty.is_empty() {
            writeln!(out, "  and {} programs without a test (or none that the filter names)", empty.len())?;
        }
        let width = self.not_run.keys().map(String::len).max().unwrap_or_default();
        section(out, "Not run", self.not_run.iter().map(|(name, reason)| format!("{name:width$}  {reason}")))?;
        section(out, "Failed", self.failures.iter().cloned())?;
        writeln!(out)
    }

    fn finish_suite(&mut self, result: &str) {
        let Some(program) = self.current.take() else { return };
        let count = |what: &str| -> usize {
            let words: Vec<_> = result.split([' ', ';']).collect();
            words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok()).unwrap_or_default()
        };
        let seconds =
            result.rsplit(' ').next().and_then(|word| word.trim_end_matches('s').parse().ok()).unwrap_or_default();
        let suite =
            Suite { program, passed: count("passed"), failed: count("failed"), ignored: count("ignored"), seconds };
        self.suites.push(suite);
    }

    /// A program that was announced and gave no result crashed, or is no test program at all.
    fn close(&mut self) {
        if let Some(program) = self.current.take() {
            self.fail(&format!("{} {}", program.stem, program.source), "ended without a result");
        }
    }
}

impl Program {
    /// Reads cargo's `Running unittests src/lib.rs (target/debug/deps/trilby_core-0123)` and `Doc-tests trilby_core`.
    fn announced_by(line: &str) -> Option<Self> {
        let line = line.trim_start();
        if let Some(name) = line.strip_prefix("Doc-tests ") {
            return Some(Self { source: "doc tests".to_owned(), stem: name.replace('_', "-") });
        }
        let (source, path) = line.strip_prefix("Running ")?.strip_suffix(')')?.split_once(" (")?;
        let (stem, _hash) = Path::new(path).file_name()?.to_str()?.rsplit_once('-')?;
        Some(Self { source: source.to_owned(), stem: stem.replace('_', "-") })
    }

    /// Crate and source. For a file in `tests/` cargo does not say whose it is: the crate that has it, if there is one
    /// only.
    fn label(&self, root: &Path) -> String {
        let source = self.source.trim_start_matches("unittests ");
        if !source.starts_with("tests/") {
            return format!("{} {source}", self.stem);
        }
        let crates = std::fs::read_dir(root.join("crates")).into_iter().flatten().flatten();
        let owners: Vec<_> = crates.filter(|entry| entry.path().join(source).is_file()).collect();
        match owners.as_slice() {
            [owner] => format!("{} {source}", owner.file_name().to_string_lossy()),
            _ => source.to_owned(),
        }
    }
}

fn section(out: &mut impl Write, title: &str, lines: impl ExactSizeIterator<Item = String>) -> io::Result<()> {
    if lines.len() > 0 {
        writeln!(out, "\n{title}")?;
    }
    for line in lines {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
     Running unittests src/lib.rs (/t/debug/deps/trilby_core-0123456789abcdef)

running 3 tests
test state::tests::ttl_zero_means_never ... ok
test state::tests::etags ... FAILED
test slow ... ignored, needs a week
NOT RUN state.mysql: no server: none configured

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.25s
   Doc-tests trilby_core
running 0 tests
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
NOT RUN state.mysql: no server
";

    fn read(output: &str) -> Report {
        let mut report = Report::default();
        output.lines().for_each(|line| report.read(line));
        report
    }

    #[test]
    fn totals_are_read_from_the_result_lines() {
        let report = read(OUTPUT);
        assert_eq!(report.totals(), "1 passed, 1 failed, 2 skipped");
        assert!(report.failed());
        assert_eq!(report.failures, ["trilby-core: state::tests::etags"]);
    }

    #[test]
    fn the_table_names_what_did_not_run_and_why() {
        let mut table = Vec::new();
        read(OUTPUT).print(Path::new("/nowhere"), &mut table).expect("memory");
        let table = String::from_utf8(table).expect("text");
        assert!(table.contains("  trilby-core src/lib.rs       1       1        1    0.25 s\n"), "{table}");
        assert!(table.contains("Not run\n  state.mysql  no server: none configured\n"), "{table}");
    }

    #[test]
    fn a_program_that_dies_counts_as_a_failure() {
        let mut report = read("     Running tests/crash.rs (/t/debug/deps/crash-0123)\nrunning 1 test\n");
        report.end(false);
        assert_eq!(report.totals(), "0 passed, 1 failed, 0 skipped");
        assert_eq!(report.failures, ["crash tests/crash.rs: ended without a result"]);
    }

    #[test]
    fn a_failure_that_no_line_explains_is_still_one() {
        let mut report = Report::default();
        report.end(false);
        assert!(report.failed());
    }
}
