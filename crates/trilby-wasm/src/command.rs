//! Runs a program from its beginning to its end: a preview 1 command or a component that exports `wasi:cli/run`.

mod draft;
mod kept;
mod link;
mod outgoing;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use wasmtime::{Extern, InstancePre, ModuleExport, Store};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi_http::WasiHttpCtx;

use self::draft::Draft;
use self::kept::{Bounded, Kept};
use self::link::{ComponentState, Entry, Linked, ModuleState};
use self::outgoing::{Client, Outgoing};
use crate::engine::Engine;
use crate::error::{CallError, LoadError};
use crate::lane::Habit;
use crate::limits::{HostState, Limits, Meter};
use crate::program::Program;
use crate::turns::Turns;
use crate::wasi::{Grants, Logs, Stream};

/// A program that is run, each time in an instance of its own.
pub struct Command {
    engine: Engine,
    limits: Limits,
    habit: Arc<Habit>,
    turns: Arc<Turns>,
    /// `None` if it does not speak HTTP.
    client: Option<Arc<Client>>,
    linked: RwLock<Arc<Linked>>,
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
    /// Links a program with WASI and nothing else: `wasi:http` of 0.2, and for modules the draft of it that Dapr has.
    ///
    /// # Errors
    ///
    /// `Link` if it imports anything else, or is no command.
    pub fn new(engine: &Engine, program: &Program, limits: Limits) -> Result<Self, LoadError> {
        let linked = Linked::new(program)?;
        let client = linked.speaks_http.then(Client::new).transpose().map_err(|reason| reason.of(program.name()))?;
        Ok(Self {
            engine: engine.clone(),
            turns: Arc::new(Turns::new(&limits)),
            limits,
            habit: Arc::default(),
            client: client.map(Arc::new),
            linked: RwLock::new(Arc::new(linked)),
        })
    }

    /// Whether it imports what it takes to send HTTP requests. Which hosts it may send them to is a grant.
    pub fn speaks_http(&self) -> bool {
        self.client.is_some()
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
        let outgoing = Outgoing { client: self.client.clone(), hosts: invocation.grants.hosts };
        let wasmtime = &linked.wasmtime;
        let code = match &linked.entry {
            Entry::Module { pre, start } => self.run_module(wasmtime, pre.clone(), *start, wasi, outgoing, turn).await,
            Entry::Component(pre) => self.run_component(wasmtime, pre.clone(), wasi, outgoing, turn).await,
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
        start: ModuleExport,
        mut wasi: WasiCtxBuilder,
        outgoing: Outgoing,
        turn: OwnedSemaphorePermit,
    ) -> Result<i32, CallError> {
        let draft = self.speaks_http().then(|| Box::new(Draft::new(outgoing, &self.limits)));
        let state = ModuleState { wasi: wasi.build_p1(), draft, meter: Meter::new(&self.limits) };
        self.drive(wasmtime, state, turn, move |store| {
            Box::pin(async move {
                let instance = pre.instantiate_async(&mut *store).await?;
                let start = instance.get_module_export(&mut *store, &start).and_then(Extern::into_func);
                let start = start.ok_or_else(|| wasmtime::format_err!("its start is no function"))?;
                start.typed::<(), ()>(&mut *store)?.call_async(store, ()).await?;
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
        outgoing: Outgoing,
        turn: OwnedSemaphorePermit,
    ) -> Result<i32, CallError> {
        let state = ComponentState {
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outgoing,
            table: self.limits.resource_table(),
            meter: Meter::new(&self.limits),
        };
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

/// Bytes kept of standard error where standard output is what counts.
const STDERR_BYTES: usize = 64 << 10;
