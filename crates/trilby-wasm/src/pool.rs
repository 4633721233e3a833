//! Instances of one app, for guests that serve one call at a time: reused while healthy, replaced when not.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use wasmtime::Store;

use crate::engine::Engine;
use crate::error::CallError;
use crate::lane::Habit;
use crate::limits::{HostState, Limits};
use crate::turns::Turns;

/// How one instance of an app is made.
pub trait Blueprint: Send + Sync + 'static {
    /// What the host keeps for an instance.
    type Data: HostState;
    /// The instance's exports, as bindings give them.
    type Exports: Send + Sync + 'static;

    /// The data of a new instance.
    fn data(&self) -> wasmtime::Result<Self::Data>;

    /// Instantiates into the store, usually by an `InstancePre` that was linked when the app was loaded.
    fn instantiate(
        &self,
        store: &mut Store<Self::Data>,
    ) -> impl Future<Output = wasmtime::Result<Self::Exports>> + Send;
}

/// A guest ready to be called.
pub struct Instance<B: Blueprint> {
    /// Its store.
    pub store: Store<B::Data>,
    /// Its exports.
    pub exports: B::Exports,
    calls: u32,
    idle_since: Instant,
}

/// How long an instance lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// For many calls, one after the other, until it fails or has served `max_calls_per_instance`.
    #[default]
    Reuse,
    /// For one call.
    PerCall,
}

/// What a pool holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instances that exist, busy or idle.
    pub live: u32,
    /// Instances that wait for a call.
    pub idle: u32,
    /// Linear memory of all of them, in bytes of address space that they may touch.
    pub memory_bytes: usize,
    /// Instances made so far.
    pub started: u64,
    /// Calls begun so far.
    pub calls: u64,
}

/// The instances of one app. Cheap to clone; clones share the instances.
pub struct Pool<B: Blueprint>(Arc<Shared<B>>);

struct Shared<B: Blueprint> {
    engine: Engine,
    blueprint: B,
    limits: Limits,
    isolation: Isolation,
    habit: Arc<Habit>,
    turns: Turns,
    idle: Mutex<Idle<B>>,
    live: Arc<AtomicU32>,
    memory: Arc<AtomicUsize>,
    started: AtomicU64,
    calls: AtomicU64,
}

/// Idle instances, the one used last at the end, and who trims them.
struct Idle<B: Blueprint> {
    instances: Vec<Instance<B>>,
    trimmer: Option<AbortHandle>,
}

impl<B: Blueprint> Pool<B> {
    /// A pool without instances.
    pub fn new(engine: Engine, blueprint: B, limits: Limits, isolation: Isolation) -> Self {
        let turns = Turns::new(&limits);
        Self(Arc::new(Shared {
            engine,
            blueprint,
            limits,
            isolation,
            habit: Arc::default(),
            turns,
            idle: Mutex::new(Idle { instances: Vec::new(), trimmer: None }),
            live: Arc::default(),
            memory: Arc::default(),
            started: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        }))
    }

    /// Calls an instance: an idle one, or a new one. Waits for a turn first if all are busy.
    ///
    /// An `Err` of `job` is a failed guest: the instance is thrown away. What the guest answers, good or bad, belongs
    /// in its `Ok`. Dropping the future ends the guest and throws the instance away.
    ///
    /// # Errors
    ///
    /// `Busy`, `QueueFull` without a turn; `Deadline`, `Limit`, `StackOverflow`, `Trap`, `Exit` by the guest;
    /// `Exhausted` by the engine; `Host` for what the host's own functions failed with.
    pub fn call<R, F>(&self, job: F) -> impl Future<Output = Result<R, CallError>> + Send + use<B, R, F>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Instance<B>) -> BoxFuture<'a, wasmtime::Result<R>> + Send + 'static,
    {
        let shared = self.0.clone();
        async move {
            let turn = shared.turns.take().await?;
            shared.calls.fetch_add(1, Ordering::Relaxed);
            let limit = shared.limits.call_timeout;
            let call = Shared::run(shared, turn, job);
            if limit.is_zero() {
                return call.await;
            }
            timeout(limit, call).await.unwrap_or(Err(CallError::Deadline(limit)))
        }
    }

    /// Makes an instance and drops it, so that an app which cannot start fails when it is loaded, and one that is never
    /// called holds none.
    pub async fn check(&self) -> Result<(), CallError> {
        self.call(|_| Box::pin(async { Ok(()) })).await?;
        let made = self.0.idle().instances.pop();
        // Not under the lock: what an instance holds may take a while to let go.
        drop(made);
        Ok(())
    }

    /// What the pool holds now and has done.
    pub fn stats(&self) -> Stats {
        Stats {
            live: self.0.live.load(Ordering::Relaxed),
            idle: u32::try_from(self.0.idle().instances.len()).unwrap_or(u32::MAX),
            memory_bytes: self.0.memory.load(Ordering::Relaxed),
            started: self.0.started.load(Ordering::Relaxed),
            calls: self.0.calls.load(Ordering::Relaxed),
        }
    }

    /// The limits it keeps its guests to.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }
}

impl<B: Blueprint> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B: Blueprint> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limits", &self.0.limits).field("stats", &self.stats()).finish()
    }
}

impl<B: Blueprint> Shared<B> {
    async fn run<R, F>(self: Arc<Self>, turn: OwnedSemaphorePermit, job: F) -> Result<R, CallError>
    where
        R: Send + 'static,
        F: for<'a> FnOnce(&'a mut Instance<B>) -> BoxFuture<'a, wasmtime::Result<R>> + Send + 'static,
    {
        let mut guest = match self.idle().instances.pop() {
            Some(instance) => Guest::Ready(instance),
            None => Guest::New(self.new_store().map_err(|error| CallError::host(&error))?),
        };
        let meter = guest.store().data_mut().meter();
        meter.forgive();
        let pace = meter.pace().clone();
        let habit = self.habit.clone();
        let engine = self.engine.clone();
        let call = async move {
            let mut instance = guest.start(&self).await?;
            let result = job(&mut instance).await;
            let result = result.map_err(|error| CallError::new(error, instance.store.data_mut().meter()));
            if result.is_ok() {
                self.give_back(instance);
            }
            drop(turn);
            result
        };
        engine.run(pace, habit, call).await
    }

    fn new_store(&self) -> wasmtime::Result<Store<B::Data>> {
        let mut store = self.engine.store(self.blueprint.data()?);
        store.data_mut().meter().count_into(self.live.clone(), self.memory.clone());
        self.started.fetch_add(1, Ordering::Relaxed);
        Ok(store)
    }

    fn idle(&self) -> MutexGuard<'_, Idle<B>> {
        self.idle.lock().expect("no code that holds this lock panics")
    }

    fn give_back(self: &Arc<Self>, mut instance: Instance<B>) {
        instance.calls += 1;
        let most = self.limits.max_calls_per_instance;
        if self.isolation == Isolation::PerCall || (most != 0 && instance.calls >= most) {
            return;
        }
        instance.idle_since = Instant::now();
        let mut idle = self.idle();
        idle.instances.push(instance);
        if idle.instances.len() > self.limits.idle_instances as usize && idle.trimmer.is_none() {
            let trimmer = tokio::spawn(trim(Arc::downgrade(self), self.limits.idle_timeout));
            idle.trimmer = Some(trimmer.abort_handle());
        }
    }

    /// Takes out what was idle for too long. Tells when to look again, if there is more to trim later.
    fn take_stale(&self) -> (Vec<Instance<B>>, Option<Instant>) {
        let mut idle = self.idle();
        let excess = idle.instances.len().saturating_sub(self.limits.idle_instances as usize);
        let now = Instant::now();
        let is_stale = |instance: &Instance<B>| now.duration_since(instance.idle_since) >= self.limits.idle_timeout;
        // Those used longest ago stand first.
        let stale = idle.instances.iter().take(excess).take_while(|instance| is_stale(instance)).count();
        let taken: Vec<_> = idle.instances.drain(..stale).collect();
        let next = (stale < excess).then(|| idle.instances[0].idle_since + self.limits.idle_timeout);
        if next.is_none() {
            idle.trimmer = None;
        }
        (taken, next)
    }
}

impl<B: Blueprint> Drop for Shared<B> {
    fn drop(&mut self) {
        if let Some(trimmer) = self.idle().trimmer.take() {
            trimmer.abort();
        }
    }
}

/// Drops idle instances beyond the number to keep. Ends when there are none; the pool starts another when needed.
async fn trim<B: Blueprint>(pool: Weak<Shared<B>>, pause: Duration) {
    let mut next = Instant::now() + pause;
    loop {
        tokio::time::sleep_until(next).await;
        let Some(shared) = pool.upgrade() else { return };
        let (stale, again) = shared.take_stale();
        // Outside of the lock: freeing a guest takes a while.
        drop(stale);
        match again {
            Some(at) => next = at,
            None => return,
        }
    }
}

/// The guest of one call.
enum Guest<B: Blueprint> {
    Ready(Instance<B>),
    New(Store<B::Data>),
}

impl<B: Blueprint> Guest<B> {
    fn store(&mut self) -> &mut Store<B::Data> {
        match self {
            Self::Ready(instance) => &mut instance.store,
            Self::New(store) => store,
        }
    }

    async fn start(self, shared: &Shared<B>) -> Result<Instance<B>, CallError> {
        match self {
            Self::Ready(instance) => Ok(instance),
            Self::New(mut store) => match shared.blueprint.instantiate(&mut store).await {
                Ok(exports) => Ok(Instance { store, exports, calls: 0, idle_since: Instant::now() }),
                Err(error) => Err(CallError::new(error, store.data_mut().meter())),
            },
        }
    }
}
