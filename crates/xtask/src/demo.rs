//! `cargo xtask demo`: the order services in one process, driven and measured before your eyes.

use std::{fs, path::PathBuf, process::ExitCode};

use crate::{
    args::Args,
    driver::drive,
    process::{Result, at},
    services::{KINDS, Service, nats, start_all},
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
        let broker = broker.map(|name| Broker::find(&name)).transpose()?;
        // Held while the demo runs: dropping it stops the server.
        let server = broker.map(|broker| broker.start(workspace)).transpose()?;
        if let (Some(broker), Some(server)) = (broker, &server) {
            let resource = broker.prepare(workspace, server)?;
            passed.extend(["--pubsub".to_owned(), resource.display().to_string()]);
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

/// A real broker that the demo can send its messages through.
pub(crate) struct Broker {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// The server behind it.
    pub(crate) server: &'static str,
    /// The component over it; ADDRESS stands for where it is.
    spec: &'static str,
}

pub(crate) const BROKERS: &[Broker] = &[
    Broker {
        name: "redis",
        server: "redis",
        spec: "type: pubsub.redis, version: v1, metadata: [{name: redisHost, value: 'ADDRESS'}]",
    },
    Broker {
        name: "nats",
        server: "nats",
        spec: "type: pubsub.jetstream, version: v1, metadata: [{name: natsURL, value: 'ADDRESS'}]",
    },
    Broker {
        name: "rabbitmq",
        server: "rabbitmq",
        spec: "type: pubsub.rabbitmq, version: v1, metadata: [{name: connectionString, value: 'ADDRESS'}]",
    },
    Broker {
        name: "mqtt",
        server: "mosquitto",
        spec: "type: pubsub.mqtt3, version: v1, metadata: [{name: url, value: 'ADDRESS'}]",
    },
    Broker {
        name: "kafka",
        server: "kafka",
        // From the beginning: the first order may be placed before its group has joined.
        spec: "type: pubsub.kafka, version: v1, metadata: [{name: brokers, value: 'ADDRESS'}, \
               {name: authType, value: none}, {name: initialOffset, value: oldest}]",
    },
];

impl Broker {
    fn find(name: &str) -> Result<&'static Self> {
        BROKERS.iter().find(|broker| broker.name == name).ok_or_else(|| {
            let known: Vec<_> = BROKERS.iter().map(|broker| broker.name).collect();
            format!("--broker {name}: known are {}", known.join(", ")).into()
        })
    }

    fn start(&self, workspace: &Workspace) -> Result<Service> {
        let kinds: Vec<_> = KINDS.iter().filter(|kind| kind.name == self.server).collect();
        start_all(workspace, &kinds).remove(0)
    }

    /// Makes `server` ready for the demo, and writes the resource that names it.
    ///
    /// # Errors
    /// The server is not there, or the file cannot be written.
    pub(crate) fn prepare(&self, workspace: &Workspace, server: &Service) -> Result<PathBuf> {
        let address = &server.addresses[0].1;
        if self.name == "nats" {
            nats::create_stream(address, "orders", TOPICS)?;
        }
        let spec = self.spec.replace("ADDRESS", address);
        let resource = format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: pubsub}}\n\
             spec: {{initTimeout: 30s, {spec}}}\nscopes: [orders, billing]\n"
        );
        let path = workspace.target.join(format!("demo-{}.yaml", self.name));
        fs::write(&path, resource).map_err(at(&path))?;
        Ok(path)
    }
}

/// The topics of the demo, that of billing's outbox included.
const TOPICS: &[&str] = &["order-placed", "order-unbilled", "order-billed", "defaultbillingorder-billedoutbox"];
