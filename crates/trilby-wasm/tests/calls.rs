//! A failing call fails alone, and says why.

#![cfg(feature = "compiler")]

mod support;

use std::time::{Duration, Instant};

use support::{call, engine, limits, pool, pool_of};
use trilby_wasm::{Allocator, CallError, Engine, Exceeded, Isolation, Limits};

/// One after the other, each failure with its reason, and the app serves on.
async fn each_failure_is_named_and_hurts_nobody(engine: &Engine) {
    let pool = pool(engine, limits(), Isolation::Reuse).await;
    assert_eq!(call(&pool, "count").await.expect("counts"), 1);

    let memory = call(&pool, "eat-memory").await.expect_err("there is a limit");
    assert!(matches!(memory, CallError::Limit(Exceeded::Memory { limit, .. }) if limit == 8 << 20), "{memory:?}");
    let expect = "guest ran out of memory: it wanted 8454144 bytes and the limit is 8388608 (memory_bytes)";
    assert_eq!(memory.to_string(), expect);

    let table = call(&pool, "eat-table").await.expect_err("there is a limit");
    assert!(matches!(table, CallError::Limit(Exceeded::Table { wanted: 10_001, limit: 10_000 })), "{table:?}");

    let stack = call(&pool, "recurse").await.expect_err("the stack ends");
    assert!(matches!(stack, CallError::StackOverflow { .. }), "{stack:?}");

    let trap = call(&pool, "trap").await.expect_err("traps");
    assert_eq!(trap.to_string(), "guest trapped: wasm trap: wasm `unreachable` instruction executed");
    assert!(trap.backtrace().expect("frames").contains("wasm function"), "{trap:?}");

    let divide = call(&pool, "divide").await.expect_err("traps");
    assert_eq!(divide.to_string(), "guest trapped: wasm trap: integer divide by zero");

    assert_eq!(call(&pool, "count").await.expect("counts"), 1, "a new instance");
    assert_eq!(call(&pool, "count").await.expect("counts"), 2, "the same instance");
    assert_eq!(pool.stats().live, 1);
}

#[tokio::test]
async fn each_failure_is_named_with_the_pooling_allocator() {
    let engine = engine(Allocator::Pooling);
    assert!(engine.is_pooling().expect("starts"));
    each_failure_is_named_and_hurts_nobody(&engine).await;
}

#[tokio::test]
async fn each_failure_is_named_with_the_on_demand_allocator() {
    let engine = engine(Allocator::OnDemand);
    assert!(!engine.is_pooling().expect("starts"));
    each_failure_is_named_and_hurts_nobody(&engine).await;
}

#[tokio::test]
async fn a_guest_that_survives_a_refused_allocation_is_not_failed() {
    let engine = engine(Allocator::Auto);
    let pool = pool(&engine, limits(), Isolation::Reuse).await;
    assert_eq!(call(&pool, "try-memory").await.expect("survives"), u32::MAX);
    let trap = call(&pool, "trap").await.expect_err("traps");
    assert!(matches!(trap, CallError::Trap { .. }), "the old refusal is not the reason: {trap:?}");
}

#[tokio::test]
async fn a_guest_born_too_large_says_so() {
    let engine = engine(Allocator::Auto);
    let text = "(component (core module $m (memory 200)) (core instance (instantiate $m)))";
    let pool = pool_of(&engine, text, limits(), Isolation::Reuse).await;
    let error = pool.check().await.expect_err("13 MB do not fit in 8 MB");
    assert!(matches!(error, CallError::Limit(Exceeded::Memory { .. })), "{error:?}");
    assert_eq!(pool.stats().live, 0);
}

#[tokio::test]
async fn a_spinning_call_ends_at_its_deadline() {
    let engine = engine(Allocator::Auto);
    let limits = Limits { call_timeout: Duration::from_millis(100), ..limits() };
    let pool = pool(&engine, limits, Isolation::Reuse).await;
    let error = call(&pool, "spin").await.expect_err("never answers");
    assert_eq!(error.to_string(), "no answer within 100ms, the limit for one call (call_timeout)");
    eventually(|| pool.stats().live == 0).await;
    assert_eq!(call(&pool, "count").await.expect("counts"), 1);
}

#[tokio::test]
async fn a_dropped_call_ends_its_guest() {
    let engine = engine(Allocator::Auto);
    let pool = pool(&engine, limits(), Isolation::Reuse).await;
    let spinning = tokio::time::timeout(Duration::from_millis(50), call(&pool, "spin")).await;
    assert!(spinning.is_err(), "nobody waits for it any more");
    eventually(|| pool.stats().live == 0).await;
}

#[tokio::test]
async fn an_instance_per_call_shares_nothing() {
    let engine = engine(Allocator::Auto);
    let pool = pool(&engine, limits(), Isolation::PerCall).await;
    for _ in 0..3 {
        assert_eq!(call(&pool, "count").await.expect("counts"), 1);
    }
    let stats = pool.stats();
    assert_eq!((stats.live, stats.started, stats.calls, stats.memory_bytes), (0, 3, 3, 0));
}

#[tokio::test]
async fn an_instance_is_replaced_after_its_number_of_calls() {
    let engine = engine(Allocator::Auto);
    let limits = Limits { max_calls_per_instance: 2, ..limits() };
    let pool = pool(&engine, limits, Isolation::Reuse).await;
    let mut counts = Vec::new();
    for _ in 0..5 {
        counts.push(call(&pool, "count").await.expect("counts"));
    }
    assert_eq!(counts, [1, 2, 1, 2, 1]);
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_and_then_are_told() {
    let engine = engine(Allocator::Auto);
    let limits = Limits {
        max_concurrency: 1,
        max_queue: 1,
        max_wait: Duration::from_millis(500),
        call_timeout: Duration::from_secs(2),
        ..limits()
    };
    let pool = pool(&engine, limits, Isolation::Reuse).await;
    let (spin, second, third) = tokio::join!(call(&pool, "spin"), call(&pool, "count"), call(&pool, "count"));
    assert!(matches!(spin, Err(CallError::Deadline(_))), "{spin:?}");
    assert!(matches!(second, Err(CallError::Busy { running: 1, .. })), "{second:?}");
    assert!(matches!(third, Err(CallError::QueueFull { running: 1, queued: 1 })), "{third:?}");
    // The place of the call that spun is free as soon as its instance is dropped.
    let started = Instant::now();
    let count = loop {
        match call(&pool, "count").await {
            Err(CallError::Busy { .. }) if started.elapsed() < Duration::from_secs(10) => {}
            other => break other,
        }
    };
    assert_eq!(count.expect("counts"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_calls_are_all_served() {
    let engine = engine(Allocator::Auto);
    let pool = pool(&engine, Limits { max_concurrency: 4, ..limits() }, Isolation::Reuse).await;
    let calls: Vec<_> = (0..500)
        .map(|_| {
            tokio::spawn({
                let pool = pool.clone();
                async move { call(&pool, "count").await }
            })
        })
        .collect();
    for served in calls {
        served.await.expect("no panic").expect("served");
    }
    assert!(pool.stats().started <= 4, "{pool:?}");
}

#[tokio::test]
async fn idle_instances_beyond_the_number_to_keep_are_trimmed() {
    let engine = engine(Allocator::Auto);
    let limits = Limits { idle_instances: 1, idle_timeout: Duration::from_millis(50), ..limits() };
    let pool = pool(&engine, limits, Isolation::Reuse).await;
    tokio::join!(
        async { call(&pool, "work").await.expect("works") },
        async { call(&pool, "work").await.expect("works") },
        async { call(&pool, "work").await.expect("works") },
    );
    assert!(pool.stats().started > 1);
    eventually(|| pool.stats().idle == 1).await;
    assert_eq!(pool.stats().live, 1);
    assert_eq!(pool.stats().memory_bytes, 64 << 10);
}

#[tokio::test]
async fn an_app_that_was_only_checked_holds_no_instance() {
    let engine = engine(Allocator::Auto);
    let pool = pool(&engine, limits(), Isolation::Reuse).await;
    pool.check().await.expect("starts");
    let stats = pool.stats();
    assert_eq!((stats.live, stats.idle, stats.started, stats.memory_bytes), (0, 0, 1, 0));
}

#[tokio::test]
async fn an_engine_without_a_free_slot_says_so() {
    let engine =
        Engine::new(trilby_wasm::Options { allocator: Allocator::Pooling, max_instances: 1, ..Default::default() });
    let first = pool(&engine, limits(), Isolation::Reuse).await;
    let second = pool(&engine, limits(), Isolation::Reuse).await;
    assert_eq!(call(&first, "count").await.expect("one fits"), 1);
    let error = call(&second, "count").await.expect_err("two do not");
    assert!(matches!(error, CallError::Exhausted(_)), "{error:?}");
}

async fn eventually(holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come about within five seconds");
}
