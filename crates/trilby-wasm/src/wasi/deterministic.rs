//! A world without time and chance, for guests that must not measure anything: clocks move when they are read, and
//! random numbers are always the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// How far a clock moves when it is read.
const STEP: Duration = Duration::from_millis(1);

/// What every random number is made of.
const SEED: [u8; 16] = *b"no random number";

/// Puts clocks and random numbers of that sort into `builder`.
pub(super) fn apply(builder: &mut WasiCtxBuilder) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    builder
        // A step ahead from the first look, as programs see it in Dapr.
        .wall_clock(Steps::from(Duration::from_secs(now.as_secs()) + STEP))
        .monotonic_clock(Steps::from(Duration::ZERO))
        .secure_random(Deterministic::new(SEED.to_vec()))
        .insecure_random(Deterministic::new(SEED.to_vec()))
        .insecure_random_seed(u128::from_le_bytes(SEED));
}

/// A clock that counts how often it was read, in nanoseconds.
struct Steps(AtomicU64);

impl Steps {
    fn from(start: Duration) -> Self {
        Self(AtomicU64::new(nanos(start)))
    }

    fn step(&self) -> u64 {
        self.0.fetch_add(nanos(STEP), Ordering::Relaxed)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl HostWallClock for Steps {
    fn resolution(&self) -> Duration {
        STEP
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.step())
    }
}

impl HostMonotonicClock for Steps {
    fn resolution(&self) -> u64 {
        nanos(STEP)
    }

    fn now(&self) -> u64 {
        self.step()
    }
}
