//! Policies at work, under a clock that waits for nobody.

use std::{
    collections::HashMap,
    future,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::time::Instant;

use super::*;
use crate::{Identity, metrics::Metrics};

/// A failure that looks as a test wants it to.
#[derive(Debug, PartialEq, Eq)]
enum Broken {
    Status(u16),
    Plain,
    Permanent,
    TimedOut,
    Refused(Refusal),
}

impl Failure for Broken {
    fn is_retryable(&self) -> bool {
        *self != Self::Permanent
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(*status),
            _ => None,
        }
    }

    fn timed_out(_: Duration) -> Self {
        Self::TimedOut
    }

    fn refused(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

const MILLIS: fn(u64) -> Duration = Duration::from_millis;

fn constant(millis: u64, max_retries: u32) -> Retry {
    Retry::new(Backoff::Constant(MILLIS(millis)), Some(max_retries))
}

fn map<T, const N: usize>(entries: [(&str, T); N]) -> HashMap<String, T> {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn names(timeout: &str, retry: &str, breaker: &str) -> Names {
    let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    Names { timeout: name(timeout), retry: name(retry), breaker: name(breaker) }
}

/// The policy of a store for which only this holds.
fn policy(timeout: Option<Duration>, retry: Option<Retry>, breaker: Option<BreakerSettings>) -> Policy {
    let outbound = names("p", "p", "p");
    let resource = Resource {
        timeouts: timeout.map(|timeout| ("p".to_owned(), timeout)).into_iter().collect(),
        retries: retry.map(|retry| ("p".to_owned(), retry)).into_iter().collect(),
        breakers: breaker.map(|breaker| ("p".to_owned(), breaker)).into_iter().collect(),
        components: map([("store", ComponentTarget { outbound, ..ComponentTarget::default() })]),
        ..Resource::default()
    };
    policies(&[resource]).component_outbound(Block::State, "store")
}

fn policies(resources: &[Resource]) -> Policies {
    Policies::new(resources, &Identity::new("myapp"), &Metrics::default())
}

/// Fails so often with this, and then succeeds. Counts.
struct Flaky {
    attempts: AtomicU32,
    failures: u32,
    error: fn() -> Broken,
}

impl Flaky {
    fn new(failures: u32, error: fn() -> Broken) -> Self {
        Self { attempts: AtomicU32::new(0), failures, error }
    }

    async fn call(&self) -> Result<u32, Broken> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        if attempt > self.failures { Ok(attempt) } else { Err((self.error)()) }
    }

    fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }
}

const ALWAYS: u32 = u32::MAX;

#[tokio::test(start_paused = true)]
async fn without_a_policy_an_operation_runs_once() {
    let flaky = Flaky::new(ALWAYS, || Broken::Plain);
    assert_eq!(Policy::default().run(|| flaky.call()).await, Err(Broken::Plain));
    assert_eq!(flaky.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_tried_again_until_it_succeeds_or_the_retries_are_used_up() {
    let policy = policy(None, Some(constant(100, 3)), None);
    for (failures, expect, waited) in [(0, Ok(1), 0), (2, Ok(3), 200), (3, Ok(4), 300), (4, Err(Broken::Plain), 300)] {
        let (flaky, began) = (Flaky::new(failures, || Broken::Plain), Instant::now());
        assert_eq!(policy.run(|| flaky.call()).await, expect, "{failures}");
        assert_eq!(began.elapsed(), MILLIS(waited), "{failures}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_mended_is_not_tried_again() {
    let matching = Retry { http_codes: StatusCodes::http("429,500-599").expect("codes"), ..constant(1, 3) };
    let policy = policy(None, Some(matching), None);
    let attempts = async |error| {
        let flaky = Flaky::new(ALWAYS, error);
        policy.run(|| flaky.call()).await.expect_err("it always fails");
        flaky.attempts()
    };
    assert_eq!(attempts(|| Broken::Permanent).await, 1);
    assert_eq!(attempts(|| Broken::Status(404)).await, 1);
    assert_eq!(attempts(|| Broken::Status(503)).await, 4);
    assert_eq!(attempts(|| Broken::Status(14)).await, 4, "no gRPC codes are named, so all match");
    assert_eq!(attempts(|| Broken::Plain).await, 4, "a failure without a status always matches");
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_the_whole_timeout() {
    let policy = policy(Some(MILLIS(50)), Some(constant(10, 2)), None);
    let began = Instant::now();
    let hangs = policy.run(future::pending::<Result<(), Broken>>).await;
    assert_eq!(hangs, Err(Broken::TimedOut));
    assert_eq!(began.elapsed(), MILLIS(3 * 50 + 2 * 10));
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_ends_the_retries() {
    let trip = Trip::parse("consecutiveFailures >= 3").expect("a condition");
    let breaker = BreakerSettings { trip, timeout: Duration::from_secs(5), ..BreakerSettings::default() };
    let policy = policy(None, Some(constant(10, 10)), Some(breaker));
    let flaky = Flaky::new(ALWAYS, || Broken::Plain);
    assert_eq!(policy.run(|| flaky.call()).await, Err(Broken::Refused(Refusal::Open)));
    assert_eq!(flaky.attempts(), 3);
    assert_eq!(policy.run(|| flaky.call()).await, Err(Broken::Refused(Refusal::Open)));
    assert_eq!(flaky.attempts(), 3);
    tokio::time::sleep(MILLIS(5001)).await;
    let fine = Flaky::new(0, || Broken::Plain);
    assert_eq!(policy.run(|| fine.call()).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_counts_for_the_breaker() {
    let trip = Trip::parse("totalFailures > 0").expect("a condition");
    let policy = policy(Some(MILLIS(50)), None, Some(BreakerSettings { trip, ..BreakerSettings::default() }));
    assert_eq!(policy.run(future::pending::<Result<(), Broken>>).await, Err(Broken::TimedOut));
    assert_eq!(policy.run(future::pending::<Result<(), Broken>>).await, Err(Broken::Refused(Refusal::Open)));
}

#[test]
fn the_narrowest_default_policy_holds_unless_there_is_a_target() {
    let seconds = |name: &str, seconds| (name.to_owned(), Duration::from_secs(seconds));
    let mut resource = Resource {
        timeouts: [
            seconds("DefaultTimeoutPolicy", 1),
            seconds("DefaultComponentTimeoutPolicy", 2),
            seconds("DefaultComponentOutboundTimeoutPolicy", 3),
            seconds("DefaultStatestoreComponentOutboundTimeoutPolicy", 4),
            seconds("own", 5),
        ]
        .into(),
        components: map([
            ("own", ComponentTarget { outbound: names("own", "", ""), ..ComponentTarget::default() }),
            ("bare", ComponentTarget::default()),
        ]),
        ..Resource::default()
    };
    let timeout = |policy: Policy| policy.rules.and_then(|rules| rules.timeout).map(|timeout| timeout.as_secs());
    let policies_ = policies(std::slice::from_ref(&resource));
    assert_eq!(timeout(policies_.component_outbound(Block::State, "own")), Some(5));
    assert_eq!(timeout(policies_.component_outbound(Block::State, "bare")), None, "a target has no defaults");
    assert_eq!(timeout(policies_.component_outbound(Block::State, "other")), Some(4));
    assert_eq!(timeout(policies_.component_outbound(Block::PubSub, "other")), Some(3));
    assert_eq!(timeout(policies_.component_inbound(Block::State, "other")), Some(2));
    assert_eq!(timeout(policies_.app("other", String::new)), Some(1));
    resource.timeouts.insert("DefaultAppTimeoutPolicy".to_owned(), Duration::from_secs(6));
    assert_eq!(timeout(policies(&[resource]).app("other", String::new)), Some(6));
}

#[test]
fn a_later_resource_wins_and_built_in_policies_keep_three_retries() {
    let resource = |retries: HashMap<String, Retry>| Resource {
        retries,
        apps: map([
            ("a", AppTarget { names: names("", "r", ""), breaker_cache_size: None }),
            ("s", AppTarget { names: names("", "DaprBuiltInServiceRetries", ""), breaker_cache_size: None }),
            ("n", AppTarget { names: names("", "DaprBuiltInActorNotFoundRetries", ""), breaker_cache_size: None }),
        ]),
        ..Resource::default()
    };
    let overrides = [
        ("r", constant(2, 2)),
        ("DaprBuiltInServiceRetries", constant(7, 1)),
        ("DaprBuiltInActorNotFoundRetries", constant(7, 9)),
    ];
    let policies = policies(&[resource(map([("r", constant(1, 1))])), resource(map(overrides))]);
    let retry = |app: &str| policies.app(app, String::new).rules.and_then(|rules| rules.retry.clone()).expect(app);
    assert_eq!(*retry("a"), constant(2, 2));
    assert_eq!(*retry("s"), constant(7, 3));
    assert_eq!(*retry("n"), constant(1000, 5));
}

#[tokio::test(start_paused = true)]
async fn each_method_of_an_app_has_a_breaker_and_old_ones_are_forgotten() {
    let trip = Trip::parse("totalFailures > 0").expect("a condition");
    let target = AppTarget { names: names("", "", "b"), breaker_cache_size: std::num::NonZeroUsize::new(1) };
    let resource = Resource {
        breakers: map([("b", BreakerSettings { trip, ..BreakerSettings::default() })]),
        apps: map([("a", target)]),
        ..Resource::default()
    };
    let policies = policies(&[resource]);
    let call = async |method: &str, fails: bool| {
        let flaky = Flaky::new(u32::from(fails), || Broken::Plain);
        policies.app("a", || format!("a:{method}")).run(|| flaky.call()).await
    };
    assert_eq!(call("x", true).await, Err(Broken::Plain));
    assert_eq!(call("x", false).await, Err(Broken::Refused(Refusal::Open)));
    assert_eq!(call("y", false).await, Ok(1));
    assert_eq!(call("x", false).await, Ok(1), "there was room for one");
}

#[tokio::test(start_paused = true)]
async fn what_policies_do_is_counted_once_per_operation() {
    let metrics = Metrics::default();
    let resource = Resource {
        name: "r".to_owned(),
        timeouts: map([("DefaultTimeoutPolicy", MILLIS(5))]),
        retries: map([("DefaultRetryPolicy", constant(1, 3))]),
        ..Resource::default()
    };
    let policies = Policies::new([&resource], &Identity::new("myapp"), &metrics);
    let policy = policies.component_outbound(Block::Secret, "vault");
    assert_eq!(policy.run(future::pending::<Result<(), Broken>>).await, Err(Broken::TimedOut));
    let text = metrics.render();
    for (name, policy) in
        [("count", "timeout"), ("count", "retry"), ("activations_total", "timeout"), ("activations_total", "retry")]
    {
        let line = format!(
            "dapr_resiliency_{name}{{app_id=\"myapp\",flow_direction=\"outbound\",name=\"r\",namespace=\"\",policy=\"{policy}\",status=\"\",target=\"Secretstore_vault\"}} 1\n"
        );
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}
