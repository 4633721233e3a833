//! Mosquitto with a password and TLS, that keeps sessions when it is stopped.

use std::{path::Path, process::Command};

use super::{
    Kind, Started,
    broker::{Broker, Place, USER},
    certificate,
};
use crate::{
    install::Program,
    process::{Result, run},
    workspace::Workspace,
};

pub(super) const KIND: Kind =
    Kind { name: "mosquitto", variable: "TRILBY_TEST_MQTT", program: PROGRAM, start, serve: Some(BROKER.command) };

const PROGRAM: Program = Program {
    name: "mosquitto",
    package: "mosquitto",
    // Debian has it where only root looks.
    folders: &["/usr/sbin", "/opt/homebrew/sbin"],
};

const BROKER: Broker = Broker {
    name: "mosquitto",
    command,
    // CONNECT as `trilby` without a password, which is refused: a CONNACK that says so shows that it listens.
    hello: (b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x05\x00\x02hi", b"\x20\x02\x00\x05"),
    addresses: |place| {
        vec![
            (KIND.variable, format!("mqtt://{USER}:{USER}@127.0.0.1:{}", place.port)),
            ("TRILBY_TEST_MQTT_TLS", format!("mqtts://{USER}:{USER}@localhost:{}", place.tls_port)),
        ]
    },
};

fn start(workspace: &Workspace, program: &Path, port: u16) -> Result<Started> {
    BROKER.start(workspace, program, port, version(program))
}

/// Its `-h` is the only way to ask, and ends with a status of its own.
fn version(program: &Path) -> String {
    let help = Command::new(program).arg("-h").output().map(|output| output.stdout).unwrap_or_default();
    let help = String::from_utf8_lossy(&help);
    let version = help.split_whitespace().skip_while(|word| *word != "version").nth(1).unwrap_or("of unknown version");
    format!("mosquitto {version}")
}

fn command(place: &Place<'_>) -> Result<Command> {
    let passwords = place.give("passwords", &format!("{USER}:{USER}\n"))?;
    run(Command::new("mosquitto_passwd").arg("-U").arg(&passwords))?;
    let files = certificate::write_to(place.data)?;
    let config = format!(
        "per_listener_settings false\n\
         allow_anonymous false\n\
         password_file {passwords}\n\
         user root\n\
         persistence true\n\
         persistence_location {data}/\n\
         max_queued_messages 0\n\
         log_dest stderr\n\
         log_type error\n\
         listener {port} 127.0.0.1\n\
         listener {tls_port} 127.0.0.1\n\
         certfile {chain}\n\
         keyfile {key}\n\
         cafile {authority}\n",
        passwords = passwords.display(),
        data = place.data.display(),
        port = place.port,
        tls_port = place.tls_port,
        chain = files.chain.display(),
        key = files.key.display(),
        authority = files.authority.display(),
    );
    let mut server = Command::new(place.program);
    server.arg("-c").arg(place.give("mosquitto.conf", &config)?);
    Ok(server)
}
