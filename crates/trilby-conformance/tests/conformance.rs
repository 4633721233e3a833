//! The suite over every built-in component: each through the embedded door, and some through every door.
//!
//! What cannot be reached is printed as NOT RUN with the reason; `cargo xtask test --require` makes that a failure.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::Arc,
};

use libtest_mimic::{Arguments, Failed, Trial};
use trilby::{Api, AppSpec, Trilby};
use trilby_conformance::{
    backends::{self, Backend},
    cases,
    clients::{Embedded, Grpc, Http, Wasm},
    suite::{self, Door, Subject},
};

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
    let reachable = Reachable::find(folder.path());
    let (trilby, api, doors) = runtime.block_on(start(&reachable));
    let mut trials = vec![Trial::test("every_type_in_the_catalog_has_a_backend", every_type_has_a_backend)];
    for (backends, cases) in
        [(backends::STATE, cases::state::all as fn() -> _), (backends::SECRETS, cases::secrets::all)]
    {
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

/// The components that can be tested here.
struct Reachable {
    resources: String,
    names: Vec<&'static str>,
}

impl Reachable {
    fn find(folder: &Path) -> Self {
        let mut found = Self { resources: String::new(), names: Vec::new() };
        for backend in backends::STATE.iter().chain(backends::SECRETS) {
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
        Door { name: "http", client: Arc::new(Http::new(http.port())) },
        Door { name: "grpc", client: Arc::new(Grpc::new(grpc.port())) },
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
    let known: Vec<_> =
        backends::STATE.iter().chain(backends::SECRETS).map(|backend| (backend.type_name, backend.version)).collect();
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
