//! Redis servers that a test starts for itself, if this machine has the program `redis-server`.

use std::{
    fmt::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::eventually;

/// A server that ends with the test.
pub(crate) struct Server {
    child: Child,
    configuration: PathBuf,
    is_sentinel: bool,
    pub(crate) folder: TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a server with these lines of configuration, in which `{port}` stands for a free port; `None`, and a line
    /// that says so, if there is no program.
    pub(crate) fn start(configuration: &str) -> Option<Self> {
        let folder = TempDir::new().expect("a folder for the server");
        let port = free_port();
        let mut file = format!("dir {}\nsave \"\"\nbind 127.0.0.1\n", folder.path().display());
        let _ = writeln!(file, "{}", configuration.replace("{port}", &port.to_string()));
        if !configuration.contains("{port}") {
            let _ = writeln!(file, "port {port}");
        }
        let path = folder.path().join("redis.conf");
        std::fs::write(&path, file).expect("the folder is writable");
        let is_sentinel = configuration.contains("sentinel monitor");
        let Some(child) = spawn(&path, is_sentinel) else {
            eprintln!("NOT RUN tests with a redis of their own: redis-server is not on the PATH");
            return None;
        };
        Some(Self { child, configuration: path, is_sentinel, folder, port })
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) async fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.address())).expect("an address");
        eventually("the server starts", || client.get_connection().ok()).await
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again after [`kill`](Self::kill), with what it wrote to its folder.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.configuration, self.is_sentinel).expect("it was there before");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(configuration: &Path, is_sentinel: bool) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
    if is_sentinel {
        command.arg("--sentinel");
    }
    command.spawn().ok()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
