//! Redis without persistence.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use super::{
    Kind, Started,
    supervised::{Home, Supervised},
};
use crate::{
    install::Program,
    process::{Result, output},
    workspace::Workspace,
};

pub(super) const KIND: Kind =
    Kind { name: "redis", variable: "TRILBY_TEST_REDIS", program: PROGRAM, start, serve: None };

const PROGRAM: Program = Program { name: "redis-server", package: "redis-server", folders: &[] };

fn start(workspace: &Workspace, program: &Path, port: u16) -> Result<Started> {
    let version = output(Command::new(program).arg("--version"))?;
    let home = Home::new(workspace, "redis", None)?;
    let mut server = Command::new(program);
    server
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no", "--dir"])
        .arg(&home.data);
    let mut process = Supervised::start(server, home, "TERM")?;
    process.wait_until(Duration::from_secs(20), || answers(port).is_ok_and(|pong| pong))?;
    let version = version.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("of unknown version");
    Ok(Started {
        process,
        addresses: vec![(KIND.variable, format!("127.0.0.1:{port}"))],
        version: format!("redis {version}"),
    })
}

fn answers(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"PING\r\n")?;
    let mut reply = [0; 5];
    stream.read_exact(&mut reply)?;
    Ok(&reply == b"+PONG")
}
