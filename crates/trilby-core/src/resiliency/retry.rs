//! Retries: how often, after which waits, and for which answers. The waits are those of Go's backoff library.

use std::{ops::RangeInclusive, time::Duration};

use tokio::time::Instant;

use super::Failure;

/// First wait of an exponential backoff.
const INITIAL_INTERVAL: Duration = Duration::from_millis(500);
/// By how much the next wait is longer.
const MULTIPLIER: f64 = 1.5;
/// How far a wait may be from its nominal length, either way.
const RANDOMIZATION: f64 = 0.5;

/// A named retry policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// Attempts after the first; `None` means until it succeeds.
    pub max_retries: Option<u32>,
    /// Statuses that are tried again if the target answered over HTTP. Default all.
    pub http_codes: StatusCodes,
    /// Statuses that are tried again if the target answered over gRPC. Default all.
    pub grpc_codes: StatusCodes,
}

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backoff {
    /// Always the same.
    Constant(Duration),
    /// From half a second on, half as long again each time, give or take a half.
    Exponential {
        /// No wait is nominally longer. Dapr's default: 1 min.
        max_interval: Duration,
        /// After this long there are no more attempts. Dapr's default: 15 min.
        max_elapsed: Duration,
    },
}

impl Retry {
    /// Retries of any failure.
    #[must_use]
    pub fn new(backoff: Backoff, max_retries: Option<u32>) -> Self {
        Self { backoff, max_retries, http_codes: StatusCodes::All, grpc_codes: StatusCodes::All }
    }

    /// Whether another attempt is wanted after `failure`, if there are any left.
    pub(super) fn applies_to(&self, failure: &impl Failure) -> bool {
        failure.is_retryable() && failure.status().is_none_or(|status| self.matches(status))
    }

    fn matches(&self, status: u16) -> bool {
        if GRPC_CODES.contains(&status) {
            return self.grpc_codes.contains(status);
        }
        HTTP_CODES.contains(&status) && self.http_codes.contains(status)
    }

    /// The waits before each further attempt of one operation that begins now.
    pub(super) fn waits(&self) -> Waits<'_> {
        Waits { retry: self, taken: 0, interval: INITIAL_INTERVAL, began: Instant::now() }
    }
}

/// See [`Retry::waits`].
pub(super) struct Waits<'a> {
    retry: &'a Retry,
    taken: u32,
    interval: Duration,
    began: Instant,
}

impl Iterator for Waits<'_> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.retry.max_retries.is_some_and(|most| self.taken >= most) {
            return None;
        }
        self.taken = self.taken.saturating_add(1);
        match self.retry.backoff {
            Backoff::Constant(wait) => Some(wait),
            Backoff::Exponential { max_interval, max_elapsed } => {
                let wait = self.interval.mul_f64(1.0 - RANDOMIZATION + 2.0 * RANDOMIZATION * fraction());
                self.interval = self.interval.mul_f64(MULTIPLIER).min(max_interval);
                (self.began.elapsed() + wait <= max_elapsed).then_some(wait)
            }
        }
    }
}

/// A random number from 0 to 1. Without a source of randomness, waits are of nominal length.
fn fraction() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

const HTTP_CODES: RangeInclusive<u16> = 100..=599;
const GRPC_CODES: RangeInclusive<u16> = 0..=16;

/// The statuses that a retry policy matches on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StatusCodes {
    /// Any status.
    #[default]
    All,
    /// Those in one of the ranges.
    In(Vec<RangeInclusive<u16>>),
}

impl StatusCodes {
    /// Reads HTTP statuses such as `429,500-599`. Nothing means all.
    ///
    /// # Errors
    /// A text for people.
    pub fn http(text: &str) -> Result<Self, String> {
        Self::parse(text, &HTTP_CODES)
    }

    /// Reads gRPC codes such as `1,2,5-7`. Nothing means all.
    ///
    /// # Errors
    /// A text for people.
    pub fn grpc(text: &str) -> Result<Self, String> {
        Self::parse(text, &GRPC_CODES)
    }

    fn parse(text: &str, valid: &RangeInclusive<u16>) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::All);
        }
        let code = |code: &str| {
            let number = code.trim().parse().ok().filter(|code| valid.contains(code));
            number.ok_or_else(|| format!("{code:?} is not a status from {} to {}", valid.start(), valid.end()))
        };
        let range = |pattern: &str| {
            let (first, last) = pattern.split_once('-').unwrap_or((pattern, pattern));
            let (first, last) = (code(first)?, code(last)?);
            if first > last {
                return Err(format!("{pattern:?} ends before it begins"));
            }
            Ok(first..=last)
        };
        text.split(',').filter(|pattern| !pattern.is_empty()).map(range).collect::<Result<_, _>>().map(Self::In)
    }

    fn contains(&self, status: u16) -> bool {
        match self {
            Self::All => true,
            Self::In(ranges) => ranges.iter().any(|range| range.contains(&status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(max_retries: Option<u32>, max_interval: u64, max_elapsed: u64) -> Retry {
        let (max_interval, max_elapsed) = (Duration::from_secs(max_interval), Duration::from_secs(max_elapsed));
        Retry::new(Backoff::Exponential { max_interval, max_elapsed }, max_retries)
    }

    #[tokio::test(start_paused = true)]
    async fn exponential_waits_grow_by_half_and_vary_by_half() {
        let retry = exponential(Some(6), 2, 900);
        let waits: Vec<_> = retry.waits().collect();
        assert_eq!(waits.len(), 6);
        for (wait, nominal) in waits.iter().zip([500.0, 750.0, 1125.0, 1687.5, 2000.0, 2000.0]) {
            let millis = wait.as_secs_f64() * 1000.0;
            assert!((nominal * 0.5..=nominal * 1.5).contains(&millis), "{waits:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn exponential_backoff_ends_after_its_time() {
        let retry = exponential(None, 1, 10);
        let (mut waits, began) = (retry.waits(), Instant::now());
        while let Some(wait) = waits.next() {
            tokio::time::sleep(wait).await;
        }
        let elapsed = began.elapsed().as_secs_f64();
        assert!((8.4..=10.1).contains(&elapsed), "{elapsed}");
    }

    #[test]
    fn ranges_and_lists_of_codes_are_read() {
        let retry = Retry {
            http_codes: StatusCodes::http("429,500-502,").expect("codes"),
            grpc_codes: StatusCodes::grpc("1,5-7").expect("codes"),
            ..Retry::new(Backoff::Constant(Duration::ZERO), None)
        };
        for (status, expect) in
            [(429, true), (500, true), (502, true), (503, false), (428, false), (1, true), (6, true), (8, false)]
        {
            assert_eq!(retry.matches(status), expect, "{status}");
        }
        // Neither HTTP's nor gRPC's.
        for status in [17, 99, 600] {
            assert!(!Retry::new(Backoff::Constant(Duration::ZERO), None).matches(status), "{status}");
        }
    }

    #[test]
    fn codes_that_are_none_are_refused() {
        for text in ["99", "600", "x", "500-", "-5", "501-500", "1-2-3", "200,,abc", "70000"] {
            assert!(StatusCodes::http(text).is_err(), "{text}");
        }
        assert_eq!(StatusCodes::grpc("400").expect_err("HTTP's"), "\"400\" is not a status from 0 to 16");
    }
}
