//! A guest that keeps a processor busy stalls neither its neighbours nor the timers.

#![cfg(feature = "compiler")]

mod support;

use std::time::{Duration, Instant};

use support::{call, engine, limits, pool};
use trilby_wasm::{Allocator, Isolation, Limits};

/// Far more than a turn, for busy machines; a stalled thread would be late by the whole time that guests spin.
const LATE: Duration = Duration::from_millis(500);
const SPINNING: Duration = Duration::from_secs(3);

/// Sleeps for moments until `until`, and says how late the latest waking was.
async fn worst_lateness(until: Instant) -> Duration {
    let pause = Duration::from_millis(5);
    let mut worst = Duration::ZERO;
    while Instant::now() < until {
        let began = Instant::now();
        tokio::time::sleep(pause).await;
        worst = worst.max(began.elapsed().saturating_sub(pause));
    }
    worst
}

async fn spinning_guests_stall_nothing() {
    let engine = engine(Allocator::Auto);
    let spinners = pool(&engine, Limits { call_timeout: SPINNING, ..limits() }, Isolation::Reuse).await;
    let neighbours = pool(&engine, limits(), Isolation::Reuse).await;
    call(&neighbours, "count").await.expect("starts");

    let until = Instant::now() + SPINNING;
    let spin = async {
        let calls: Vec<_> = (0..16)
            .map(|_| {
                tokio::spawn({
                    let spinners = spinners.clone();
                    async move { call(&spinners, "spin").await }
                })
            })
            .collect();
        for call in calls {
            call.await.expect("no panic").expect_err("a deadline");
        }
    };
    let neighbour = async {
        let mut worst = Duration::ZERO;
        while Instant::now() < until {
            let began = Instant::now();
            call(&neighbours, "count").await.expect("counts");
            worst = worst.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        worst
    };
    let ((), neighbour, timer) = tokio::join!(spin, neighbour, worst_lateness(until));
    assert!(timer < LATE, "a timer was late by {timer:?}");
    assert!(neighbour < LATE, "a neighbour's call took {neighbour:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spinning_guests_stall_nothing_on_two_threads() {
    spinning_guests_stall_nothing().await;
}

#[tokio::test]
async fn spinning_guests_stall_nothing_on_one_thread() {
    spinning_guests_stall_nothing().await;
}

#[tokio::test]
async fn a_long_call_is_answered_all_the_same() {
    let engine = engine(Allocator::Auto);
    let pool = pool(&engine, limits(), Isolation::Reuse).await;
    for _ in 0..3 {
        assert_eq!(call(&pool, "work").await.expect("works"), 0);
    }
    // In and out of the slow lane again.
    for expected in 1..=50 {
        assert_eq!(call(&pool, "count").await.expect("counts"), expected);
    }
}

#[tokio::test]
async fn two_engines_live_in_one_process() {
    let (a, b) = (engine(Allocator::Auto), engine(Allocator::Auto));
    let spinner = pool(&a, Limits { call_timeout: Duration::from_millis(200), ..limits() }, Isolation::Reuse).await;
    let counter = pool(&b, limits(), Isolation::Reuse).await;
    let (spun, counted) = tokio::join!(call(&spinner, "spin"), call(&counter, "count"));
    assert!(spun.is_err());
    assert_eq!(counted.expect("counts"), 1);
    drop((a, spinner));
    assert_eq!(call(&counter, "count").await.expect("counts"), 2);
}
