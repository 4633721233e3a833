//! Circuit breakers: a target that keeps failing is left alone for a while. States and counts are those of gobreaker,
//! which Dapr uses.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::cel::{Condition, Value};

/// When a breaker opens: a CEL condition over its counts.
#[derive(Debug, Clone)]
pub struct Trip(Option<Arc<Condition>>);

impl Trip {
    /// Reads a condition over `requests`, `totalSuccesses`, `totalFailures`, `consecutiveSuccesses` and
    /// `consecutiveFailures`.
    ///
    /// # Errors
    /// A text for people, if it is no condition over these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let condition = Condition::parse(text)?;
        // A condition that never holds because it cannot be computed would be noticed only when it is needed. Twice,
        // because one that divides may have no value for some counts.
        let tried = [1, 7].map(|count| condition.holds(Counts::all(count).variables()));
        if let [Err(reason), Err(_)] = tried {
            return Err(reason);
        }
        Ok(Self(Some(Arc::new(condition))))
    }

    fn holds(&self, counts: &Counts) -> bool {
        match &self.0 {
            None => counts.consecutive_failures > 5,
            Some(condition) => condition.holds(counts.variables()).unwrap_or(false),
        }
    }
}

/// After more than five failures in a row.
impl Default for Trip {
    fn default() -> Self {
        Self(None)
    }
}

/// A named circuit breaker policy.
#[derive(Debug, Clone)]
pub struct BreakerSettings {
    /// Operations that a half-open breaker lets through, and that must succeed to close it. Default 1.
    pub max_requests: u32,
    /// How often a closed breaker forgets its counts. Default never.
    pub interval: Option<Duration>,
    /// How long an open breaker stays so. Default 60 s.
    pub timeout: Duration,
    /// When it opens.
    pub trip: Trip,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { max_requests: 1, interval: None, timeout: Duration::from_secs(60), trip: Trip::default() }
    }
}

/// Why a breaker lets nothing through. Shown in Dapr's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is open.
    Open,
    /// It is half open, and the operations that decide are on their way.
    TooManyRequests,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "circuit breaker is open",
            Self::TooManyRequests => "too many requests",
        })
    }
}

/// State of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Closed,
    HalfOpen,
    Open,
}

impl State {
    pub(crate) const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// Dapr's label value.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    requests: u32,
    total_successes: u32,
    total_failures: u32,
    consecutive_successes: u32,
    consecutive_failures: u32,
}

impl Counts {
    fn all(count: u32) -> Self {
        Self {
            requests: count,
            total_successes: count,
            total_failures: count,
            consecutive_successes: count,
            consecutive_failures: count,
        }
    }

    fn succeeded(&mut self) {
        self.total_successes = self.total_successes.saturating_add(1);
        self.consecutive_successes = self.consecutive_successes.saturating_add(1);
        self.consecutive_failures = 0;
    }

    fn failed(&mut self) {
        self.total_failures = self.total_failures.saturating_add(1);
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        self.consecutive_successes = 0;
    }

    fn variables(&self) -> [(&'static str, Value); 5] {
        let int = |count: u32| Value::Int(count.into());
        [
            ("requests", int(self.requests)),
            ("totalSuccesses", int(self.total_successes)),
            ("totalFailures", int(self.total_failures)),
            ("consecutiveSuccesses", int(self.consecutive_successes)),
            ("consecutiveFailures", int(self.consecutive_failures)),
        ]
    }
}

/// The breaker of one target.
pub(super) struct Breaker {
    name: String,
    settings: Arc<BreakerSettings>,
    now: Mutex<Now>,
}

struct Now {
    state: State,
    /// Told apart, so that an operation that began before a change of state says nothing about what came after.
    generation: u64,
    counts: Counts,
    /// When the state or, if closed, the counts end.
    expiry: Option<Instant>,
}

/// Leave to perform one operation. Dropped without a word, it counts as a failure: the operation was abandoned.
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    generation: u64,
    is_finished: bool,
}

impl Permit<'_> {
    pub(super) fn finish(mut self, succeeded: bool) {
        self.is_finished = true;
        self.breaker.finished(self.generation, succeeded);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.breaker.finished(self.generation, false);
        }
    }
}

impl Breaker {
    pub(super) fn new(name: String, settings: Arc<BreakerSettings>) -> Self {
        let expiry = settings.interval.map(|interval| Instant::now() + interval);
        let now = Now { state: State::Closed, generation: 0, counts: Counts::default(), expiry };
        Self { name, settings, now: Mutex::new(now) }
    }

    pub(super) fn state(&self) -> State {
        self.current().state
    }

    /// Leave to perform one operation.
    pub(super) fn enter(&self) -> Result<Permit<'_>, Refusal> {
        let mut now = self.current();
        match now.state {
            State::Open => return Err(Refusal::Open),
            State::HalfOpen if now.counts.requests >= self.settings.max_requests => {
                return Err(Refusal::TooManyRequests);
            }
            State::HalfOpen | State::Closed => {}
        }
        now.counts.requests = now.counts.requests.saturating_add(1);
        Ok(Permit { breaker: self, generation: now.generation, is_finished: false })
    }

    fn finished(&self, generation: u64, succeeded: bool) {
        let mut now = self.current();
        if now.generation != generation {
            return;
        }
        if succeeded {
            now.counts.succeeded();
            if now.state == State::HalfOpen && now.counts.consecutive_successes >= self.settings.max_requests {
                self.change(&mut now, State::Closed);
            }
        } else {
            now.counts.failed();
            if now.state == State::HalfOpen || self.settings.trip.holds(&now.counts) {
                self.change(&mut now, State::Open);
            }
        }
    }

    /// What is so now, once what has expired is gone.
    fn current(&self) -> MutexGuard<'_, Now> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.expiry.is_some_and(|expiry| expiry < Instant::now()) {
            match now.state {
                State::Closed => self.begin(&mut now),
                State::Open => self.change(&mut now, State::HalfOpen),
                State::HalfOpen => {}
            }
        }
        now
    }

    fn change(&self, now: &mut Now, state: State) {
        tracing::info!(
            breaker = self.name,
            from = now.state.name(),
            to = state.name(),
            "circuit breaker changed state"
        );
        now.state = state;
        self.begin(now);
    }

    /// Begins to count anew.
    fn begin(&self, now: &mut Now) {
        now.generation += 1;
        now.counts = Counts::default();
        let lasts = match now.state {
            State::Closed => self.settings.interval,
            State::Open => Some(self.settings.timeout),
            State::HalfOpen => None,
        };
        now.expiry = lasts.map(|lasts| Instant::now() + lasts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(settings: BreakerSettings) -> Breaker {
        Breaker::new("b".to_owned(), Arc::new(settings))
    }

    fn call(breaker: &Breaker, succeeds: bool) -> Result<State, Refusal> {
        breaker.enter()?.finish(succeeds);
        Ok(breaker.state())
    }

    async fn later(seconds: u64) {
        tokio::time::advance(Duration::from_millis(seconds * 1000 + 1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_six_failures_in_a_row_and_tries_again_after_a_minute() {
        let breaker = breaker(BreakerSettings::default());
        for _ in 0..5 {
            assert_eq!(call(&breaker, false), Ok(State::Closed));
        }
        assert_eq!(call(&breaker, true), Ok(State::Closed));
        for _ in 0..5 {
            assert_eq!(call(&breaker, false), Ok(State::Closed));
        }
        assert_eq!(call(&breaker, false), Ok(State::Open));
        later(59).await;
        assert_eq!(call(&breaker, true), Err(Refusal::Open));
        later(1).await;
        assert_eq!(breaker.state(), State::HalfOpen);
        assert_eq!(call(&breaker, true), Ok(State::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_lets_a_few_through_and_any_failure_opens_it_again() {
        let trip = Trip::parse("totalFailures >= 1").expect("a condition");
        let breaker = breaker(BreakerSettings { max_requests: 2, trip, ..BreakerSettings::default() });
        assert_eq!(call(&breaker, false), Ok(State::Open));
        later(60).await;
        let (first, second) = (breaker.enter().expect("a try"), breaker.enter().expect("a try"));
        assert_eq!(breaker.enter().err(), Some(Refusal::TooManyRequests));
        first.finish(true);
        assert_eq!(breaker.state(), State::HalfOpen);
        second.finish(false);
        assert_eq!(breaker.state(), State::Open);
        later(60).await;
        assert_eq!(call(&breaker, true), Ok(State::HalfOpen));
        assert_eq!(call(&breaker, true), Ok(State::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_try_does_not_block_a_half_open_breaker() {
        let trip = Trip::parse("requests > 0").expect("a condition");
        let breaker = breaker(BreakerSettings { trip, ..BreakerSettings::default() });
        drop(breaker.enter());
        assert_eq!(breaker.state(), State::Open);
        later(60).await;
        drop(breaker.enter());
        assert_eq!(breaker.state(), State::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn counts_are_forgotten_after_the_interval_and_old_answers_do_not_count() {
        let trip = Trip::parse("totalFailures > 1").expect("a condition");
        let interval = Some(Duration::from_secs(10));
        let breaker = breaker(BreakerSettings { interval, trip, ..BreakerSettings::default() });
        let old = breaker.enter().expect("closed");
        assert_eq!(call(&breaker, false), Ok(State::Closed));
        later(10).await;
        assert_eq!(call(&breaker, false), Ok(State::Closed));
        old.finish(false);
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(call(&breaker, false), Ok(State::Open));
    }

    #[test]
    fn conditions_over_anything_else_are_refused() {
        for text in ["consecutiveFailures >", "failures > 5", "requests + 1", "'yes'", ""] {
            assert!(Trip::parse(text).is_err(), "{text}");
        }
        for text in
            ["consecutiveFailures >= 3", "totalFailures / requests > 0.5", "requests > 3 && totalSuccesses == 0"]
        {
            assert!(Trip::parse(text).is_ok(), "{text}");
        }
    }
}
