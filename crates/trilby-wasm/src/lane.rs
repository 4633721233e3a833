//! Fairness: guests run where their caller runs, until one keeps a thread for too long.
//!
//! A guest call is a future, polled on the worker thread of whoever awaits it: handing it to another thread would cost
//! more than most calls take. The store of each guest gives up its turn after one to two ticks of running time, so that
//! even a guest that spins lets others and the I/O of that thread in. A call that uses up [`PATIENCE`] turns is moved,
//! in the middle of what it does, to the slow lane: a few threads of low priority beside the caller's, made when first
//! needed. Its timers and sockets stay with the caller's runtime, whose context the slow lane enters for each turn.
//!
//! [`Habit`] remembers it per app: after a call was moved, the next ones begin in the slow lane until enough of them
//! have been quick. So an app that only ever spins costs the fast threads a few turns, not a few turns per call.
//!
//! Low priority is the `nice` value 10 on Unix. Where it cannot be set the slow lane is merely separate.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::ticker::TURN_TICKS;

/// Turns a call may use up before it is moved to the slow lane.
pub const PATIENCE: u32 = 2;

/// Calls in a row that must be quick before an app's calls begin on the fast threads again.
const PROBATION: u32 = 16;

/// How long a guest has been running, shared by its store and whoever polls it.
#[derive(Debug, Default)]
pub struct Pace {
    clock: OnceLock<Arc<AtomicU64>>,
    turn_began: AtomicU64,
    turns_used_up: AtomicU32,
}

impl Pace {
    /// Sets the tick counter to measure by. Later calls change nothing: a store has one engine.
    pub(crate) fn set_clock(&self, clock: Arc<AtomicU64>) {
        let _ = self.clock.set(clock);
    }

    /// Asked by the store at each tick while its guest runs: is the turn over?
    pub(crate) fn turn_is_over(&self) -> bool {
        let now = self.clock.get().map_or(0, |clock| clock.load(Ordering::Relaxed));
        let over = now.wrapping_sub(self.turn_began.load(Ordering::Relaxed)) >= TURN_TICKS;
        if over {
            self.turns_used_up.fetch_add(1, Ordering::Relaxed);
        }
        over
    }

    fn begin_call(&self) {
        self.turns_used_up.store(0, Ordering::Relaxed);
    }

    fn begin_turn(&self, now: u64) {
        self.turn_began.store(now, Ordering::Relaxed);
    }

    fn turns_used_up(&self) -> u32 {
        self.turns_used_up.load(Ordering::Relaxed)
    }
}

/// What an app's calls have been like: whether they begin in the slow lane. One per app.
#[derive(Debug, Default)]
pub struct Habit {
    probation: AtomicU32,
}

impl Habit {
    fn is_slow(&self) -> bool {
        self.probation.load(Ordering::Relaxed) > 0
    }

    fn note_slow(&self) {
        self.probation.store(PROBATION, Ordering::Relaxed);
    }

    fn note_quick(&self) {
        // Racing calls may count one for two; the number is a matter of taste anyway.
        let left = self.probation.load(Ordering::Relaxed);
        self.probation.store(left.saturating_sub(1), Ordering::Relaxed);
    }
}

/// The threads of the slow lane.
pub(crate) struct SlowLane {
    threads: usize,
    runtime: OnceLock<Runtime>,
}

impl SlowLane {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, runtime: OnceLock::new() }
    }

    fn spawn<T: Send + 'static>(&self, guest: Visiting<T>) -> JoinHandle<T> {
        self.runtime.get_or_init(|| self.start()).spawn(guest)
    }

    fn start(&self) -> Runtime {
        Builder::new_multi_thread()
            .worker_threads(self.threads.max(1))
            .thread_name("wasm-slow")
            .on_thread_start(lower_priority)
            .build()
            .expect("threads can be started: the process already runs an async runtime")
    }
}

impl Drop for SlowLane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not a plain drop: that would block, which async code may not do. Guests end at their next tick.
            runtime.shutdown_background();
        }
    }
}

/// Gives this thread a low priority, for good.
pub(crate) fn lower_priority() {
    #[cfg(unix)]
    if let Err(error) = rustix::process::nice(10) {
        tracing::debug!(%error, "a thread for long work runs at normal priority");
    }
}

/// A guest call under way. Dropping it drops the guest, in whichever lane it is.
#[must_use = "a call runs only while it is awaited"]
pub struct Run<T> {
    engine: Engine,
    pace: Arc<Pace>,
    habit: Arc<Habit>,
    lane: Lane<T>,
}

enum Lane<T> {
    Fast(BoxFuture<'static, T>),
    Slow(JoinHandle<T>),
    Finished,
}

impl<T: Send + 'static> Run<T> {
    pub(crate) fn new(engine: Engine, pace: Arc<Pace>, habit: Arc<Habit>, call: BoxFuture<'static, T>) -> Self {
        pace.begin_call();
        let mut run = Self { engine, pace, habit, lane: Lane::Finished };
        run.lane = if run.habit.is_slow() { run.slow(call) } else { Lane::Fast(call) };
        run
    }

    fn slow(&self, call: BoxFuture<'static, T>) -> Lane<T> {
        let guest = Visiting {
            engine: self.engine.clone(),
            pace: self.pace.clone(),
            home: Handle::current(),
            call: Some(call),
        };
        Lane::Slow(self.engine.started().slow_lane.spawn(guest))
    }
}

impl<T: Send + 'static> Future for Run<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        if let Lane::Fast(call) = &mut this.lane {
            if let Poll::Ready(result) = take_turn(&this.engine, &this.pace, call, cx) {
                this.lane = Lane::Finished;
                return Poll::Ready(result);
            }
            if this.pace.turns_used_up() < PATIENCE {
                return Poll::Pending;
            }
            this.habit.note_slow();
            if let Lane::Fast(call) = std::mem::replace(&mut this.lane, Lane::Finished) {
                this.lane = this.slow(call);
            }
        }
        let Lane::Slow(task) = &mut this.lane else {
            panic!("a guest call was polled after it had finished");
        };
        let joined = ready!(Pin::new(task).poll(cx));
        this.lane = Lane::Finished;
        match joined {
            Ok(result) => {
                if this.pace.turns_used_up() == 0 {
                    this.habit.note_quick();
                } else {
                    this.habit.note_slow();
                }
                Poll::Ready(result)
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only dropping the engine cancels a task, and this future keeps the engine.
            Err(error) => panic!("the slow lane lost a guest call: {error}"),
        }
    }
}

impl<T> Drop for Run<T> {
    fn drop(&mut self) {
        if let Lane::Slow(task) = &self.lane {
            task.abort();
        }
    }
}

/// A call on a thread of the slow lane: the runtime it came from stays its own.
struct Visiting<T> {
    engine: Engine,
    pace: Arc<Pace>,
    home: Handle,
    call: Option<BoxFuture<'static, T>>,
}

impl<T> Future for Visiting<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let _home = this.home.enter();
        let call = this.call.as_mut().expect("the call is taken only on drop");
        take_turn(&this.engine, &this.pace, call, cx)
    }
}

impl<T> Drop for Visiting<T> {
    fn drop(&mut self) {
        // What the guest holds may need its runtime to be dropped.
        let _home = self.home.enter();
        self.call = None;
    }
}

fn take_turn<T>(engine: &Engine, pace: &Pace, call: &mut BoxFuture<'static, T>, cx: &mut Context<'_>) -> Poll<T> {
    let ticker = &engine.started().ticker;
    ticker.touch();
    pace.begin_turn(ticker.ticks());
    call.as_mut().poll(cx)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::engine::{Allocator, Options};

    fn engine() -> Engine {
        let engine = Engine::new(Options { allocator: Allocator::OnDemand, ..Options::default() });
        engine.start().expect("starts");
        engine
    }

    fn pace_of(engine: &Engine) -> Arc<Pace> {
        let pace = Arc::new(Pace::default());
        pace.set_clock(engine.started().ticker.counter());
        pace
    }

    /// Does what a store does whose guest spins.
    async fn spin(pace: &Pace, turns: u32) {
        for _ in 0..turns {
            while !pace.turn_is_over() {
                thread::sleep(Duration::from_micros(100));
            }
            tokio::task::yield_now().await;
        }
    }

    fn is_slow() -> bool {
        thread::current().name() == Some("wasm-slow")
    }

    /// Where a call ends that first uses up so many turns.
    async fn ends_slow(engine: &Engine, habit: &Arc<Habit>, turns: u32) -> bool {
        let pace = pace_of(engine);
        let call = {
            let pace = pace.clone();
            async move {
                spin(&pace, turns).await;
                is_slow()
            }
        };
        engine.run(pace, habit.clone(), call).await
    }

    #[tokio::test]
    async fn a_quick_call_stays_where_it_is() {
        let (engine, habit) = (engine(), Arc::default());
        assert!(!ends_slow(&engine, &habit, 0).await);
        assert!(!ends_slow(&engine, &habit, PATIENCE - 1).await);
    }

    #[tokio::test]
    async fn a_long_call_is_moved_and_keeps_its_runtime() {
        let engine = engine();
        let pace = pace_of(&engine);
        let home = Handle::current().id();
        let call = {
            let pace = pace.clone();
            async move {
                spin(&pace, PATIENCE).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
                let spawned_at = tokio::spawn(async { Handle::current().id() }).await.expect("no panic");
                (is_slow(), Handle::current().id(), spawned_at)
            }
        };
        assert_eq!(engine.run(pace, Arc::default(), call).await, (true, home, home));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_slow_lane_has_low_priority() {
        let engine = engine();
        let pace = pace_of(&engine);
        let own = rustix::process::getpriority_process(None).expect("known");
        let call = {
            let pace = pace.clone();
            async move {
                spin(&pace, PATIENCE).await;
                rustix::process::getpriority_process(None).expect("known")
            }
        };
        assert_eq!(engine.run(pace, Arc::default(), call).await, (own + 10).min(19));
        assert_eq!(rustix::process::getpriority_process(None).expect("known"), own, "only those threads");
    }

    #[tokio::test]
    async fn after_a_long_call_the_next_begin_slow_until_enough_were_quick() {
        let (engine, habit) = (engine(), Arc::default());
        assert!(ends_slow(&engine, &habit, PATIENCE).await);
        for _ in 0..PROBATION {
            assert!(ends_slow(&engine, &habit, 0).await);
        }
        assert!(!ends_slow(&engine, &habit, 0).await);
    }

    #[tokio::test]
    async fn dropping_a_moved_call_drops_the_guest() {
        let engine = engine();
        let pace = pace_of(&engine);
        let alive = Arc::new(());
        let call = {
            let (pace, alive) = (pace.clone(), alive.clone());
            async move {
                spin(&pace, u32::MAX).await;
                drop(alive);
            }
        };
        let run = engine.run(pace, Arc::default(), call);
        tokio::time::timeout(Duration::from_millis(50), run).await.expect_err("it spins");
        let until = Instant::now() + Duration::from_secs(5);
        while Arc::strong_count(&alive) > 1 {
            assert!(Instant::now() < until, "the guest is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_panic_in_the_slow_lane_reaches_the_caller() {
        let engine = engine();
        let pace = pace_of(&engine);
        let call = {
            let pace = pace.clone();
            async move {
                spin(&pace, PATIENCE).await;
                panic!("on purpose");
            }
        };
        let run = engine.run::<()>(pace, Arc::default(), call);
        let joined = tokio::spawn(run).await.expect_err("it panicked");
        assert!(joined.is_panic());
    }
}
