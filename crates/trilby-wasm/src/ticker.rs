//! The clock that interrupts guests: one thread per engine, at rest when no guest runs.
//!
//! An engine may have a second wasmtime engine, for baseline code; it ticks with the first.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Time between two ticks: how finely a guest's running time is cut.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks of a guest's turn. A guest that runs on is interrupted after one to two ticks, and others get theirs.
pub(crate) const TURN_TICKS: u64 = 2;

/// Ticks without a guest after which the thread rests. Far more than a turn lasts, so no guest runs unwatched.
const QUIET_TICKS: u32 = 50;

/// Owns the thread. Dropping it interrupts whatever guest still runs, once, and joins the thread.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ticks: Arc<AtomicU64>,
    /// A guest ran since the last tick.
    touched: AtomicBool,
    resting: AtomicBool,
    stop: AtomicBool,
    second: OnceLock<wasmtime::Engine>,
}

impl Ticker {
    pub(crate) fn start(engine: wasmtime::Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("wasm-ticker".into()).spawn({
            let shared = shared.clone();
            move || shared.run(&engine)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Ticks for a second engine too. Later calls change nothing.
    #[cfg(feature = "compiler")]
    pub(crate) fn add(&self, engine: wasmtime::Engine) {
        let _ = self.shared.second.set(engine);
    }

    /// The count of ticks so far, for those who measure turns.
    pub(crate) fn ticks(&self) -> u64 {
        self.shared.ticks.load(Ordering::Relaxed)
    }

    /// The counter behind [`ticks`](Self::ticks).
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        self.shared.ticks.clone()
    }

    /// Says that a guest is about to run. One relaxed load while the clock runs.
    pub(crate) fn touch(&self) {
        // A stale `true` is harmless: the thread rests only many ticks after it last saw the flag set.
        if self.shared.touched.load(Ordering::Relaxed) {
            return;
        }
        self.shared.touched.store(true, Ordering::SeqCst);
        if self.shared.resting.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread does nothing that panics, and there is nobody to tell if it did.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, engine: &wasmtime::Engine) {
        let mut quiet = 0;
        while !self.stop.load(Ordering::SeqCst) {
            if quiet == QUIET_TICKS {
                self.rest();
                quiet = 0;
            }
            self.tick(engine);
            quiet = if self.touched.swap(false, Ordering::Relaxed) { 0 } else { quiet + 1 };
        }
        // A guest in the middle of its turn must come back before its thread can end.
        for _ in 0..=TURN_TICKS {
            self.tick(engine);
        }
    }

    fn tick(&self, engine: &wasmtime::Engine) {
        thread::sleep(TICK);
        self.ticks.fetch_add(1, Ordering::Relaxed);
        engine.increment_epoch();
        if let Some(second) = self.second.get() {
            second.increment_epoch();
        }
    }

    fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
        while !self.touched.load(Ordering::SeqCst) && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        self.resting.store(false, Ordering::SeqCst);
    }
}
