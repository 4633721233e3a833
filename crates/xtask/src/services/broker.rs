//! What the brokers have in common: one command line, whether `cargo xtask services` or a single test runs the server.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    Started, free_port,
    supervised::{Home, Supervised},
};
use crate::{
    process::{Result, at},
    workspace::Workspace,
};

/// The account on every broker that asks for one; the password is the same.
pub(super) const USER: &str = "trilby";

/// Where one server keeps what it has, and where it listens.
pub(super) struct Place<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) program: &'a Path,
    /// Exists. A server that is started again finds what it left there.
    pub(super) data: &'a Path,
    /// Of 127.0.0.1, without TLS.
    pub(super) port: u16,
    /// The same with TLS, where the server has that.
    pub(super) tls_port: u16,
}

impl Place<'_> {
    /// Puts a file among the data.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn give(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.data.join(name);
        fs::write(&path, content).map_err(at(&path))?;
        Ok(path)
    }

    /// A folder among the data.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.data.join(name);
        fs::create_dir_all(&path).map_err(at(&path))?;
        Ok(path)
    }
}

/// A broker: what runs it, how to tell that it is ready, and where tests find it.
pub(super) struct Broker {
    pub(super) name: &'static str,
    /// Prepares the folder, unless that has been done, and says what runs the server in it.
    pub(super) command: fn(&Place<'_>) -> Result<Command>,
    /// What a client says first, and how the answer of a server that is ready begins. Both may be empty.
    pub(super) hello: (&'static [u8], &'static [u8]),
    /// Variables and the addresses that they hold.
    pub(super) addresses: fn(&Place<'_>) -> Vec<(&'static str, String)>,
}

impl Broker {
    /// Starts the broker in a folder of its own; it is stopped when the result is dropped.
    ///
    /// # Errors
    /// It cannot be prepared, ends at once or is not ready in time.
    pub(super) fn start(&self, workspace: &Workspace, program: &Path, port: u16, version: String) -> Result<Started> {
        let home = Home::new(workspace, self.name, None)?;
        let data = home.data.clone();
        let place = Place { workspace, program, data: &data, port, tls_port: free_port()? };
        let mut process = Supervised::start((self.command)(&place)?, home, "TERM")?;
        process.wait_until(Duration::from_secs(90), || self.answers(port).is_ok_and(|ready| ready))?;
        Ok(Started { process, addresses: (self.addresses)(&place), version })
    }

    fn answers(&self, port: u16) -> std::io::Result<bool> {
        let (hello, expected) = self.hello;
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(hello)?;
        let mut reply = vec![0; expected.len()];
        stream.read_exact(&mut reply)?;
        Ok(reply == expected)
    }
}
