//! `cargo xtask server`: becomes one server, for tests that stop it and start it again.

use std::{fs, os::unix::process::CommandExt, path::PathBuf};

use super::{KINDS, broker::Place, free_port};
use crate::{args::Args, process::at};

pub(crate) const COMMAND: crate::Command = crate::Command {
    name: "server",
    usage: "server --kind NAME --data DIR --port PORT",
    about: "Become one of the brokers that tests stop and start",
    details: DETAILS,
    run: |workspace, mut args: Args| {
        let kind = args.option("--kind")?.ok_or("--kind is missing")?;
        let data = args.option("--data")?.map(PathBuf::from).ok_or("--data is missing")?;
        let port = args.option("--port")?.ok_or("--port is missing")?;
        args.finish_without_trailing()?;
        let port = port.parse().map_err(|_| format!("--port {port} is not a port"))?;

        let servers = || KINDS.iter().filter_map(|kind| Some((kind, kind.serve?)));
        let Some((kind, serve)) = servers().find(|(known, _)| known.name == kind) else {
            let known: Vec<_> = servers().map(|(kind, _)| kind.name).collect();
            return Err(format!("unknown server {kind}; known: {}", known.join(", ")).into());
        };
        let program = kind.program.find_or_install()?;
        fs::create_dir_all(&data).map_err(at(&data))?;
        let place = Place { workspace, program: &program, data: &data, port, tls_port: free_port()? };
        // Only returns if it fails.
        Err(serve(&place)?.current_dir(&data).exec().into())
    },
};

const DETAILS: &str = "\
This process becomes the server, so that a signal to it is one to the server. It listens on PORT of 127.0.0.1 without
TLS, keeps its data in DIR and finds them there when it is started again.

Options:
  --kind NAME   rabbitmq, mosquitto, kafka or nats
  --data DIR    An absolute path; made if it is not there
  --port PORT   Has to be free";
