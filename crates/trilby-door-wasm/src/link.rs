//! From a program to something that can be instantiated: imports are checked, then linked, and no others.

use trilby_wasm::{CallError, Engine, LoadError as ProgramError, LoadReason, Program, inspect::Interface};
use wasmtime::component::{HasSelf, InstancePre, Linker};

use crate::{
    guest::Guest,
    report::{Refusal, Report, has_version},
    wit::{trilby::dapr, wasi::logging},
};

/// Why a program is not run as an app. Each message names the program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It cannot be read, is no component, or does not compile.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// It imports what it may not.
    #[error("{name}: imports {}", list(.refusals))]
    Refused {
        /// The program.
        name: String,
        /// What, and what would help. Never empty.
        refusals: Vec<Refusal>,
    },
    /// It exports nothing that could be called.
    #[error(
        "{name}: is no app: an app exports trilby:dapr/service@0.2, wasi:http/incoming-handler@0.2, \
         wasi:http/handler@0.3 or a handler such as trilby:dapr/subscriber@0.2, and this exports {exports}"
    )]
    NoEntry {
        /// The program.
        name: String,
        /// What it does export.
        exports: String,
    },
    /// It cannot be instantiated.
    #[error("{name}: does not start: {reason}")]
    Start {
        /// The program.
        name: String,
        /// What the guest did or ran into.
        reason: CallError,
    },
}

fn list(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Links a component with what it imports.
pub(crate) fn link(engine: &Engine, program: &Program, report: &Report) -> Result<InstancePre<Guest>, LoadError> {
    let name = program.name();
    if !report.refusals.is_empty() {
        return Err(LoadError::Refused { name: name.to_owned(), refusals: report.refusals.clone() });
    }
    let component = program.component()?;
    let linker = engine.linker().map_err(|reason| reason.of(name))?;
    let linked = fill(linker, report).and_then(|linker| linker.instantiate_pre(component));
    Ok(linked.map_err(|error| LoadReason::Link(error).of(name))?)
}

fn fill(mut linker: Linker<Guest>, report: &Report) -> wasmtime::Result<Linker<Guest>> {
    type Own = HasSelf<Guest>;
    let to = &mut linker;
    let mut wasi = Wasi::default();
    for import in &report.surface.imports.interfaces {
        match import.name.as_str() {
            "trilby:dapr/types" => dapr::types::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/events" => dapr::events::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/state" => dapr::state::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/secrets" => dapr::secrets::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/pubsub" => dapr::pubsub::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/bindings" => dapr::bindings::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/configuration" => dapr::configuration::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/lock" => dapr::lock::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/crypto" => dapr::crypto::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/crypto-streams" => dapr::crypto_streams::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/conversation" => dapr::conversation::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/invoke" => dapr::invoke::add_to_linker::<_, Own>(to, |guest| guest)?,
            "trilby:dapr/app" => dapr::app::add_to_linker::<_, Own>(to, |guest| guest)?,
            "wasi:logging/logging" => logging::logging::add_to_linker::<_, Own>(to, |guest| guest)?,
            _ => wasi.note(import),
        }
    }
    wasi.add_to(to)?;
    Ok(linker)
}

/// The parts of WASI that a component uses, each linked as a whole. The checks above keep out what was not granted.
#[derive(Default)]
struct Wasi {
    base: bool,
    http: bool,
    async_base: bool,
    async_http: bool,
}

impl Wasi {
    fn note(&mut self, import: &Interface) {
        let part = match (has_version(import, "0.3"), import.name.starts_with("wasi:http/")) {
            (false, false) => &mut self.base,
            (false, true) => &mut self.http,
            (true, false) => &mut self.async_base,
            (true, true) => &mut self.async_http,
        };
        *part = true;
    }

    fn add_to(&self, linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
        if self.base {
            wasmtime_wasi::p2::add_to_linker_async(linker)?;
        }
        if self.http {
            wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
        }
        if self.async_base {
            wasmtime_wasi::p3::add_to_linker(linker)?;
        }
        if self.async_http {
            wasmtime_wasi_http::p3::add_to_linker(linker)?;
        }
        Ok(())
    }
}
