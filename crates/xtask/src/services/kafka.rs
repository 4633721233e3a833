//! Apache Kafka, broker and controller in one process, from Maven Central.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Kind, Started,
    broker::{Broker, Place, USER},
    certificate, free_port,
};
use crate::{
    install::Program,
    process::{Result, at, run, step},
    workspace::Workspace,
};

pub(super) const KIND: Kind =
    Kind { name: "kafka", variable: "TRILBY_TEST_KAFKA", program: JAVA, start, serve: Some(BROKER.command) };

const VERSION: &str = "3.9.2";
const JAVA: Program = Program { name: "java", package: "default-jre-headless", folders: &[] };
const MAVEN: Program = Program { name: "mvn", package: "maven", folders: &[] };
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

const BROKER: Broker = Broker {
    name: "kafka",
    command,
    // ApiVersions v0 of a nameless client: 266 bytes of answer, of which the length comes first.
    hello: (b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\x00\x00", b"\x00\x00"),
    addresses: |place| {
        vec![
            (KIND.variable, format!("127.0.0.1:{}", place.port)),
            ("TRILBY_TEST_KAFKA_TLS", format!("localhost:{}", place.tls_port)),
        ]
    },
};

fn start(workspace: &Workspace, program: &Path, port: u16) -> Result<Started> {
    BROKER.start(workspace, program, port, format!("kafka {VERSION}"))
}

fn command(place: &Place<'_>) -> Result<Command> {
    let jars = jars(place.workspace)?;
    let settings = place.give("server.properties", &settings(place)?)?;
    if !place.data.join("log").exists() {
        let mut format = java(place.program, &jars, "kafka.tools.StorageTool");
        format.args(["format", "--cluster-id", "trilbytrilbytrilbytril", "--config"]).arg(&settings);
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            format.args(["--add-scram", &format!("{mechanism}=[name={USER},password={USER}]")]);
        }
        run(&mut format)?;
    }
    let mut server = java(place.program, &jars, "kafka.Kafka");
    server.arg(settings);
    Ok(server)
}

/// Java with what makes it start fast, at the cost of speed later.
fn java(program: &Path, jars: &Path, class: &str) -> Command {
    let mut java = Command::new(program);
    java.args([
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Xmx512m",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
    ])
    .arg("-cp")
    .arg(jars.join("*"))
    .arg(class);
    java
}

/// Three listeners: without any protection, with TLS and a password, and for itself.
fn settings(place: &Place<'_>) -> Result<String> {
    let keys = place.give("keys.pem", &format!("{}{}", certificate::KEY, certificate::CHAIN))?;
    let (port, tls_port, controller) = (place.port, place.tls_port, free_port()?);
    let security = "org.apache.kafka.common.security";
    Ok(format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAIN://127.0.0.1:{port},TLS://127.0.0.1:{tls_port},SELF://127.0.0.1:{controller}\n\
         advertised.listeners=PLAIN://127.0.0.1:{port},TLS://localhost:{tls_port}\n\
         listener.security.protocol.map=PLAIN:PLAINTEXT,TLS:SASL_SSL,SELF:PLAINTEXT\n\
         inter.broker.listener.name=PLAIN\n\
         controller.listener.names=SELF\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.tls.plain.sasl.jaas.config={security}.plain.PlainLoginModule required user_{USER}=\"{USER}\";\n\
         listener.name.tls.scram-sha-256.sasl.jaas.config={security}.scram.ScramLoginModule required;\n\
         listener.name.tls.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;\n\
         ssl.keystore.type=PEM\n\
         ssl.keystore.location={keys}\n\
         log.dirs={log}\n\
         num.partitions=3\n\
         offsets.topic.num.partitions=3\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n",
        keys = keys.display(),
        log = place.data.join("log").display(),
    ))
}

/// The folder of Kafka's classes and all that they need, fetched once.
fn jars(workspace: &Workspace) -> Result<PathBuf> {
    let jars = workspace.tools().join(format!("kafka-{VERSION}"));
    if jars.is_dir() {
        return Ok(jars);
    }
    let maven = MAVEN.find_or_install()?;
    // Fetched aside and moved in whole, so that nobody meets a half of it.
    let aside = workspace.tools().join(format!("kafka-{VERSION}.{}", std::process::id()));
    fs::create_dir_all(&aside).map_err(at(&aside))?;
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        )
    };
    let project = format!(
        "<project><modelVersion>4.0.0</modelVersion>\
         <groupId>trilby</groupId><artifactId>kafka</artifactId><version>1</version>\
         <dependencies>{}{}</dependencies></project>",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        // Else it says nothing when it fails to start.
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    );
    let pom = aside.join("pom.xml");
    fs::write(&pom, project).map_err(at(&pom))?;
    let lib = aside.join("lib");
    step(&format!("fetch Kafka {VERSION} with Maven (46 MB, once) into {}", jars.display()), || {
        run(Command::new(maven)
            .args(["--batch-mode", "--quiet", "--file"])
            .arg(&pom)
            .args([COPY, "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", lib.display())))
    })?;
    // Another run of this tool may have been faster; its folder is as good.
    let moved = fs::rename(&lib, &jars);
    let _ = fs::remove_dir_all(&aside);
    if jars.is_dir() { Ok(jars) } else { Err(moved.map_err(at(&jars)).err().unwrap_or_default().into()) }
}
