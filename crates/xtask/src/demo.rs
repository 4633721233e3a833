//! `cargo xtask demo`: the order services in one process, driven and measured before your eyes.

use std::{fs, path::PathBuf, process::ExitCode};

use crate::{
    args::Args,
    driver::drive,
    process::{Result, at},
    services::{KINDS, Service, start_all},
    workspace::Workspace,
};

pub(crate) const COMMAND: crate::Command = crate::Command {
    name: "demo",
    usage: "demo [--broker NAME] [--stay]",
    about: "Run Wasm services in one process and show what they do",
    details: DETAILS,
    run: |workspace, mut args: Args| {
        let broker = args.option("--broker")?;
        let mut passed = args.flag("--stay").then(|| "--stay".to_owned()).into_iter().collect::<Vec<_>>();
        args.finish_without_trailing()?;
        // Held while the demo runs: dropping it stops the server.
        let broker = broker.map(|name| Broker::start(workspace, &name)).transpose()?;
        if let Some(broker) = &broker {
            passed.extend(["--pubsub".to_owned(), broker.resource.display().to_string()]);
        }
        drive(workspace, "demo", "demo", &passed)?;
        Ok(ExitCode::SUCCESS)
    },
};

const DETAILS: &str = "\
Builds the runtime and the guests of examples/orders, starts the services, drives them with HTTP requests and prints
each step with its latency.

Options:
  --broker NAME   Send the messages through a real broker, which is installed and started: redis, nats, rabbitmq, mqtt
                  or kafka [default: one in memory]
  --stay          Keep the services up afterwards and print URLs to try";

/// The name of a broker here, that of its server, and the component over it; ADDRESS stands for where it is.
const BROKERS: &[(&str, &str, &str)] = &[
    ("redis", "redis", "type: pubsub.redis, version: v1, metadata: [{name: redisHost, value: 'ADDRESS'}]"),
    ("nats", "nats", "type: pubsub.jetstream, version: v1, metadata: [{name: natsURL, value: 'ADDRESS'}]"),
    (
        "rabbitmq",
        "rabbitmq",
        "type: pubsub.rabbitmq, version: v1, metadata: [{name: connectionString, value: 'ADDRESS'}]",
    ),
    ("mqtt", "mosquitto", "type: pubsub.mqtt3, version: v1, metadata: [{name: url, value: 'ADDRESS'}]"),
    (
        "kafka",
        "kafka",
        "type: pubsub.kafka, version: v1, metadata: [{name: brokers, value: 'ADDRESS'}, {name: authType, value: none}]",
    ),
];

/// A broker that runs, and the resource that names it.
struct Broker {
    resource: PathBuf,
    _server: Service,
}

impl Broker {
    fn start(workspace: &Workspace, name: &str) -> Result<Self> {
        let Some((_, server, spec)) = BROKERS.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<_> = BROKERS.iter().map(|(known, ..)| *known).collect();
            return Err(format!("--broker {name}: known are {}", known.join(", ")).into());
        };
        let kinds: Vec<_> = KINDS.iter().filter(|kind| kind.name == *server).collect();
        let server = start_all(workspace, &kinds).remove(0)?;
        let spec = spec.replace("ADDRESS", &server.addresses[0].1);
        let resource = format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: pubsub}}\nspec: {{initTimeout: 30s, {spec}}}\n\
             scopes: [orders, billing]\n"
        );
        let path = workspace.target.join("demo-pubsub.yaml");
        fs::write(&path, resource).map_err(at(&path))?;
        Ok(Self { resource: path, _server: server })
    }
}
