//! NATS with JetStream.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
};

use super::{
    Kind, Started,
    broker::{Broker, Place},
};
use crate::{
    install::Program,
    process::{Result, output},
    workspace::Workspace,
};

pub(super) const KIND: Kind =
    Kind { name: "nats", variable: "TRILBY_TEST_NATS", program: PROGRAM, start, serve: Some(BROKER.command) };

const PROGRAM: Program = Program { name: "nats-server", package: "nats-server", folders: &["/usr/sbin"] };

const BROKER: Broker = Broker {
    name: "nats",
    command,
    hello: (b"", b"INFO "),
    addresses: |place| vec![(KIND.variable, format!("nats://127.0.0.1:{}", place.port))],
};

fn start(workspace: &Workspace, program: &Path, port: u16) -> Result<Started> {
    let version = output(Command::new(program).arg("--version"))?;
    let version = version.rsplit(' ').next().unwrap_or_default().trim_start_matches('v');
    BROKER.start(workspace, program, port, format!("nats {version}"))
}

fn command(place: &Place<'_>) -> Result<Command> {
    let mut server = Command::new(place.program);
    server.args(["--jetstream", "--addr", "127.0.0.1", "--port", &place.port.to_string(), "--store_dir"]);
    server.arg(place.folder("jetstream")?);
    Ok(server)
}

/// Makes a stream that keeps these subjects: JetStream keeps nothing that no stream asks for, and Dapr makes none.
///
/// # Errors
/// The server is not there, or refuses.
pub(crate) fn create_stream(url: &str, name: &str, subjects: &[&str]) -> Result {
    let wanted = format!(r#"{{"name":"{name}","subjects":{subjects:?}}}"#);
    let mut server = BufReader::new(TcpStream::connect(url.trim_start_matches("nats://"))?);
    write!(
        server.get_mut(),
        "CONNECT {{}}\r\nSUB made 1\r\nPUB $JS.API.STREAM.CREATE.{name} made {}\r\n{wanted}\r\n",
        wanted.len()
    )?;
    for line in server.lines() {
        let line = line?;
        if line.contains("stream_create_response") {
            return if line.contains("\"error\"") { Err(line.into()) } else { Ok(()) };
        }
    }
    Err("nats hung up".into())
}
