//! `cargo xtask test`: starts what the tests need, runs all of them and sums up, with what did not run and why.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Command, ExitCode, ExitStatus},
    time::Instant,
};

use crate::{
    args::Args,
    demo::BROKERS,
    guests, js,
    process::{Result, run, step},
    report::Report,
    services::{KINDS, Service, start_all},
    workspace::Workspace,
};

pub(crate) const COMMAND: crate::Command = crate::Command {
    name: "test",
    usage: "test [--require NAMES] [-p CRATE]... [-- FILTER]",
    about: "Start databases and brokers, run every test and sum up",
    details: DETAILS,
    run: test,
};

const DETAILS: &str = "\
Redis, PostgreSQL, RabbitMQ, Mosquitto, Kafka and NATS are installed where that can be done (apt as root), started on
free ports with data of their own and stopped at the end. TRILBY_TEST_REDIS=HOST:PORT, TRILBY_TEST_POSTGRES=URL and so
on, as `cargo xtask services` prints them, name some to use instead. Tests find guests in the folder that
TRILBY_TEST_GUESTS names. What could not run is listed with the reason.

Options:
  --require NAMES       Fail if one of these did not run: `all`, or names separated by commas; `redis` stands for
                        every name with a part that begins so, such as `state.redis`
  -p, --package CRATE   Test only this crate; may be repeated

FILTER goes to the test programs.";

/// Where tests look for guests.
const GUESTS: &str = "TRILBY_TEST_GUESTS";
/// Where tests find this program, whose `server` they stop and start.
const XTASK: &str = "TRILBY_TEST_XTASK";

fn test(workspace: &Workspace, mut args: Args) -> Result<ExitCode> {
    let require = Require::parse(args.option("--require")?.as_deref());
    let mut packages = args.options("--package")?;
    packages.extend(args.options("-p")?);
    let filter = args.finish()?;

    let mut report = Report::default();
    build_guests(workspace, &mut report);
    // Held while the tests run: dropping them stops the servers.
    let services = start_services(workspace, &mut report);
    Cargo { workspace, packages: &packages, services: &services }.run(&filter, &mut report)?;
    if packages.is_empty() && filter.is_empty() {
        run_examples(workspace, &services, &mut report);
    }
    drop(services);

    let missing = require.missing(&report);
    let mut out = io::stdout().lock();
    report.print(&workspace.root, &mut out)?;
    for name in &missing {
        writeln!(out, "required, but did not run: {name}")?;
    }
    writeln!(out, "{}", report.totals())?;
    // The last line is the totals, for whoever reads only that: hence a code and not an error with its message.
    let passed = !report.failed() && missing.is_empty();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build_guests(workspace: &Workspace, report: &mut Report) {
    let dir = workspace.wasm();
    if let Err(error) = guests::rust(workspace, &dir) {
        report.fail("guests", &error.to_string());
    }
    match js::build(workspace, &dir) {
        Ok(js::Outcome::Built(_)) => {}
        Ok(js::Outcome::NotRun(reason)) => report.not_run("guests-js", &reason),
        Err(error) => report.fail("guests-js", &error.to_string()),
    }
}

fn start_services(workspace: &Workspace, report: &mut Report) -> Vec<Service> {
    let mut running = Vec::new();
    let kinds: Vec<_> = KINDS.iter().collect();
    for (kind, service) in kinds.iter().zip(start_all(workspace, &kinds)) {
        match service {
            Ok(service) => {
                report.provided(format!("{}: {}", service.name, service.version));
                running.push(service);
            }
            Err(error) => report.not_run(kind.name, &error.to_string()),
        }
    }
    running
}

/// Runs the examples with the binaries of this build, and checks that what is generated is fresh.
fn run_examples(workspace: &Workspace, services: &[Service], report: &mut Report) {
    // With the tests, though they are built: without them, what only they need is left out, and half of the tree would be
    // built a second time with other features.
    let build = || run(workspace.cargo().args(["build", "--workspace", "--bins", "--tests"]));
    if let Err(error) = step("build the examples", build) {
        report.fail("examples", &error.to_string());
        return;
    }
    let binaries = workspace.target.join("debug");
    let demo = || {
        let mut demo = Command::new(binaries.join("demo"));
        demo.arg("--binaries").arg(&binaries).arg("--guests").arg(workspace.wasm());
        demo
    };
    let mut pipeline = Command::new(binaries.join("pipeline"));
    pipeline.args(["--messages", "20000"]);
    let mut protos = workspace.cargo();
    protos.args(["run", "--manifest-path", "crates/trilby-proto/gen/Cargo.toml", "--", "--check"]);
    let mut examples = vec![
        ("embed".to_owned(), Ok(Command::new(binaries.join("embed")))),
        ("orders (the demo)".to_owned(), Ok(demo())),
        ("pipeline".to_owned(), Ok(pipeline)),
        ("generated protos are fresh".to_owned(), Ok(protos)),
    ];
    for broker in BROKERS {
        let Some(server) = services.iter().find(|service| service.name == broker.server) else { continue };
        let demo = broker.prepare(workspace, server).map(|resource| {
            let mut demo = demo();
            demo.arg("--pubsub").arg(resource);
            demo
        });
        examples.push((format!("orders over {}", broker.name), demo));
    }

    let started = Instant::now();
    let mut outcomes = Vec::new();
    for (name, command) in examples {
        let outcome = step(&name, || run(command?.current_dir(&workspace.root)));
        outcomes.push((name, outcome.err().map(|error| error.to_string())));
    }
    report.examples(&outcomes, started.elapsed().as_secs_f64());
}

/// `cargo test` with what the tests need in its environment.
struct Cargo<'a> {
    workspace: &'a Workspace,
    packages: &'a [String],
    services: &'a [Service],
}

impl Cargo<'_> {
    /// Builds, then runs; what happens goes to the terminal as it does and into `report`.
    ///
    /// # Errors
    /// Cargo cannot be started, or its output cannot be read. Failing tests are not an error here.
    fn run(&self, filter: &[String], report: &mut Report) -> Result {
        // Apart from running, so that cargo has the terminal to itself and can show its progress.
        if let Err(error) = step("build the tests", || run(self.test().arg("--no-run"))) {
            report.fail("build", &error.to_string());
            return Ok(());
        }
        step("run the tests", || {
            // `--show-output`: what a passing test prints is kept back otherwise, and with it why it did not do all.
            let mut tests = self.test();
            tests.args(["--no-fail-fast", "--", "--show-output"]).args(filter);
            let status = follow(tests, |line| report.read(line))?;
            report.end(status.success());
            Ok(())
        })
    }

    fn test(&self) -> Command {
        let mut cargo = self.workspace.cargo();
        cargo.arg("test").env(GUESTS, self.workspace.wasm());
        // Without it, the tests that stop a broker say that they did not run.
        if let Ok(program) = env::current_exe() {
            cargo.env(XTASK, program);
        }
        for service in self.services {
            cargo.envs(service.addresses.iter().map(|(variable, address)| (variable, address)));
        }
        if self.packages.is_empty() {
            cargo.arg("--workspace");
        }
        cargo.args(self.packages.iter().flat_map(|package| ["--package", package]));
        cargo
    }
}

/// Runs `command`, passing each line on to stdout and to `read`. Both of its outputs share one pipe: their order tells
/// which program a result belongs to.
fn follow(mut command: Command, mut read: impl FnMut(&str)) -> Result<ExitStatus> {
    let (output, input) = io::pipe()?;
    command.stdout(input.try_clone()?).stderr(input);
    let mut child = command.spawn()?;
    // It holds the writing ends; until they are closed there is no end of output.
    drop(command);
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        io::stdout().write_all(&line)?;
        read(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(child.wait()?)
}

/// What may not be missing.
enum Require {
    Nothing,
    All,
    Names(Vec<String>),
}

impl Require {
    fn parse(names: Option<&str>) -> Self {
        match names {
            None => Self::Nothing,
            Some("all") => Self::All,
            Some(names) => Self::Names(
                names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
            ),
        }
    }

    fn missing(&self, report: &Report) -> Vec<String> {
        let matches = |name: &str| match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Names(required) => required.iter().any(|required| covers(required, name)),
        };
        report.names_not_run().filter(|name| matches(name)).map(str::to_owned).collect()
    }
}

/// Whether `required` is `name` or begins one of its parts: `postgres` covers `state.postgresql/v2`.
fn covers(required: &str, name: &str) -> bool {
    name == required || name.split(['.', '/', '@', ' ']).any(|part| part.starts_with(required))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_name_covers_the_components_that_bear_it() {
        for (required, name, expected) in [
            ("redis", "redis", true),
            ("redis", "state.redis@builtin/http/etags", true),
            ("postgres", "state.postgresql/v2", true),
            ("redis", "state.sqlite", false),
        ] {
            assert_eq!(covers(required, name), expected, "{required} {name}");
        }
    }

    #[test]
    fn all_requires_whatever_did_not_run() {
        let mut report = Report::default();
        report.read("NOT RUN state.mysql: no server");
        assert_eq!(Require::parse(Some("all")).missing(&report), ["state.mysql"]);
        assert!(Require::parse(Some("redis,postgres")).missing(&report).is_empty());
        assert!(Require::parse(None).missing(&report).is_empty());
    }

    #[test]
    fn both_outputs_are_followed_in_the_order_they_were_written() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 4"]);
        let mut lines = Vec::new();
        let status = follow(command, |line| lines.push(line.to_owned())).expect("sh runs");
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(4));
    }
}
