//! `bindings.wasm`: runs a WASI program for each call.
//!
//! Standard input is the call's data, standard output the answer. The program may be a module of preview 1 or a component
//! of WASI 0.2, and comes from a file, an address or an OCI registry. It sees its arguments and variables, may send HTTP
//! requests if it imports what that takes, and sees nothing else: no file, no socket. One that is big is compiled twice:
//! in a hurry, to be ready within Dapr's five seconds, and behind that well.

use std::{fmt::Write as _, sync::Arc, thread, time::Duration};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::task::AbortHandle;
use trilby_component::{
    ComponentError, ErrorKind, OpenRequest, Result,
    binding::{Binding, InvokeError, InvokeRequest, InvokeResponse, OutputBinding},
    properties::duration,
};
use trilby_wasm::{
    AllowedHosts, Better, CallError, Capture, Command, Engine, Finished, Grants, HostPattern, Invocation, Limits,
    LoadError, LoadReason, Source,
};

use crate::byte_size;

/// How much of standard error is told when a program fails: its end, where the reason mostly is.
const TOLD_BYTES: usize = 2 << 10;

/// Whatever can be reached by HTTP; a host without a scheme would allow sockets too.
const ALL_HOSTS: &str = "http://*,https://*";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    /// Where the program is: `file://`, `http://`, `https://` or `oci://`. Required.
    url: String,
    /// Whether clocks stand still between two looks and random numbers are always the same. Default: false.
    strict_sandbox: bool,
    /// Arguments of calls that bring none, separated by commas. Default: none.
    args: String,
    /// Variables that the program sees, `NAME=VALUE` separated by commas. Default: none.
    env: String,
    /// Hosts that a program which speaks `wasi:http` may send requests to, separated by commas: `example.com`,
    /// `https://*.example.com`, `10.0.0.7:8080`. Default: all, as in Dapr.
    allowed_hosts: String,
    /// The most memory of one run. Default: 256 MiB.
    #[serde(deserialize_with = "byte_size::deserialize")]
    memory: usize,
    /// The most that a run may write; one that writes more is ended. Default: 16 MiB.
    #[serde(deserialize_with = "byte_size::deserialize")]
    max_output: usize,
    /// Longest time for one run; 0 means that it may take as long as its caller waits. Default: 5 min.
    #[serde(with = "duration")]
    call_timeout: Duration,
    /// Runs at a time. Default: four per processor.
    max_concurrency: u32,
    /// Calls that may wait for their turn. Default: 1,024.
    max_queue: u32,
    /// Longest wait for a turn. Default: 30 s.
    #[serde(with = "duration")]
    max_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            url: String::new(),
            strict_sandbox: false,
            args: String::new(),
            env: String::new(),
            allowed_hosts: ALL_HOSTS.to_owned(),
            memory: 256 << 20,
            max_output: 16 << 20,
            call_timeout: Duration::from_secs(300),
            max_concurrency: u32::try_from(processors).unwrap_or(1).saturating_mul(4),
            max_queue: 1024,
            max_wait: Duration::from_secs(30),
        }
    }
}

impl Config {
    fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.memory,
            call_timeout: self.call_timeout,
            max_concurrency: self.max_concurrency,
            max_queue: self.max_queue,
            max_wait: self.max_wait,
            ..Limits::default()
        }
    }
}

/// Loads the program into `engine`, which other components and apps may share.
///
/// # Errors
/// `InvalidMetadata` if there is no such program, or it is none that this engine can run.
pub async fn open(engine: Engine, request: OpenRequest) -> Result<Arc<Binding>> {
    let config: Config = request.properties.parse().map_err(|error| unparsed(&error))?;
    let source = source(&config.url)?;
    let loaded = engine.load_tiered(&source).await.map_err(unloaded)?;
    let command = Arc::new(Command::new(&engine, &loaded.program, config.limits()).map_err(unloaded)?);
    let mut grants = Grants {
        env: variables(&config.env)?,
        args: vec![source.program_name()],
        deterministic: config.strict_sandbox,
        ..Grants::default()
    };
    let hosts = hosts(&config.allowed_hosts)?;
    if command.speaks_http() {
        if config.strict_sandbox {
            return Err(ComponentError::metadata("can not instantiate wasi-http with strict sandbox"));
        }
        grants.hosts = Arc::new(hosts);
    }
    let improving = loaded.better.map(|better| improve(Arc::clone(&command), better, request.name));
    let output = Wasm { command, grants, args: config.args, max_output: config.max_output, _improving: improving };
    Ok(Arc::new(Binding { input: None, output: Some(Arc::new(output)) }))
}

/// Compiles the better code, and runs that from then on.
fn improve(command: Arc<Command>, better: Better, component: String) -> Improving {
    let work = async move {
        match better.load().await.and_then(|program| command.replace(&program)) {
            Ok(()) => tracing::debug!(component, "program is optimised"),
            Err(error) => tracing::warn!(component, %error, "program is not optimised and runs on as it is"),
        }
    };
    Improving(tokio::spawn(work).abort_handle())
}

/// The work on better code, which ends with the binding.
struct Improving(AbortHandle);

impl Drop for Improving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Wasm {
    command: Arc<Command>,
    /// What every run gets; of the arguments the program's name.
    grants: Grants,
    args: String,
    max_output: usize,
    /// Held so that it ends with the binding.
    _improving: Option<Improving>,
}

#[async_trait]
impl OutputBinding for Wasm {
    fn operations(&self) -> &[&'static str] {
        &["execute"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        let mut grants = self.grants.clone();
        let args = request.metadata.get("args").unwrap_or(&self.args);
        if !args.is_empty() {
            grants.args.extend(args.split(',').map(str::to_owned));
        }
        if let Some(env) = request.metadata.get("env") {
            let own = variables(env)?;
            grants.env.retain(|(name, _)| own.iter().all(|(other, _)| other != name));
            grants.env.extend(own);
        }
        let invocation = Invocation { grants, stdin: request.data.clone(), capture: Capture::AtMost(self.max_output) };

        let finished = self.command.run(invocation).await.map_err(not_run)?;

        if finished.code != 0 {
            return Err(failed(&finished).into());
        }
        Ok(InvokeResponse { data: Some(finished.stdout), ..InvokeResponse::default() })
    }
}

/// Dapr's scheme check comes first: a path without one is not taken for a file.
fn source(url: &str) -> Result<Source> {
    if url.is_empty() {
        return Err(unparsed(&"missing url"));
    }
    if let Some(path) = url.strip_prefix("file://") {
        // As it stands there: Dapr decodes nothing.
        return Ok(Source::File(path.into()));
    }
    match url.split_once(':') {
        None => Err(unparsed(&format_args!("invalid URL: {url}"))),
        Some(("http" | "https" | "oci", rest)) if rest.starts_with("//") => {
            Source::parse(url).map_err(|error| unparsed(&error))
        }
        Some(("file" | "http" | "https" | "oci", _)) => Err(unparsed(&format_args!("invalid URL: {url}"))),
        Some((scheme, _)) => {
            Err(unparsed(&format_args!("unsupported URL scheme: {scheme}; use file://, http://, https:// or oci://")))
        }
    }
}

fn hosts(text: &str) -> Result<AllowedHosts> {
    let host = |text: &str| text.trim().parse::<HostPattern>().map_err(|error| unparsed(&error));
    text.split(',').filter(|part| !part.trim().is_empty()).map(host).collect()
}

fn variables(text: &str) -> Result<Vec<(String, String)>> {
    let variable = |text: &str| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(ComponentError::request(format!("metadata env: {text:?} is not NAME=VALUE"))),
    };
    text.split(',').filter(|part| !part.is_empty()).map(variable).collect()
}

fn unparsed(reason: &dyn std::fmt::Display) -> ComponentError {
    ComponentError::metadata(format!("wasm: failed to parse metadata: {reason}"))
}

fn unloaded(error: LoadError) -> ComponentError {
    match error.reason {
        LoadReason::NotFound
        | LoadReason::Read(_)
        | LoadReason::Address(_)
        | LoadReason::Fetch(_)
        | LoadReason::Status(_)
        | LoadReason::Redirects(_)
        | LoadReason::Timeout(_)
        | LoadReason::TooLarge(_)
        | LoadReason::Artifact(_) => unparsed(&error),
        _ => ComponentError::metadata(format!("wasm: error compiling binary: {error}")),
    }
}

/// A program that came to its end, and says by its exit code that it failed.
fn failed(finished: &Finished) -> ComponentError {
    let mut message = format!("module closed with exit_code({})", finished.code.cast_unsigned());
    let text = String::from_utf8_lossy(&finished.stderr);
    let text = text.trim();
    if !text.is_empty() {
        let end = &text[text.ceil_char_boundary(text.len().saturating_sub(TOLD_BYTES))..];
        let _ = write!(message, ": {end}");
    }
    ComponentError::new(ErrorKind::Internal, message)
}

/// A program that did not come to its end.
fn not_run(error: CallError) -> ComponentError {
    let kind = match error {
        CallError::Deadline(_) => ErrorKind::Timeout,
        CallError::Busy { .. } | CallError::QueueFull { .. } | CallError::Exhausted(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    ComponentError::new(kind, error.to_string()).with_source(error)
}

#[cfg(test)]
mod tests;
