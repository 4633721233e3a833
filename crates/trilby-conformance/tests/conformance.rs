//! The suite over every built-in component: each through the embedded door, and some through every door.
//!
//! What cannot be reached is printed as NOT RUN with the reason; `cargo xtask test --require` makes that a failure.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;
use tokio_postgres::NoTls;
use trilby::Trilby;
use trilby_conformance::{
    backends::{self, Backend},
    cases,
    harness::{EMBEDDED, Harness},
};

/// The components of each block.
const BLOCKS: [&[Backend]; 8] = [
    backends::STATE,
    backends::SECRETS,
    backends::BINDINGS,
    backends::PUBSUB,
    backends::CRYPTO,
    backends::CONVERSATION,
    backends::LOCK,
    backends::CONFIGURATION,
];

fn main() -> ExitCode {
    let (variable, value) = backends::SECRET_VARIABLE;
    if std::env::var_os(variable).is_none() {
        return again_with(variable, value);
    }
    let arguments = Arguments::from_args();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("secrets.json"), r#"{"plain": "p"}"#).expect("a file");
    let (key, text) = backends::KEY_FILE;
    std::fs::create_dir(folder.path().join("keys")).expect("a folder");
    std::fs::write(folder.path().join("keys").join(key), text).expect("a file");
    let program = wat::parse_str(backends::PROGRAM).expect("its own text is valid");
    std::fs::write(folder.path().join("tool.wasm"), program).expect("a file");
    let settings = json!({ backends::FIXED.key: backends::FIXED.value }).to_string();
    std::fs::write(folder.path().join("settings.json"), settings).expect("a file");
    std::fs::create_dir(folder.path().join("files")).expect("a folder");
    std::fs::write(folder.path().join("files").join(backends::CHANGING_FILE.1), "{}").expect("a file");
    if let Ok(url) = std::env::var(backends::POSTGRES) {
        make_table(&url).expect("PostgreSQL makes a table");
    }
    if let Ok(url) = std::env::var(backends::NATS) {
        make_stream(url.trim_start_matches("nats://")).expect("NATS makes a stream");
    }
    let reachable = Reachable::find(folder.path());
    let builder = Trilby::builder().resources_text("suite", &*reachable.resources);
    let harness = Harness::start(builder, mirror().as_deref()).expect("the runtime starts");
    let mut trials = vec![Trial::test("every_type_in_the_catalog_has_a_backend", every_type_has_a_backend)];
    for backend in reachable.backends {
        trials.extend(harness.trials(backend.name, backend.except, |door| backend.every_door || door == EMBEDDED));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    harness.stop();
    conclusion.exit_code()
}

/// Runs this program with an environment variable, which a process cannot safely set for itself.
fn again_with(variable: &str, value: &str) -> ExitCode {
    let program = std::env::current_exe().expect("this program has a path");
    let ended = Command::new(program).args(std::env::args_os().skip(1)).env(variable, value).status();
    let code = ended.expect("it starts").code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Makes the table that holds configuration.
#[tokio::main]
async fn make_table(url: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let made = client.batch_execute(backends::TABLE).await;
    connection.abort();
    made
}

/// Makes a stream in NATS that keeps the topics of the suite, unless there is one.
fn make_stream(address: &str) -> std::io::Result<()> {
    let stream = cases::pubsub::TOPICS;
    let config = format!(r#"{{"name":"{stream}","subjects":["{stream}.>"],"storage":"memory"}}"#);
    let mut server = BufReader::new(TcpStream::connect(address)?);
    let length = config.len();
    write!(
        server.get_mut(),
        "CONNECT {{}}\r\nSUB reply 1\r\nPUB $JS.API.STREAM.CREATE.{stream} reply {length}\r\n{config}\r\n"
    )?;
    let mut line = String::new();
    while !line.contains("stream_create_response") {
        line.clear();
        if server.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The components that can be tested here.
struct Reachable {
    resources: String,
    backends: Vec<&'static Backend>,
}

impl Reachable {
    fn find(folder: &Path) -> Self {
        let mut found = Self { resources: String::new(), backends: Vec::new() };
        for backend in BLOCKS.into_iter().flatten() {
            match backend.resource(&folder.to_string_lossy(), |name| std::env::var(name).ok()) {
                Ok(resource) => {
                    found.resources += &resource;
                    found.backends.push(backend);
                }
                Err(reason) => println!("NOT RUN {}: {reason}", backend.type_name),
            }
        }
        found
    }
}

fn every_type_has_a_backend() -> Result<(), Failed> {
    let tested = BLOCKS.into_iter().flatten().map(|backend| (backend.type_name, backend.version));
    let known: Vec<_> = tested.chain(backends::TESTED_APART.iter().copied()).collect();
    let missing = trilby::builtins().entries().find(|entry| {
        !known.contains(&(entry.type_name, entry.version)) && !entry.about.starts_with("Another name of")
    });
    match missing {
        None => Ok(()),
        Some(entry) => Err(format!("{}/{} has no entry in src/backends.rs", entry.type_name, entry.version).into()),
    }
}

/// The mirror guest, which stands for a Wasm app.
fn mirror() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/wasm");
    let folder = std::env::var_os("TRILBY_TEST_GUESTS").map_or(root, PathBuf::from);
    let path = folder.join("mirror.wasm");
    if path.exists() {
        return Some(path);
    }
    println!("NOT RUN wasm door: {} is missing; run `cargo xtask guests`", path.display());
    None
}
