//! RabbitMQ, a node of its own with a port mapper of its own.

use std::{path::Path, process::Command};

use super::{
    Kind, Started,
    broker::{Broker, Place, USER},
    certificate, free_port,
};
use crate::{install::Program, process::Result, workspace::Workspace};

pub(super) const KIND: Kind =
    Kind { name: "rabbitmq", variable: "TRILBY_TEST_RABBITMQ", program: PROGRAM, start, serve: Some(BROKER.command) };

const PROGRAM: Program = Program {
    name: "rabbitmq-server",
    package: "rabbitmq-server",
    folders: &["/usr/lib/rabbitmq/bin", "/opt/homebrew/opt/rabbitmq/sbin"],
};

const BROKER: Broker = Broker {
    name: "rabbitmq",
    command,
    // The answer is the frame `connection.start` of channel 0.
    hello: (b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"),
    addresses: |place| {
        vec![
            (KIND.variable, format!("amqp://{USER}:{USER}@127.0.0.1:{}", place.port)),
            ("TRILBY_TEST_RABBITMQ_TLS", format!("amqps://{USER}:{USER}@localhost:{}", place.tls_port)),
        ]
    },
};

/// The node finds its port mapper by a port, which no other node may share, and which ends when the node does. `$$` is
/// the server's process: the shell becomes it.
const SCRIPT: &str = r#"
(
    epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 &
    mapper=$!
    while kill -0 $$ 2>/dev/null; do sleep 1; done
    kill $mapper
) &
exec "$0"
"#;

fn start(workspace: &Workspace, program: &Path, port: u16) -> Result<Started> {
    // Nothing prints the version without starting a node, but the folder bears it.
    let folder = server(program)?.canonicalize()?;
    let version = folder
        .to_string_lossy()
        .split_once("rabbitmq_server-")
        .map_or("of unknown version", |(_, rest)| rest.split('/').next().unwrap_or_default())
        .to_owned();
    BROKER.start(workspace, program, port, format!("rabbitmq {version}"))
}

/// What Debian has on PATH would run the system's own node, as its own account.
fn server(program: &Path) -> Result<std::path::PathBuf> {
    Ok(program.canonicalize()?.with_file_name("rabbitmq-server"))
}

fn command(place: &Place<'_>) -> Result<Command> {
    let files = certificate::write_to(place.data)?;
    let config = format!(
        "listeners.tcp.default = 127.0.0.1:{port}\n\
         listeners.ssl.default = 127.0.0.1:{tls_port}\n\
         ssl_options.cacertfile = {authority}\n\
         ssl_options.certfile = {chain}\n\
         ssl_options.keyfile = {key}\n\
         ssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = false\n\
         default_user = {USER}\n\
         default_pass = {USER}\n\
         disk_free_limit.absolute = 50MB\n\
         log.console = true\n\
         log.console.level = error\n\
         log.file = false\n",
        port = place.port,
        tls_port = place.tls_port,
        authority = files.authority.display(),
        chain = files.chain.display(),
        key = files.key.display(),
    );
    let config = place.give("rabbitmq.conf", &config)?;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", SCRIPT])
        .arg(server(place.program)?)
        // The cookie of the node is there.
        .env("HOME", place.data)
        .env("RABBITMQ_NODENAME", "trilby@localhost")
        .env("RABBITMQ_CONFIG_FILE", config)
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_MNESIA_BASE", place.folder("mnesia")?)
        .env("RABBITMQ_LOG_BASE", place.data)
        .env("RABBITMQ_PID_FILE", place.data.join("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", place.give("plugins", "[].\n")?)
        .env("RABBITMQ_DIST_PORT", free_port()?.to_string())
        .env("ERL_EPMD_PORT", free_port()?.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        // Else a shell stays between, and a signal meant for the server never reaches it.
        .env("RUNNING_UNDER_SYSTEMD", "true");
    Ok(shell)
}
