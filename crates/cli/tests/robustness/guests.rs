//! Hostile guests: each misdeed costs its own call, with the reason in the log, and nobody else notices.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    ask, eventually, memory,
    running::{Running, Site},
    support::{HttpConnection, free_port, guest},
    text, within,
};

const CALL_TIMEOUT: Duration = Duration::from_millis(500);
const SPINNERS: usize = 8;

/// A hostile app and its neighbour in one process.
struct Street {
    trilby: Running,
    _site: Site,
    /// Where the two are found.
    bad: u16,
    good: u16,
    /// Dapr's API of the neighbour.
    dapr: u16,
}

impl Street {
    async fn open(call_timeout: Duration) -> Option<Self> {
        let (hostile, hello) = (guest("hostile")?, guest("hello")?);
        let (bad, good, dapr) = (free_port().await, free_port().await, free_port().await);
        let apps = format!(
            "
version: 1
apps:
- appID: bad
  wasm: {}
  appPort: {bad}
  wasmOptions: {{ callTimeout: {}ms, memory: 32Mi }}
- appID: good
  wasm: {}
  appPort: {good}
  daprHTTPPort: {dapr}
",
            hostile.display(),
            call_timeout.as_millis(),
            hello.display()
        );
        let site = Site::new(&[("dapr.yaml", &apps)]);
        let mut trilby = site.trilby("run -f dapr.yaml");
        trilby.logged("2 apps are running").await;
        Some(Self { trilby, _site: site, bad, good, dapr })
    }

    /// Both answer, by either way in.
    async fn check_well(&self, after: &str) {
        for (port, path, expect) in [
            (self.bad, "/still", "/still is well\n"),
            (self.good, "/", "hello from a guest\n"),
            (self.dapr, "/v1.0/invoke/bad/method/still", "/still is well\n"),
            (self.dapr, "/v1.0/invoke/good/method/", "hello from a guest\n"),
        ] {
            let answer = ask(port, "GET", path, b"").await;
            assert_eq!((answer.status, text(&answer).as_str()), (200, expect), "{path} after {after}");
        }
    }

    /// What the log says since `start`, of which only the lines of the hostile app.
    fn log_of_bad(&self, start: usize) -> Vec<String> {
        let log = self.trilby.log();
        let lines = log.get(start..).unwrap_or_default().lines();
        lines.filter(|line| line.contains(" bad | ")).map(str::to_owned).collect()
    }

    /// Waits until the log gives a reason, as an error of the hostile app.
    async fn logged(&self, start: usize, reason: &str) {
        let is_there = async || {
            self.log_of_bad(start).iter().any(|line| line.contains(" error   bad | ") && line.contains(reason))
        };
        eventually(Duration::from_secs(5), &format!("the line that says {reason:?}"), is_there).await;
    }
}

#[tokio::test]
async fn each_misdeed_fails_alone_and_is_logged_with_its_reason() {
    let Some(mut street) = Street::open(CALL_TIMEOUT).await else { return };
    for (path, status, reason) in [
        ("/spin", 504, "no answer within 500ms"),
        ("/stdout", 504, "no answer within 500ms"),
        ("/alloc", 502, "guest ran out of memory"),
        ("/trap", 502, "guest trapped"),
        ("/recurse", 502, "guest ran out of stack"),
        ("/exit", 502, "guest exited with code"),
        ("/no-answer", 502, "guest's answer is invalid"),
    ] {
        let start = street.trilby.log().len();
        let answer = ask(street.bad, "GET", path, b"").await;
        assert_eq!(answer.status, status, "{path}: {}", text(&answer));
        street.logged(start, reason).await;

        let start = street.trilby.log().len();
        let answer = ask(street.dapr, "GET", &format!("/v1.0/invoke/bad/method{path}"), b"").await;
        assert_eq!(answer.status, 500, "{path}: {}", text(&answer));
        assert!(text(&answer).contains("ERR_DIRECT_INVOKE"), "{path}: {}", text(&answer));
        street.logged(start, reason).await;
        street.check_well(path).await;
    }
    assert_eq!(street.trilby.stop().await, Some(0));
}

#[tokio::test]
async fn ten_thousand_requests_of_a_guest_end_at_its_limit() {
    let Some(mut street) = Street::open(Duration::from_secs(8)).await else { return };
    let start = street.trilby.log().len();
    let began = Instant::now();
    let answer = ask(street.bad, "GET", "/requests?good", b"").await;
    println!("10,000 requests of a guest were stopped after {:?}", began.elapsed());
    assert_eq!(answer.status, 502, "{}", text(&answer));
    street.logged(start, "guest holds more host resources at a time than its limit allows").await;
    street.check_well("10,000 requests").await;
    assert_eq!(street.trilby.stop().await, Some(0));
}

#[tokio::test]
async fn answers_that_are_none_are_not_passed_on() {
    let Some(mut street) = Street::open(CALL_TIMEOUT).await else { return };
    // Refused inside the guest, header by header, which then answers properly.
    let answer = ask(street.bad, "GET", "/bad-headers", b"").await;
    let text = text(&answer);
    assert_eq!(answer.status, 200);
    assert!(text.lines().count() == 5 && text.lines().all(|line| line.contains("Some(HeaderError::")), "{text}");
    assert!(!answer.headers.iter().any(|(name, _)| name == "set-cookie"), "{:?}", answer.headers);

    // The answer was under way when it went wrong, so it breaks off, unless its beginning was still held back.
    for (path, reason) in [
        ("/big-body", "body is larger than the limit of 4194304 bytes"),
        ("/endless-body", "body is larger than the limit of 4194304 bytes"),
        ("/short-body", "its body broke off"),
    ] {
        let start = street.trilby.log().len();
        let mut connection = HttpConnection::open(street.bad).await.expect("it listens");
        let answer = within(Duration::from_secs(8), path, connection.send("GET", path, &[], b"")).await;
        assert!(answer.is_none_or(|answer| answer.status == 502), "{path} came whole");
        street.logged(start, reason).await;
        street.check_well(path).await;
    }
    assert_eq!(street.trilby.stop().await, Some(0));
}

#[tokio::test]
async fn endless_output_does_not_fill_the_log() {
    let Some(mut street) = Street::open(Duration::from_secs(1)).await else { return };
    for path in ["/stdout", "/logs"] {
        let start = street.trilby.log().len();
        assert_eq!(ask(street.bad, "GET", path, b"").await.status, 504);
        let written = street.trilby.log().len() - start;
        println!("{path} of one second: {} KiB of log", written >> 10);
        // 2,000 lines at once and 1,000 a second, each with what was dropped before it, of some 700 bytes.
        assert!(written < 4 << 20, "{path}: {written} bytes");
    }
    assert_eq!(street.trilby.stop().await, Some(0));
}

#[tokio::test]
async fn requests_that_are_denied_do_not_fill_the_log() {
    let Some(mut street) = Street::open(Duration::from_secs(2)).await else { return };
    let start = street.trilby.log().len();
    ask(street.bad, "GET", "/requests?192.0.2.1:80", b"").await;
    street.check_well("requests to a host that is not granted").await;
    let denied = street.log_of_bad(start).iter().filter(|line| line.contains("denied a host")).count();
    // It asks 10,000 times; 2,000 lines at once and 1,000 a second are let through.
    assert!((1..6000).contains(&denied), "{denied} lines say that a host was denied");
    assert_eq!(street.trilby.stop().await, Some(0));
}

#[tokio::test]
async fn many_that_allocate_without_end_have_no_more_than_their_limits() {
    let Some(mut street) = Street::open(Duration::from_secs(5)).await else { return };
    let calls: Vec<_> = (0..32).map(|_| tokio::spawn(ask(street.bad, "GET", "/alloc", b""))).collect();
    for call in calls {
        assert_eq!(call.await.expect("an answer").status, 502);
    }
    street.check_well("32 that allocate").await;
    if let Some(resident) = memory::resident(street.trilby.pid()) {
        println!("resident after 32 guests that allocate: {} MiB", resident >> 20);
        // What an instance had is given back with it.
        assert!(resident < 400 << 20, "{resident} bytes");
    }
    assert_eq!(street.trilby.stop().await, Some(0));
}

/// Median and 99th percentile of requests on one connection.
async fn latencies(port: u16, count: usize) -> (Duration, Duration) {
    let mut connection = HttpConnection::open(port).await.expect("it listens");
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        let answer = connection.send("GET", "/", &[], b"").await.expect("an answer");
        assert_eq!(answer.status, 200);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    (times[count / 2], times[count * 99 / 100])
}

#[tokio::test]
async fn a_neighbour_of_guests_that_spin_is_answered() {
    let Some(mut street) = Street::open(Duration::from_secs(4)).await else { return };
    latencies(street.good, 100).await;
    let quiet = latencies(street.good, 400).await;

    let spinning: Vec<_> = (0..SPINNERS).map(|_| tokio::spawn(ask(street.bad, "GET", "/spin", b""))).collect();
    sleep(Duration::from_millis(300)).await;
    let loud = latencies(street.good, 400).await;
    assert!(spinning.iter().all(|call| !call.is_finished()), "they spin all the while");
    println!(
        "neighbour of {SPINNERS} guests that spin: median {:?} and p99 {:?}; quiet {:?} and {:?}",
        loud.0, loud.1, quiet.0, quiet.1
    );
    // Generous: the machine has other things to do. A thread that is lost to a guest would cost seconds.
    assert!(loud.1 < quiet.1 * 20 + Duration::from_millis(50), "{loud:?}, quiet {quiet:?}");

    for call in spinning {
        assert_eq!(call.await.expect("an answer").status, 504);
    }
    street.check_well("spinning").await;
    assert_eq!(street.trilby.stop().await, Some(0));
}
