//! Runs a program from its beginning to its end: a preview 1 command or a component that exports `wasi:cli/run`.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use wasmtime::component::{self, ResourceTable};
use wasmtime::{InstancePre, Linker, Store};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::engine::Engine;
use crate::error::{CallError, LoadError, LoadReason};
use crate::lane::Habit;
use crate::limits::{Exceeded, HostState, Limits, Meter};
use crate::program::{Kind, Program};
use crate::turns::Turns;
use crate::wasi::{Grants, Logs, Output, Stream, Write};

/// A program that is run, each time in an instance of its own.
pub struct Command {
    engine: Engine,
    limits: Limits,
    habit: Arc<Habit>,
    turns: Arc<Turns>,
    linked: RwLock<Arc<Linked>>,
}

struct Linked {
    wasmtime: wasmtime::Engine,
    entry: Entry,
}

enum Entry {
    Module(InstancePre<ModuleState>),
    Component(CommandPre<ComponentState>),
}

/// What one run gets. The default is nothing, and up to 1 MiB of each output is kept.
#[derive(Clone, Debug, Default)]
pub struct Invocation {
    /// What it may use, its arguments among them.
    pub grants: Grants,
    /// What it reads from standard input.
    pub stdin: Bytes,
    /// What becomes of its output.
    pub capture: Capture,
}

/// What becomes of the output of a run.
#[derive(Clone, Debug)]
pub enum Capture {
    /// Kept, up to so many bytes of each stream; the rest is dropped.
    Bytes(usize),
    /// Kept. A program that writes more than so many bytes to standard output is ended; of standard error the first
    /// 64 KiB are kept.
    AtMost(usize),
    /// Logged as it comes.
    Logs(Logs),
}

impl Default for Capture {
    fn default() -> Self {
        Self::Bytes(1 << 20)
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Exit code; 0 is success.
    pub code: i32,
    /// What was kept of its standard output.
    pub stdout: Bytes,
    /// What was kept of its standard error.
    pub stderr: Bytes,
    /// Whether some output was dropped.
    pub is_cut: bool,
}

impl Command {
    /// Links a program with WASI and nothing else.
    ///
    /// # Errors
    ///
    /// `Link` if it imports anything else, or is no command.
    pub fn new(engine: &Engine, program: &Program, limits: Limits) -> Result<Self, LoadError> {
        let linked = RwLock::new(Arc::new(Linked::new(program)?));
        let turns = Arc::new(Turns::new(&limits));
        Ok(Self { engine: engine.clone(), limits, habit: Arc::default(), turns, linked })
    }

    /// Runs the code of `program` from the next run on: [better](crate::Better) code of the same.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new); the code stays as it was.
    pub fn replace(&self, program: &Program) -> Result<(), LoadError> {
        let linked = Arc::new(Linked::new(program)?);
        *self.linked.write().unwrap_or_else(PoisonError::into_inner) = linked;
        Ok(())
    }

    /// Runs it, once it is its turn. Dropping the future ends the guest.
    ///
    /// # Errors
    ///
    /// As for [`Pool::call`](crate::Pool::call); an exit code is none, whatever it is.
    pub async fn run(&self, invocation: Invocation) -> Result<Finished, CallError> {
        let turn = self.turns.take().await?;
        let linked = self.linked.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut wasi = invocation.grants.builder().map_err(|error| CallError::host(&error))?;
        wasi.stdin(MemoryInputPipe::new(invocation.stdin));
        let kept = match invocation.capture {
            Capture::Bytes(limit) => Some(Kept::attach(&mut wasi, Bounded::cut(limit), Bounded::cut(limit))),
            Capture::AtMost(limit) => {
                Some(Kept::attach(&mut wasi, Bounded::ended(limit), Bounded::cut(limit.min(STDERR_BYTES))))
            }
            Capture::Logs(logs) => {
                wasi.stdout(logs.stream(Stream::Stdout)).stderr(logs.stream(Stream::Stderr));
                None
            }
        };
        let code = match &linked.entry {
            Entry::Module(pre) => self.run_module(&linked.wasmtime, pre.clone(), wasi, turn).await,
            Entry::Component(pre) => self.run_component(&linked.wasmtime, pre.clone(), wasi, turn).await,
        }?;
        let finished = Finished { code, ..Finished::default() };
        Ok(match kept {
            Some(kept) => kept.fill(finished),
            None => finished,
        })
    }

    async fn run_module(
        &self,
        wasmtime: &wasmtime::Engine,
        pre: InstancePre<ModuleState>,
        mut wasi: WasiCtxBuilder,
        turn: OwnedSemaphorePermit,
    ) -> Result<i32, CallError> {
        let state = ModuleState { wasi: wasi.build_p1(), meter: Meter::new(&self.limits) };
        self.drive(wasmtime, state, turn, |store| {
            Box::pin(async move {
                let instance = pre.instantiate_async(&mut *store).await?;
                let start = instance.get_typed_func::<(), ()>(&mut *store, START)?;
                start.call_async(store, ()).await?;
                Ok(0)
            })
        })
        .await
    }

    async fn run_component(
        &self,
        wasmtime: &wasmtime::Engine,
        pre: CommandPre<ComponentState>,
        mut wasi: WasiCtxBuilder,
        turn: OwnedSemaphorePermit,
    ) -> Result<i32, CallError> {
        let state =
            ComponentState { wasi: wasi.build(), table: self.limits.resource_table(), meter: Meter::new(&self.limits) };
        self.drive(wasmtime, state, turn, |store| {
            Box::pin(async move {
                let command = pre.instantiate_async(&mut *store).await?;
                let answer = command.wasi_cli_run().call_run(store).await?;
                Ok(i32::from(answer.is_err()))
            })
        })
        .await
    }

    async fn drive<T, F>(
        &self,
        wasmtime: &wasmtime::Engine,
        mut state: T,
        turn: OwnedSemaphorePermit,
        run: F,
    ) -> Result<i32, CallError>
    where
        T: HostState,
        F: for<'a> FnOnce(&'a mut Store<T>) -> BoxFuture<'a, wasmtime::Result<i32>> + Send + 'static,
    {
        let pace = state.meter().pace().clone();
        let store = self.engine.store_for(wasmtime, state);
        let call = async move {
            // Dropped in this order: the turn is over when the instance is gone, in whichever lane that is.
            let (_turn, mut store) = (turn, store);
            match run(&mut store).await {
                Ok(code) => Ok(code),
                Err(error) => match CallError::new(error, store.data_mut().meter()) {
                    CallError::Exit(code) => Ok(code),
                    error => Err(error),
                },
            }
        };
        let call = self.engine.run(pace, self.habit.clone(), call);
        let limit = self.limits.call_timeout;
        if limit.is_zero() {
            return call.await;
        }
        timeout(limit, call).await.unwrap_or(Err(CallError::Deadline(limit)))
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Where a preview 1 command begins.
const START: &str = "_start";

/// Bytes kept of standard error where standard output is what counts.
const STDERR_BYTES: usize = 64 << 10;

impl Linked {
    fn new(program: &Program) -> Result<Self, LoadError> {
        let entry = match program.kind() {
            Kind::Module => link_module(program),
            Kind::Component => link_component(program),
        };
        let entry = entry.map_err(|error| LoadReason::Link(error).of(program.name()))?;
        Ok(Self { wasmtime: program.wasmtime().clone(), entry })
    }
}

fn link_module(program: &Program) -> wasmtime::Result<Entry> {
    let module = program.module()?;
    if module.get_export(START).is_none() {
        return Err(wasmtime::format_err!("it exports no {START}, so it is a library and not a command"));
    }
    let mut linker = Linker::new(program.wasmtime());
    p1::add_to_linker_async(&mut linker, |state: &mut ModuleState| &mut state.wasi)?;
    Ok(Entry::Module(linker.instantiate_pre(module)?))
}

fn link_component(program: &Program) -> wasmtime::Result<Entry> {
    let mut linker = component::Linker::new(program.wasmtime());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    Ok(Entry::Component(CommandPre::new(linker.instantiate_pre(program.component()?)?)?))
}

struct ModuleState {
    wasi: WasiP1Ctx,
    meter: Meter,
}

impl HostState for ModuleState {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

struct ComponentState {
    wasi: WasiCtx,
    table: ResourceTable,
    meter: Meter,
}

impl HostState for ComponentState {
    fn meter(&mut self) -> &mut Meter {
        &mut self.meter
    }
}

impl WasiView for ComponentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// The output of a run that keeps it.
struct Kept {
    stdout: Output<Bounded>,
    stderr: Output<Bounded>,
}

struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    /// Whether the program is ended when there is more, and not just its output cut.
    ends: bool,
    is_cut: bool,
}

impl Bounded {
    fn cut(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, ends: false, is_cut: false }
    }

    fn ended(limit: usize) -> Self {
        Self { ends: true, ..Self::cut(limit) }
    }
}

impl Kept {
    fn attach(wasi: &mut WasiCtxBuilder, stdout: Bounded, stderr: Bounded) -> Self {
        let kept = Self { stdout: Output::new(stdout), stderr: Output::new(stderr) };
        wasi.stdout(kept.stdout.clone()).stderr(kept.stderr.clone());
        kept
    }

    fn fill(&self, finished: Finished) -> Finished {
        let (mut stdout, mut stderr) = (self.stdout.lock(), self.stderr.lock());
        Finished {
            is_cut: stdout.is_cut || stderr.is_cut,
            stdout: std::mem::take(&mut stdout.bytes).into(),
            stderr: std::mem::take(&mut stderr.bytes).into(),
            ..finished
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Exceeded> {
        let fits = bytes.len().min(self.limit - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..fits]);
        self.is_cut |= fits < bytes.len();
        if self.ends && self.is_cut { Err(Exceeded::Output { limit: self.limit }) } else { Ok(()) }
    }
}
