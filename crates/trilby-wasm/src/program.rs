//! A program: what a Wasm file is found to be, compiled and ready to be linked.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use wasmtime::Module;
use wasmtime::component::Component;

use crate::artifact::{self, OPEN_KEY, Seal};
use crate::engine::{Engine, Started};
use crate::error::{LoadError, LoadReason};
use crate::inspect::Surface;
use crate::source::{FetchLimits, Source};

/// SHA-256 of some content.
pub(crate) type Digest = [u8; 32];

/// One program of an engine, filled by whoever loads it first.
pub(crate) type Slot = OnceCell<Code>;

/// Size from which a program takes so long to optimise that it is worth doing without at first. About 0.2 s.
#[cfg(feature = "compiler")]
const BASELINE_BYTES: usize = 1 << 20;

const COMPONENT_VERSION: u16 = 13;
const MODULE_VERSION: u16 = 1;

/// The two sorts of Wasm file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A component, as WASI 0.2 and later use.
    Component,
    /// A core module, as WASI preview 1 uses.
    Module,
}

impl Kind {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Module => 0,
            Self::Component => 1,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Module),
            1 => Some(Self::Component),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Component => "component",
            Self::Module => "core module",
        })
    }
}

#[derive(Clone)]
pub(crate) enum Code {
    Component(Component),
    Module(Module),
}

#[cfg(feature = "compiler")]
impl Code {
    /// Compiles some Wasm.
    fn new(engine: &wasmtime::Engine, kind: Kind, wasm: &[u8]) -> wasmtime::Result<Self> {
        Ok(match kind {
            Kind::Component => Self::Component(Component::from_binary(engine, wasm)?),
            Kind::Module => Self::Module(Module::from_binary(engine, wasm)?),
        })
    }
}

/// A program that can run, though better code of it may still be to come.
#[derive(Debug)]
pub struct Tiered {
    /// What there is now.
    pub program: Program,
    /// The same with optimised code, if `program` has none.
    pub better: Option<Better>,
}

/// Optimised code in the making: compiled while this is awaited.
pub struct Better {
    engine: Engine,
    name: String,
    wasm: Bytes,
}

/// A loaded program. Programs with the same content share their code within one engine.
#[derive(Clone)]
pub struct Program {
    name: Arc<str>,
    slot: Arc<Slot>,
}

impl Program {
    /// What it was loaded as: a path, an address or a label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which sort of Wasm it is.
    pub fn kind(&self) -> Kind {
        match self.code() {
            Code::Component(_) => Kind::Component,
            Code::Module(_) => Kind::Module,
        }
    }

    /// The component.
    ///
    /// # Errors
    ///
    /// `WrongKind` if it is a core module.
    pub fn component(&self) -> Result<&Component, LoadError> {
        match self.code() {
            Code::Component(component) => Ok(component),
            Code::Module(_) => Err(self.is_not(Kind::Component)),
        }
    }

    /// The core module.
    ///
    /// # Errors
    ///
    /// `WrongKind` if it is a component.
    pub fn module(&self) -> Result<&Module, LoadError> {
        match self.code() {
            Code::Module(module) => Ok(module),
            Code::Component(_) => Err(self.is_not(Kind::Module)),
        }
    }

    /// The wasmtime engine that its code is for.
    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        match self.code() {
            Code::Component(component) => component.engine(),
            Code::Module(module) => module.engine(),
        }
    }

    /// What it imports and exports.
    pub fn surface(&self) -> Surface {
        match self.code() {
            Code::Component(component) => Surface::of_component(component),
            Code::Module(module) => Surface::of_module(module),
        }
    }

    fn code(&self) -> &Code {
        self.slot.get().expect("a program is made from a filled slot")
    }

    fn is_not(&self, wanted: Kind) -> LoadError {
        LoadReason::WrongKind { found: self.kind(), wanted }.of(self.name())
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("name", &self.name).field("kind", &self.kind()).finish()
    }
}

impl Engine {
    /// Loads a program from where it is: Wasm, or a local file that [`precompile`](Self::precompile) made.
    ///
    /// Naming a compiled file is trusting it: its code runs as it is.
    pub async fn load(&self, source: &Source) -> Result<Program, LoadError> {
        let loaded = match source {
            Source::File(path) if starts_compiled(path) => self.map_file(path).await,
            _ => match source.fetch(&FetchLimits::default()).await {
                Ok(bytes) => self.fill(bytes).await,
                Err(reason) => Err(reason),
            },
        };
        self.program(source.to_string(), loaded)
    }

    /// Loads a program from memory. `name` stands for it in errors.
    pub async fn load_bytes(&self, name: &str, wasm: Bytes) -> Result<Program, LoadError> {
        self.program(name.to_owned(), self.fill(wasm).await)
    }

    /// Compiles ahead of time, to a file's content for [`load`](Self::load). Blocks while it compiles.
    ///
    /// The result runs on engines with the same allocator, on machines of the same sort.
    pub fn precompile(&self, name: &str, wasm: &[u8]) -> Result<Vec<u8>, LoadError> {
        let compile = || {
            let kind = identify(wasm)?;
            let started = self.start()?;
            let image = compile(started, kind, wasm)?.1;
            let seal = Seal { kind, target: target(started), source: Sha256::digest(wasm).into() };
            Ok(seal.close(image, &OPEN_KEY))
        };
        compile().map_err(|reason: LoadReason| reason.of(name))
    }

    /// As [`load`](Self::load), but sooner: a big program that no cache holds is first compiled to baseline code, several
    /// times faster, which runs several times slower. [`Better`] is then what makes up for it.
    pub async fn load_tiered(&self, source: &Source) -> Result<Tiered, LoadError> {
        #[cfg(feature = "compiler")]
        if !matches!(source, Source::File(path) if starts_compiled(path)) {
            let name = source.to_string();
            let wasm = match source.fetch(&FetchLimits::default()).await {
                Ok(wasm) => wasm,
                Err(reason) => return Err(reason.of(name)),
            };
            let (slot, is_optimised) = match self.soon(&wasm).await {
                Some(soon) => soon,
                None => (self.fill(wasm.clone()).await.map_err(|reason| reason.of(&name))?, true),
            };
            let program = Program { name: name.as_str().into(), slot };
            let better = (!is_optimised).then(|| Better { engine: self.clone(), name, wasm });
            return Ok(Tiered { program, better });
        }
        Ok(Tiered { program: self.load(source).await?, better: None })
    }

    /// Code of a big program that is there already, or else baseline code; and whether it is optimised.
    #[cfg(feature = "compiler")]
    async fn soon(&self, wasm: &Bytes) -> Option<(Arc<Slot>, bool)> {
        if wasm.len() < BASELINE_BYTES {
            return None;
        }
        let kind = identify(wasm).ok()?;
        let (engine, wasm) = (self.clone(), wasm.clone());
        let find = move || {
            let digest = Sha256::digest(&wasm).into();
            let started = engine.start()?;
            let slot = engine.slot(digest);
            if !slot.initialized()
                && let Some(code) = started.cache.as_ref().and_then(|cache| cache.get(&started.wasmtime, &digest))
            {
                // Fails if somebody else is about to do the same.
                let _ = slot.set(code);
            }
            if slot.initialized() {
                return Ok(Some((slot, true)));
            }
            // Optimised code may do what baseline code cannot, or say better what is wrong.
            let compile = |baseline| on_threads(|| {}, || Code::new(baseline, kind, &wasm).ok());
            let code = started.baseline().and_then(compile);
            Ok(code.map(|code| (Arc::new(Slot::new_with(Some(code))), false)))
        };
        blocking(find).await.ok()?
    }

    fn program(&self, name: String, loaded: Result<Arc<Slot>, LoadReason>) -> Result<Program, LoadError> {
        match loaded {
            Ok(slot) => Ok(Program { name: name.into(), slot }),
            Err(reason) => Err(reason.of(name)),
        }
    }

    async fn fill(&self, wasm: Bytes) -> Result<Arc<Slot>, LoadReason> {
        self.fill_by(wasm, |build| build()).await
    }

    /// Fills the slot of a program by calling what builds its code in `how`, on a thread that may be blocked.
    async fn fill_by(
        &self,
        wasm: Bytes,
        how: impl FnOnce(Build<'_>) -> Result<Code, LoadReason> + Send + 'static,
    ) -> Result<Arc<Slot>, LoadReason> {
        let kind = identify(&wasm)?;
        let digest = Sha256::digest(&wasm).into();
        let slot = self.slot(digest);
        let engine = self.clone();
        slot.get_or_try_init(|| blocking(move || how(&|| build(engine.start()?, kind, &wasm, digest)))).await?;
        Ok(slot)
    }

    async fn map_file(&self, path: &Path) -> Result<Arc<Slot>, LoadReason> {
        let path = path.to_owned();
        let (seal, checksum, path) =
            blocking(move || artifact::verify(&path, &OPEN_KEY).map(|(seal, checksum)| (seal, checksum, path))).await?;
        let slot = self.slot(checksum);
        let engine = self.clone();
        slot.get_or_try_init(|| blocking(move || map(engine.start()?, &seal, &path))).await?;
        Ok(slot)
    }
}

impl Better {
    /// Compiles it on threads of low priority, since the baseline code is in use meanwhile. What is done stays in the
    /// cache, whoever awaits this.
    ///
    /// # Errors
    ///
    /// `Invalid` if optimised code cannot be made of it; the baseline code runs on.
    pub async fn load(self) -> Result<Program, LoadError> {
        let Self { engine, name, wasm } = self;
        let loaded = engine.fill_by(wasm, in_background).await;
        engine.program(name, loaded)
    }
}

impl fmt::Debug for Better {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Better").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What makes the code of a program; it may be called from any thread.
type Build<'a> = &'a (dyn Fn() -> Result<Code, LoadReason> + Sync);

#[cfg(feature = "compiler")]
fn in_background(build: Build<'_>) -> Result<Code, LoadReason> {
    on_threads(crate::lane::lower_priority, build)
}

/// Compiles on threads of its own, each of which does `prepare` first. They end with the work, and what their allocator
/// has is there for the next: memory for compiling a big program is taken once and not for each code of it.
#[cfg(feature = "compiler")]
fn on_threads<T: Send>(prepare: fn(), compile: impl FnOnce() -> T + Send) -> T {
    let name = |_: usize| "wasm-compile".to_owned();
    match rayon::ThreadPoolBuilder::new().thread_name(name).start_handler(move |_| prepare()).build() {
        Ok(pool) => pool.install(compile),
        Err(error) => {
            tracing::debug!(%error, "no threads to compile on");
            compile()
        }
    }
}

#[cfg(not(feature = "compiler"))]
fn in_background(build: Build<'_>) -> Result<Code, LoadReason> {
    build()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadReason> + Send + 'static,
) -> Result<T, LoadReason> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(LoadReason::Engine("the process is shutting down".into())),
    }
}

fn build(started: &Started, kind: Kind, wasm: &[u8], digest: Digest) -> Result<Code, LoadReason> {
    #[cfg(feature = "compiler")]
    if let Some(cache) = &started.cache {
        if let Some(code) = cache.get(&started.wasmtime, &digest) {
            return Ok(code);
        }
        let (code, image) = compile(started, kind, wasm)?;
        cache.put(&Seal { kind, target: target(started), source: digest }, image);
        // From the file the code is shared with other processes, and not memory that only this one has.
        return Ok(cache.get(&started.wasmtime, &digest).unwrap_or(code));
    }
    let _ = digest;
    Ok(compile(started, kind, wasm)?.0)
}

#[cfg(feature = "compiler")]
fn compile(started: &Started, kind: Kind, wasm: &[u8]) -> Result<(Code, Vec<u8>), LoadReason> {
    let code = Code::new(&started.wasmtime, kind, wasm).map_err(LoadReason::Invalid)?;
    let image = match &code {
        Code::Component(component) => component.serialize(),
        Code::Module(module) => module.serialize(),
    };
    Ok((code, image.map_err(LoadReason::Invalid)?))
}

#[cfg(not(feature = "compiler"))]
fn compile(_: &Started, _: Kind, _: &[u8]) -> Result<(Code, Vec<u8>), LoadReason> {
    Err(LoadReason::NoCompiler)
}

fn map(started: &Started, seal: &Seal, path: &Path) -> Result<Code, LoadReason> {
    let wanted = target(started);
    if seal.target != wanted {
        return Err(LoadReason::OtherEngine { found: seal.target.clone(), wanted });
    }
    artifact::map(&started.wasmtime, path, seal.kind).map_err(LoadReason::Incompatible)
}

/// The sort of engine, as far as people tell them apart.
fn target(started: &Started) -> String {
    let allocator = if started.is_pooling { "pooling" } else { "on-demand" };
    format!("wasmtime-48 {}-{} {allocator}", std::env::consts::ARCH, std::env::consts::OS)
}

fn starts_compiled(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && artifact::is_compiled(&start)
}

/// Finds out what some bytes are, as far as that needs no compiler.
fn identify(bytes: &[u8]) -> Result<Kind, LoadReason> {
    const MAGIC: &[u8] = b"\0asm";
    if bytes.is_empty() {
        return Err(LoadReason::Empty);
    }
    if artifact::is_compiled(bytes) {
        return Err(LoadReason::Untrusted);
    }
    if bytes.trim_ascii_start().starts_with(b"(") {
        return Err(LoadReason::Text);
    }
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        let start = &bytes[..bytes.len().min(8)];
        return Err(LoadReason::NotWasm(format!("\"{}\"", start.escape_ascii())));
    }
    let Some(&[v0, v1, l0, l1]) = bytes.get(4..8) else {
        return Err(LoadReason::Truncated(bytes.len()));
    };
    let (kind, known) = match u16::from_le_bytes([l0, l1]) {
        0 => (Kind::Module, MODULE_VERSION),
        1 => (Kind::Component, COMPONENT_VERSION),
        layer => return Err(LoadReason::NotWasm(format!("a WebAssembly header of the unknown layer {layer}"))),
    };
    let found = u16::from_le_bytes([v0, v1]);
    if found != known {
        return Err(LoadReason::Version { kind, found, known });
    }
    if sections_are_whole(&bytes[8..]) { Ok(kind) } else { Err(LoadReason::Truncated(bytes.len())) }
}

/// Whether each section has all the bytes it says it has. Whether they make sense is the compiler's to say.
fn sections_are_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [_, sized @ ..] = rest {
        let mut sized = sized;
        let Some(content) = leb128(&mut sized).and_then(|len| sized.get(len..)) else {
            return false;
        };
        rest = content;
    }
    true
}

fn leb128(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expect: &str) {
        let found = match identify(bytes) {
            Ok(kind) => kind.to_string(),
            Err(reason) => reason.to_string(),
        };
        assert!(found.contains(expect), "{bytes:?}: {found:?} does not say {expect:?}");
    }

    #[test]
    fn bytes_are_called_what_they_are() {
        check(b"", "is empty");
        check(b"\0asm\x01\0\0\0", "core module");
        check(b"\0asm\x0d\0\x01\0", "component");
        check(b"\0asm\x0e\0\x01\0", "component of binary version 14");
        check(b"\0asm\x02\0\0\0", "core module of binary version 2");
        check(b"\0as", "truncated: it ends at byte 3");
        check(b"\0asm\x01\0", "truncated: it ends at byte 6");
        check(b"\0asm\x01\0\0\0\x01\x05\x01", "truncated: it ends at byte 11");
        check(b"\0asm\x01\0\0\0\x01\x80", "truncated");
        check(b"PK\x03\x04", "starts with \"PK\\x03\\x04\"");
        check(b"  (module)", "is WebAssembly text");
        check(b"\x7fELF", "never from an address");
        check(b"<!doctype html>", "is not WebAssembly");
    }
}
