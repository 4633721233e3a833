//! PostgreSQL in a cluster of its own, with a password and TLS, that does not care for crashes.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use super::{
    Kind, Started, certificate,
    supervised::{Account, Home, Supervised},
};
use crate::{
    install::{Program, is_root},
    process::{Result, output},
    workspace::Workspace,
};

pub(super) const KIND: Kind =
    Kind { name: "postgres", variable: "TRILBY_TEST_POSTGRES", program: PROGRAM, start, serve: None };

const PROGRAM: Program = Program {
    name: "postgres",
    package: "postgresql",
    // Debian and Homebrew keep versions apart and none of them on PATH.
    folders: &["/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/*/bin"],
};

const PASSWORD: &str = "trilby";

/// Faster, and only a crash of the machine could tell the difference.
const SETTINGS: &[&str] =
    &["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "unix_socket_directories="];

fn start(workspace: &Workspace, program: &Path, port: u16) -> Result<Started> {
    // A link in PATH would hide the programs that belong to this version.
    let program = program.canonicalize()?;
    let version = output(Command::new(&program).arg("--version"))?;
    let account = if is_root() { Some(unprivileged()?) } else { None };
    let home = Home::new(workspace, "postgres", account)?;
    create_cluster(&program.with_file_name("initdb"), &home)?;

    let (certificate, key) = (
        home.give("server.crt", certificate::CHAIN.as_bytes())?,
        home.give("server.key", certificate::KEY.as_bytes())?,
    );
    let tls = [
        "ssl=on".into(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ];

    let mut server = Command::new(program);
    server.arg("-D").arg(&home.data).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    server.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
    server.args(tls.iter().flat_map(|setting| ["-c", setting]));
    // SIGINT is its fast shutdown: SIGTERM would wait for clients to go away.
    let mut process = Supervised::start(server, home, "INT")?;
    process.wait_until(Duration::from_secs(60), || accepts(port).is_ok_and(|ready| ready))?;
    let version = version.split_whitespace().nth(2).unwrap_or("of unknown version");
    let address = format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}/postgres?sslmode=disable");
    Ok(Started { process, addresses: vec![(KIND.variable, address)], version: format!("postgresql {version}") })
}

/// PostgreSQL refuses to run as root.
fn unprivileged() -> Result<Account> {
    Account::first_of(&["postgres", "nobody"])
        .ok_or_else(|| "PostgreSQL does not run as root, and there is no account postgres or nobody".into())
}

fn create_cluster(initdb: &Path, home: &Home) -> Result {
    let password = home.give("password", PASSWORD.as_bytes())?;
    let mut command = Command::new(initdb);
    command
        .args(["--username=postgres", "--auth=scram-sha-256", "--pwfile"])
        .arg(password)
        .args(["--encoding=UTF8", "--no-locale", "--no-sync", "--pgdata"])
        .arg(&home.data);
    home.prepare(&mut command)?;
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("initdb failed: {status}: {}", home.end_of_log()).into())
}

/// Asks for a session; a server that is still starting answers with an error, one that is ready with an authentication
/// message.
fn accepts(port: u16) -> std::io::Result<bool> {
    const PROTOCOL_3: u32 = 3 << 16;
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let mut hello = (parameters.len() as u32 + 8).to_be_bytes().to_vec();
    hello.extend(PROTOCOL_3.to_be_bytes());
    hello.extend(parameters);

    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(&hello)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    Ok(kind == *b"R")
}
