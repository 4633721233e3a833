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

/// A folder with the apps' file and their state, which outlives the process.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    binary: PathBuf,
    pub(crate) port: u16,
}

impl Site {
    /// Puts the example into a temporary folder: its own secret, and the storefront on 8080 or on a free port.
    pub(crate) async fn prepare(options: &Options) -> Result<Self> {
        let problem = |what: &Path, error: std::io::Error| format!("{}: {error}", what.display());
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let port = free_port().await?;
        let apps = fs::read_to_string(&options.apps).map_err(|error| problem(&options.apps, error))?;
        let guests = fs::canonicalize(&options.guests).map_err(|error| problem(&options.guests, error))?;
        let apps = apps
            .replace("../../target/wasm", &guests.to_string_lossy())
            .replace(&PORT_IN_FILE.to_string(), &port.to_string());
        let secrets = folder.path().join(".trilby");
        fs::create_dir(&secrets).map_err(|error| problem(&secrets, error))?;
        let key = format!(r#"{{"order-key": "{:?}"}}"#, std::time::SystemTime::now());
        fs::write(secrets.join("secrets.json"), key.replace(' ', "")).map_err(|error| problem(&secrets, error))?;
        fs::write(folder.path().join("dapr.yaml"), apps).map_err(|error| problem(folder.path(), error))?;
        let binary = options.binaries.join("trilby");
        let binary = fs::canonicalize(&binary).map_err(|error| problem(&binary, error))?;
        Ok(Self { folder, binary, port })
    }

    /// Starts the services and waits for the first answer; says how long that took.
    pub(crate) async fn start(&self) -> Result<(Services, Duration)> {
        let log = self.folder.path().join("log");
        let open = || fs::OpenOptions::new().create(true).append(true).open(&log).map_err(|error| error.to_string());
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
        loop {
            if client.call("GET", "/orders", "").await.is_ok_and(|answer| answer.status == 200) {
                return Ok((services, started.elapsed()));
            }
            let ended = services.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || started.elapsed() > Duration::from_secs(120) {
                let log = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("the services did not start; their log:\n{log}"));
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

async fn free_port() -> Result<u16> {
    let listener = match TcpListener::bind(("127.0.0.1", PORT_IN_FILE)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?,
    };
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}
