//! The runtime under the demo: one `trilby run` in a folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

use crate::{Options, Result, client::Client};

/// Port that the example's file gives the storefront.
const PORT_IN_FILE: u16 = 8080;
/// What `trilby run` logs when all apps are there and subscribed.
const ALL_RUN: &str = "apps are running";
/// When the example's report is due; a demo cannot wait for it.
const NIGHTLY: &str = "0 0 3 * * *";

/// A folder with the apps' file and their state, which outlives the process.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    binary: PathBuf,
    pub(crate) port: u16,
}

impl Site {
    /// Puts the example into a temporary folder: its own secret, a clock that is in a hurry, the broker that is asked
    /// for, and the storefront on 8080 or on a free port.
    pub(crate) async fn prepare(options: &Options) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = free_port().await?;
        let guests = fs::canonicalize(&options.guests).map_err(|error| problem(&options.guests, error))?;
        let apps = read(&options.apps)?
            .replace("../../target/wasm", &guests.to_string_lossy())
            .replace(&PORT_IN_FILE.to_string(), &port.to_string());
        write(&folder.path().join("dapr.yaml"), &apps)?;

        let example = options.apps.parent().unwrap_or(Path::new(".")).join("resources");
        let resources = folder.path().join("resources");
        fs::create_dir(&resources).map_err(|error| problem(&resources, error))?;
        for entry in fs::read_dir(&example).map_err(|error| problem(&example, error))? {
            let entry = entry.map_err(|error| problem(&example, error))?;
            let text = read(&entry.path())?.replace(NIGHTLY, "@every 2s");
            write(&resources.join(entry.file_name()), &text)?;
        }
        if let Some(broker) = &options.pubsub {
            write(&resources.join("pubsub.yaml"), &read(broker)?)?;
        }

        let data = folder.path().join(".trilby");
        fs::create_dir(&data).map_err(|error| problem(&data, error))?;
        let key = format!(r#"{{"order-key": "{:?}"}}"#, std::time::SystemTime::now());
        write(&data.join("secrets.json"), &key.replace(' ', ""))?;
        let binary = options.binaries.join("trilby");
        let binary = fs::canonicalize(&binary).map_err(|error| problem(&binary, error))?;
        let site = Self { folder, binary, port };
        site.configure(r#"{"discount": "0"}"#)?;
        Ok(site)
    }

    /// Changes the configuration that the services read, as an operator would.
    pub(crate) fn configure(&self, json: &str) -> Result<()> {
        write(&self.folder.path().join(".trilby/configuration.json"), json)
    }

    /// The last lines that the services wrote.
    pub(crate) fn end_of_log(&self) -> String {
        const LINES: usize = 30;
        let log = self.read_log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    fn read_log(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Starts the services; says how long the first answer took. Then waits until they hear messages and changes too:
    /// with a real broker that can take seconds, and most forget what nobody has asked for yet.
    pub(crate) async fn start(&self) -> Result<(Services, Duration)> {
        let log = self.log();
        let open = || fs::OpenOptions::new().create(true).append(true).open(&log).map_err(|error| error.to_string());
        let seen = self.read_log().len();
        let started = Instant::now();
        let child = Command::new(&self.binary)
            .args(["run", "-f", "dapr.yaml"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.binary.display()))?;
        let mut services = Services { child };
        let client = Client::new(self.port);
        let mut first_answer = None;
        loop {
            match first_answer {
                None if client.call("GET", "/orders", "").await.is_ok_and(|answer| answer.status == 200) => {
                    first_answer = Some(started.elapsed());
                }
                Some(took) if self.read_log().get(seen..).is_some_and(|log| log.contains(ALL_RUN)) => {
                    return Ok((services, took));
                }
                _ => {}
            }
            let ended = services.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || started.elapsed() > Duration::from_secs(120) {
                return Err("the services did not start".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The running process.
pub(crate) struct Services {
    child: Child,
}

impl Services {
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().ok_or_else(|| "the services have ended".to_owned())
    }

    /// Ends it without warning, as a crash does.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.map_err(|error| error.to_string())
    }

    /// Waits until it ends, which it does when the terminal sends it an interrupt.
    pub(crate) async fn wait(mut self) -> Result<()> {
        self.child.wait().await.map(drop).map_err(|error| error.to_string())
    }
}

fn problem(what: &Path, error: std::io::Error) -> String {
    format!("{}: {error}", what.display())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| problem(path, error))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| problem(path, error))
}

async fn free_port() -> Result<u16> {
    let listener = match TcpListener::bind(("127.0.0.1", PORT_IN_FILE)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?,
    };
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}
