//! `cargo xtask services`: the servers that tests talk to, each a process of ours on a free port with data of its own.

mod postgres;
mod redis;
mod supervised;

use std::{env, net::TcpListener, path::Path, thread, time::Duration};

use crate::{
    args::Args,
    install::Program,
    process::{Result, step},
    services::supervised::Supervised,
    workspace::Workspace,
};

pub(crate) const COMMAND: crate::Command = crate::Command {
    name: "services",
    usage: "services",
    about: "Start Redis and PostgreSQL as the tests do, until ctrl-c",
    details: DETAILS,
    run: |workspace, args: Args| {
        args.finish_without_trailing()?;
        let mut running = Vec::new();
        for kind in KINDS {
            let service = kind.start(workspace)?;
            println!("export {}='{}'", service.variable, service.address);
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
Prints a line for the shell to export each address. Both listen on free ports of 127.0.0.1 with data of their own, which
is gone when this ends.";

/// Every server that tests may ask for.
pub(crate) const KINDS: &[Kind] = &[redis::KIND, postgres::KIND];

/// How one sort of server is started and found by tests.
pub(crate) struct Kind {
    /// As in `--require`.
    pub(crate) name: &'static str,
    /// Tells tests the address. If it is set already, that server is used and none started.
    variable: &'static str,
    program: Program,
    start: fn(&Workspace, program: &Path, port: u16) -> Result<Started>,
}

/// What a [`Kind`] gives once its server answers.
struct Started {
    process: Supervised,
    address: String,
    version: String,
}

/// A server that answers. Dropped, it is stopped and its data removed.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) variable: &'static str,
    pub(crate) address: String,
    pub(crate) version: String,
    /// None if the server is somebody else's.
    process: Option<Supervised>,
}

impl Kind {
    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// It cannot be installed or does not start; the message holds the end of its log.
    pub(crate) fn start(&self, workspace: &Workspace) -> Result<Service> {
        let (name, variable) = (self.name, self.variable);
        if let Ok(address) = env::var(variable) {
            eprintln!("==> {name}: using the one that {variable} names");
            return Ok(Service { name, variable, address, version: "as given".to_owned(), process: None });
        }
        step(&format!("start {name}"), || {
            let program = self.program.find_or_install()?;
            let start = || (self.start)(workspace, &program, free_port()?);
            // Somebody may take the port between our asking for it and the server's; rare, so once more is enough.
            let started = start().or_else(|_| start())?;
            eprintln!("    {} at {}", started.version, started.address);
            let Started { process, address, version } = started;
            Ok(Service { name, variable, address, version, process: Some(process) })
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
    use std::{fs, path::PathBuf, process::Command};

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
