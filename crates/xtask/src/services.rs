//! `cargo xtask services`: the servers that tests talk to, each a process of ours on a free port with data of its own.

mod broker;
mod certificate;
mod kafka;
mod mosquitto;
pub(crate) mod nats;
mod postgres;
mod rabbitmq;
mod redis;
pub(crate) mod server;
mod supervised;

use std::{
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use crate::{
    args::Args,
    install::Program,
    process::{Result, step},
    services::{broker::Place, supervised::Supervised},
    workspace::Workspace,
};

pub(crate) const COMMAND: crate::Command = crate::Command {
    name: "services",
    usage: "services [--only NAMES]",
    about: "Start the databases and brokers as the tests do, until ctrl-c",
    details: DETAILS,
    run: |workspace, mut args: Args| {
        let only = args.option("--only")?;
        args.finish_without_trailing()?;
        let wanted = |kind: &&Kind| only.as_ref().is_none_or(|names| names.split(',').any(|name| name == kind.name));
        let kinds: Vec<_> = KINDS.iter().filter(wanted).collect();
        if kinds.is_empty() {
            let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            return Err(format!("--only names no server; known: {}", known.join(", ")).into());
        }
        let mut running = Vec::new();
        for service in start_all(workspace, &kinds) {
            let service = service?;
            for (variable, address) in &service.addresses {
                println!("export {variable}='{address}'");
            }
            running.push(service);
        }
        eprintln!("==> running until ctrl-c");
        loop {
            thread::sleep(Duration::from_millis(200));
            for service in &mut running {
                service.check()?;
            }
        }
    },
};

const DETAILS: &str = "\
Prints a line for the shell to export each address. All listen on free ports of 127.0.0.1 with data of their own, which
is gone when this ends.

Options:
  --only NAMES   Some of redis, postgres, rabbitmq, mosquitto, kafka and nats, separated by commas";

/// Every server that tests may ask for.
pub(crate) const KINDS: &[Kind] =
    &[redis::KIND, postgres::KIND, rabbitmq::KIND, mosquitto::KIND, kafka::KIND, nats::KIND];

/// How one sort of server is started and found by tests.
pub(crate) struct Kind {
    /// As in `--require`.
    pub(crate) name: &'static str,
    /// Tells tests the address. If it is set already, that server is used and none started.
    variable: &'static str,
    program: Program,
    start: fn(&Workspace, program: &Path, port: u16) -> Result<Started>,
    /// What runs the server on data that stay, for tests that stop it and start it again.
    serve: Option<fn(&Place<'_>) -> Result<Command>>,
}

/// What a [`Kind`] gives once its server answers.
struct Started {
    process: Supervised,
    /// Variables and what they hold, that of the [`Kind`] first.
    addresses: Vec<(&'static str, String)>,
    version: String,
}

/// A server that answers. Dropped, it is stopped and its data removed.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// Variables that tell tests where it is, and their values.
    pub(crate) addresses: Vec<(&'static str, String)>,
    pub(crate) version: String,
    /// None if the server is somebody else's.
    process: Option<Supervised>,
}

/// Starts one server of each kind, all at the same time; gives the outcomes in the order of `kinds`.
pub(crate) fn start_all(workspace: &Workspace, kinds: &[&Kind]) -> Vec<Result<Service>> {
    // One after the other: apt does not run twice.
    let found: Vec<_> = kinds.iter().map(|kind| kind.find()).collect();
    thread::scope(|scope| {
        let starting: Vec<_> =
            kinds.iter().zip(found).map(|(kind, found)| scope.spawn(move || kind.start(workspace, found?))).collect();
        starting
            .into_iter()
            .map(|starting| starting.join().unwrap_or_else(|_| Err("starting it panicked".into())))
            .collect()
    })
}

/// Where a server comes from.
enum Source {
    Program(PathBuf),
    /// Somebody else's, at this address.
    Given(String),
}

impl Kind {
    fn find(&self) -> Result<Source> {
        match env::var(self.variable) {
            Ok(address) => Ok(Source::Given(address)),
            Err(_) => self.program.find_or_install().map(Source::Program),
        }
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// It does not start; the message holds the end of its log.
    fn start(&self, workspace: &Workspace, source: Source) -> Result<Service> {
        let (name, variable) = (self.name, self.variable);
        let program = match source {
            Source::Program(program) => program,
            Source::Given(address) => {
                eprintln!("==> {name}: using the one that {variable} names");
                let addresses = vec![(variable, address)];
                return Ok(Service { name, addresses, version: "as given".to_owned(), process: None });
            }
        };
        step(&format!("start {name}"), || {
            let start = || (self.start)(workspace, &program, free_port()?);
            // Somebody may take the port between our asking for it and the server's; rare, so once more is enough.
            let started = start().or_else(|_| start())?;
            let Started { process, addresses, version } = started;
            eprintln!("    {version} at {}", addresses[0].1);
            Ok(Service { name, addresses, version, process: Some(process) })
        })
    }
}

impl Service {
    /// # Errors
    /// The server has ended; the message holds the end of its log.
    fn check(&mut self) -> Result {
        match &mut self.process {
            Some(process) => process.check().map_err(|error| format!("{}: {error}", self.name).into()),
            None => Ok(()),
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn scratch(name: &str) -> Workspace {
        let target = env::temp_dir().join(format!("xtask-test-{name}-{}", std::process::id()));
        Workspace { root: PathBuf::new(), target }
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_log() {
        let workspace = scratch("ends");
        let mut server = Command::new("sh");
        server.args(["-c", "echo cannot bind; exit 3"]);
        let home = supervised::Home::new(&workspace, "ends", None).expect("a folder");
        let mut process = Supervised::start(server, home, "TERM").expect("a shell");
        let error = process.wait_until(Duration::from_secs(10), || false).expect_err("it ended").to_string();
        assert!(error.contains("cannot bind"), "{error}");
        drop(process);
        fs::remove_dir_all(&workspace.target).expect("only the folder of the test is left");
    }

    #[test]
    fn dropping_a_server_stops_it_and_removes_its_data() {
        let workspace = scratch("drop");
        let home = supervised::Home::new(&workspace, "drop", None).expect("a folder");
        let data = home.data.clone();
        let mut server = Command::new("sh");
        server.args(["-c", "echo $$ > \"$0/pid\"; exec sleep 600"]).arg(&data);
        let mut process = Supervised::start(server, home, "TERM").expect("a shell");
        let pid = data.join("pid");
        process
            .wait_until(Duration::from_secs(10), || fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')))
            .expect("it runs");
        let pid = fs::read_to_string(&pid).expect("written");
        drop(process);
        let alive = Command::new("kill").args(["-0", pid.trim()]).status().expect("kill runs").success();
        assert!(!alive, "{pid} is still there");
        assert!(!data.exists());
        fs::remove_dir_all(&workspace.target).expect("only the folder of the test is left");
    }
}
