//! The suite over every built-in component: each through the embedded door, and some through every door.
//!
//! What cannot be reached is printed as NOT RUN with the reason; `cargo xtask test --require` makes that a failure.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;
use tokio_postgres::NoTls;
use trilby::{Api, AppSpec, Trilby};
use trilby_conformance::{
    backends::{self, Backend},
    cases::{self, Case},
    clients::{Embedded, Grpc, Http, Wasm},
    suite::{self, Door, Subject},
};

/// The components of each block and the cases that they must pass.
const BLOCKS: [(&[Backend], fn() -> Vec<Case>); 8] = [
    (backends::STATE, cases::state::all),
    (backends::SECRETS, cases::secrets::all),
    (backends::BINDINGS, cases::bindings::all),
    (backends::PUBSUB, cases::pubsub::all),
    (backends::CRYPTO, cases::crypto::all),
    (backends::CONVERSATION, cases::conversation::all),
    (backends::LOCK, cases::lock::all),
    (backends::CONFIGURATION, cases::configuration::all),
];

/// The mirror guest's app id.
const MIRROR: &str = "mirror";

fn main() -> ExitCode {
    let (variable, value) = backends::SECRET_VARIABLE;
    if std::env::var_os(variable).is_none() {
        return again_with(variable, value);
    }
    let arguments = Arguments::from_args();
    let runtime = Arc::new(tokio::runtime::Runtime::new().expect("a runtime"));
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
        runtime.block_on(make_table(&url)).expect("PostgreSQL makes a table");
    }
    if let Ok(url) = std::env::var(backends::NATS) {
        make_stream(url.trim_start_matches("nats://")).expect("NATS makes a stream");
    }
    let reachable = Reachable::find(folder.path());
    let (trilby, api, doors) = runtime.block_on(start(&reachable));
    let mut trials = vec![Trial::test("every_type_in_the_catalog_has_a_backend", every_type_has_a_backend)];
    for (backends, cases) in BLOCKS {
        for backend in backends.iter().filter(|backend| reachable.names.contains(&backend.name)) {
            let subject = Subject {
                component: backend.name.into(),
                label: format!("{}@{}", backend.type_name, backend.version),
                capabilities: capabilities(&api, backend),
                except: backend.except,
            };
            for door in doors.iter().filter(|door| backend.every_door || door.name == "embedded") {
                trials.extend(suite::trials(&runtime, &subject, door, cases()));
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    runtime.block_on(trilby.shutdown());
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
    names: Vec<&'static str>,
}

impl Reachable {
    fn find(folder: &Path) -> Self {
        let mut found = Self { resources: String::new(), names: Vec::new() };
        for backend in BLOCKS.iter().flat_map(|(backends, _)| *backends) {
            match backend.resource(&folder.to_string_lossy(), |name| std::env::var(name).ok()) {
                Ok(resource) => {
                    found.resources += &resource;
                    found.names.push(backend.name);
                }
                Err(reason) => println!("NOT RUN {}: {reason}", backend.type_name),
            }
        }
        found
    }
}

/// Starts one runtime with an app for each door. App ids are new in each run, so that servers that outlive it hold
/// nothing of an earlier one.
async fn start(reachable: &Reachable) -> (Trilby, Api, Vec<Door>) {
    let id = |door: &str| format!("{door}-{}", std::process::id());
    let (http, grpc) = (free_address(), free_address());
    let mut builder = Trilby::builder()
        .resources_text("suite", &*reachable.resources)
        .app(AppSpec::caller(id("embedded")))
        .app(AppSpec::caller(id("http")).http(http))
        .app(AppSpec::caller(id("grpc")).grpc(grpc));
    let mirror = mirror();
    if let Some(path) = &mirror {
        builder = builder.app(AppSpec::wasm(MIRROR, path.to_string_lossy()));
    }
    let trilby = builder.start().await.expect("the runtime starts");
    let api = trilby.api(&id("embedded")).expect("the app was started").clone();
    let mut doors = vec![
        Door { name: "embedded", client: Arc::new(Embedded(api.clone())) },
        Door { name: "http", client: Arc::new(Http::new(http.port()).heard_by(api.clone())) },
        Door { name: "grpc", client: Arc::new(Grpc::new(grpc.port()).heard_by(api.clone())) },
    ];
    if mirror.is_some() {
        doors.push(Door { name: "wasm", client: Arc::new(Wasm::new(api.clone(), MIRROR)) });
    }
    (trilby, api, doors)
}

/// What a component says it can do, as `/v1.0/metadata` has it.
fn capabilities(api: &Api, backend: &Backend) -> Vec<&'static str> {
    let components = &api.metadata.facts().components;
    let component = components.iter().find(|component| component.name == backend.name).expect("it was started");
    component.capabilities.clone()
}

fn every_type_has_a_backend() -> Result<(), Failed> {
    let tested = BLOCKS.iter().flat_map(|(backends, _)| *backends).map(|backend| (backend.type_name, backend.version));
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

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}
