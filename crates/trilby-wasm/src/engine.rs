//! The engine: wasmtime set up for many small guests, started when first used.

mod settings;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;

use wasmtime::component::Linker;
use wasmtime::{Store, UpdateDeadline};

use crate::error::LoadReason;
use crate::lane::{Habit, Pace, Run, SlowLane};
use crate::limits::HostState;
use crate::program::{Digest, Slot};
use crate::ticker::Ticker;

/// How memory for instances is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocator {
    /// Pooling where the system grants the address space, on demand elsewhere.
    #[default]
    Auto,
    /// Slots reserved once, as addresses only: instances start several times faster, and compiled code needs no bounds
    /// checks. Takes about 4 GiB of address space per instance.
    Pooling,
    /// Memory mapped when an instance starts. Works in any address space; compiled code checks bounds.
    OnDemand,
}

/// How an [`Engine`] is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Default [`Allocator::Auto`].
    pub allocator: Allocator,
    /// Folder for compiled code, made if it is not there. `None` compiles anew in each process. Default `None`.
    pub cache_dir: Option<PathBuf>,
    /// Instances that may live at a time, over all apps; only the pooling allocator has such a limit. Default 4,096.
    pub max_instances: u32,
    /// Threads for guests that keep a processor busy. Default: as many as there are processors.
    pub slow_threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allocator: Allocator::default(),
            cache_dir: None,
            max_instances: 4096,
            slow_threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Runs guests. Cheap to make and to clone; threads and address space are taken when the first program is loaded.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    started: OnceLock<Result<Started, String>>,
    programs: Mutex<HashMap<Digest, Weak<Slot>>>,
}

/// What exists once the engine is in use. Dropped in this order: guests in the slow lane end while the clock still runs.
pub(crate) struct Started {
    pub(crate) slow_lane: SlowLane,
    pub(crate) ticker: Ticker,
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) is_pooling: bool,
    #[cfg(feature = "compiler")]
    pub(crate) cache: Option<crate::cache::Cache>,
    /// For code that is compiled quickly; `None` where the machine has no such compiler.
    #[cfg(feature = "compiler")]
    baseline: OnceLock<Option<wasmtime::Engine>>,
}

impl Engine {
    /// An engine that starts when it is first used.
    pub fn new(options: Options) -> Self {
        let inner = Inner { options, started: OnceLock::new(), programs: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// The wasmtime engine, for linkers and bindings.
    ///
    /// # Errors
    ///
    /// `Engine` if this machine cannot run one; the reason stays the same for the life of the engine.
    pub fn wasmtime(&self) -> Result<&wasmtime::Engine, LoadReason> {
        Ok(&self.start()?.wasmtime)
    }

    /// Whether instances come from a pool; see [`Allocator`].
    pub fn is_pooling(&self) -> Result<bool, LoadReason> {
        Ok(self.start()?.is_pooling)
    }

    /// An empty linker of this engine.
    pub fn linker<T: 'static>(&self) -> Result<Linker<T>, LoadReason> {
        Ok(Linker::new(self.wasmtime()?))
    }

    /// A store whose guest keeps to the limits of its meter and gives up its turn when that is over.
    ///
    /// Run what it does with [`run`](Self::run): outside of it nothing keeps the clock ticking that ends its turns.
    ///
    /// # Panics
    ///
    /// If the engine cannot start; no program could have been loaded then.
    pub fn store<T: HostState>(&self, data: T) -> Store<T> {
        self.store_for(&self.started().wasmtime, data)
    }

    /// As [`store`](Self::store), for code of either of the two wasmtime engines.
    pub(crate) fn store_for<T: HostState>(&self, wasmtime: &wasmtime::Engine, mut data: T) -> Store<T> {
        let started = self.started();
        let pace = data.meter().pace().clone();
        pace.set_clock(started.ticker.counter());

        let mut store = Store::new(wasmtime, data);
        store.limiter(|data| data.meter());
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            Ok(if pace.turn_is_over() { UpdateDeadline::Yield(1) } else { UpdateDeadline::Continue(1) })
        });
        store
    }

    /// Runs a guest call on this thread, or in the slow lane if it turns out to keep a thread busy; see [`crate::lane`].
    ///
    /// `pace` is that of the store which the call runs in. Dropping the result ends the guest.
    pub fn run<T: Send + 'static>(
        &self,
        pace: Arc<Pace>,
        habit: Arc<Habit>,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Run<T> {
        Run::new(self.clone(), pace, habit, Box::pin(call))
    }

    /// Where a program with this content is, or will be.
    pub(crate) fn slot(&self, digest: Digest) -> Arc<Slot> {
        let mut programs = self.inner.programs.lock().expect("no code that holds this lock panics");
        if let Some(slot) = programs.get(&digest).and_then(Weak::upgrade) {
            return slot;
        }
        programs.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot::new());
        programs.insert(digest, Arc::downgrade(&slot));
        slot
    }

    /// Starts the engine if it is not.
    pub(crate) fn start(&self) -> Result<&Started, LoadReason> {
        let started = self.inner.started.get_or_init(|| Started::new(&self.inner.options));
        started.as_ref().map_err(|reason| LoadReason::Engine(reason.clone()))
    }

    /// The started engine, for what only a loaded program can lead to.
    pub(crate) fn started(&self) -> &Started {
        self.start().expect("whoever has a store or a call has loaded a program, which started the engine")
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let started = self.inner.started.get().is_some();
        f.debug_struct("Engine").field("options", &self.inner.options).field("started", &started).finish()
    }
}

impl Started {
    fn new(options: &Options) -> Result<Self, String> {
        let (wasmtime, is_pooling) = Self::allocate(options).map_err(|error| format!("{error:#}"))?;
        let ticker = Ticker::start(wasmtime.clone()).map_err(|error| format!("no thread for its clock: {error}"))?;
        tracing::debug!(is_pooling, max_instances = options.max_instances, "wasm engine started");
        Ok(Self {
            slow_lane: SlowLane::new(options.slow_threads),
            ticker,
            #[cfg(feature = "compiler")]
            cache: options.cache_dir.as_deref().and_then(|dir| crate::cache::Cache::open(dir, &wasmtime)),
            #[cfg(feature = "compiler")]
            baseline: OnceLock::new(),
            wasmtime,
            is_pooling,
        })
    }

    /// The engine for baseline code, made when it is first asked for.
    #[cfg(feature = "compiler")]
    pub(crate) fn baseline(&self) -> Option<&wasmtime::Engine> {
        let made = self.baseline.get_or_init(|| {
            let engine = wasmtime::Engine::new(&settings::baseline(self.is_pooling));
            let engine = engine.inspect_err(|error| tracing::debug!(%error, "no baseline compiler")).ok()?;
            self.ticker.add(engine.clone());
            Some(engine)
        });
        made.as_ref()
    }

    fn allocate(options: &Options) -> wasmtime::Result<(wasmtime::Engine, bool)> {
        let pooling = || wasmtime::Engine::new(&settings::pooling(options.max_instances));
        let on_demand = || wasmtime::Engine::new(&settings::on_demand());
        match options.allocator {
            Allocator::Pooling => Ok((pooling()?, true)),
            Allocator::OnDemand => Ok((on_demand()?, false)),
            // The pool reserves its addresses at once, so trying is the test.
            Allocator::Auto => pooling().map(|engine| (engine, true)).or_else(|error| {
                tracing::info!(
                    reason = format!("{error:#}"),
                    "no address space for a pool, instances are made on demand"
                );
                Ok((on_demand()?, false))
            }),
        }
    }
}
