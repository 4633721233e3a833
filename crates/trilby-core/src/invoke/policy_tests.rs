//! Calls under policies: what is sent again, and what the caller gets.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;
use crate::{
    Body,
    body::BoxError,
    metrics::Metrics,
    resiliency::{Backoff, BreakerSettings, Resource, Retry, StatusCodes, Trip},
};

/// Answers every call with the status that its body says, and counts them.
#[derive(Default)]
struct Echo {
    calls: AtomicU32,
}

#[async_trait]
impl AppChannel for Echo {
    async fn invoke(&self, _: &Ctx, request: Request) -> Result<Response, ChannelError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let body = request.into_body().collect(100).await.expect("a body");
        if body == "hang" {
            std::future::pending::<()>().await;
        }
        let status: u16 = std::str::from_utf8(&body).expect("text").parse().expect("a status");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status.try_into().expect("a status");
        Ok(response)
    }

    async fn proxy(&self, _: &Ctx, request: Request) -> Result<Response, ChannelError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let body = request.into_body().collect(100).await;
        let body = body.map_err(|error| ChannelError::new(ErrorKind::Internal, error.to_string()))?;
        let code = HeaderValue::from_bytes(&body[5..]).expect("a code");
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), code)]);
        let frames = [Ok::<_, BoxError>(Frame::trailers(trailers))];
        Ok(Response::new(Body::stream(StreamBody::new(futures_util::stream::iter(frames)))))
    }
}

struct Apps(Arc<dyn AppChannel>);

#[async_trait]
impl NameResolver for Apps {
    async fn resolve(&self, _: &str, _: Option<&str>) -> Result<Option<Arc<dyn AppChannel>>, ChannelError> {
        Ok(Some(Arc::clone(&self.0)))
    }
}

fn fixture(resource: &Resource) -> (InvokeApi, Arc<Echo>) {
    let (app, echo) = (Identity::new("caller"), Arc::new(Echo::default()));
    let policies = Policies::new([resource], &app, &Metrics::default());
    let resolver = Arc::new(Apps(Arc::clone(&echo) as Arc<dyn AppChannel>));
    (InvokeApi::new(app, resolver, HashMap::new(), None).with_policies(policies), echo)
}

fn retries(http_codes: &str, grpc_codes: &str) -> Resource {
    let retry = Retry {
        http_codes: StatusCodes::http(http_codes).expect("codes"),
        grpc_codes: StatusCodes::grpc(grpc_codes).expect("codes"),
        ..Retry::new(Backoff::Constant(Duration::from_millis(1)), Some(2))
    };
    Resource { retries: HashMap::from([("DefaultAppRetryPolicy".to_owned(), retry)]), ..Resource::default() }
}

/// A body that does not say how long it is.
fn streamed(text: &'static str) -> Body {
    let frames = [Ok::<_, BoxError>(Frame::data(Bytes::from_static(text.as_bytes())))];
    Body::stream(StreamBody::new(futures_util::stream::iter(frames)))
}

async fn call(invoke: &InvokeApi, body: impl Into<Body>) -> Response {
    let mut request = Request::new(body.into());
    *request.uri_mut() = "/m".parse().expect("a path");
    invoke.call(&Ctx::default(), "callee", request).await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn a_bad_status_is_tried_again_with_the_same_body_and_then_passed_on() {
    let (invoke, echo) = fixture(&retries("200,400-500,503", ""));
    for (status, calls) in [(200, 1), (304, 1), (399, 1), (401, 3), (500, 3), (502, 1), (503, 3)] {
        echo.calls.store(0, Ordering::Relaxed);
        let response = call(&invoke, status.to_string()).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.into_body().collect(10).await.expect("a body"), status.to_string());
        assert_eq!(echo.calls.load(Ordering::Relaxed), calls, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_length_is_sent_once() {
    let (invoke, echo) = fixture(&retries("", ""));
    let response = call(&invoke, streamed("500")).await;
    assert_eq!(response.status(), 500);
    assert_eq!(echo.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_for_every_attempt_and_a_body_of_unknown_length_has_one() {
    let timeouts = HashMap::from([("DefaultAppTimeoutPolicy".to_owned(), Duration::from_secs(1))]);
    let (invoke, echo) = fixture(&Resource { timeouts, ..retries("", "") });
    for (body, calls) in [(Body::from("hang"), 3), (streamed("hang"), 1)] {
        echo.calls.store(0, Ordering::Relaxed);
        let began = tokio::time::Instant::now();
        let error = invoke.call(&Ctx::default(), "callee", Request::new(body)).await.expect_err("it hangs");
        assert_eq!(error.code(), Code::InvokeTimeout);
        assert_eq!(error.message(), "failed to invoke, id: callee, err: context deadline exceeded");
        assert_eq!(echo.calls.load(Ordering::Relaxed), calls);
        assert_eq!(began.elapsed().as_secs(), u64::from(calls));
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_says_so_to_the_caller() {
    let trip = Trip::parse("consecutiveFailures >= 2").expect("a condition");
    let breaker = BreakerSettings { trip, ..BreakerSettings::default() };
    let breakers = HashMap::from([("DefaultAppCircuitBreakerPolicy".to_owned(), breaker)]);
    let (invoke, echo) = fixture(&Resource { breakers, ..Resource::default() });
    for _ in 0..2 {
        assert_eq!(call(&invoke, "500").await.status(), 500);
    }
    let error = invoke.call(&Ctx::default(), "callee", Request::new(Body::from("200"))).await;
    assert!(error.is_ok(), "another method has another breaker");
    let mut request = Request::new(Body::from("200"));
    *request.uri_mut() = "/m".parse().expect("a path");
    let error = invoke.call(&Ctx::default(), "callee", request).await.expect_err("it is open");
    assert_eq!(error.code(), Code::Invoke);
    assert_eq!(error.message(), "failed to invoke, id: callee, err: circuit breaker is open");
    assert_eq!(echo.calls.load(Ordering::Relaxed), 3);
}

fn grpc(code: &'static str, messages: usize) -> Request {
    let message = |_| {
        let message = [&[0, 0, 0, 0, u8::try_from(code.len()).expect("short")], code.as_bytes()].concat();
        Ok::<_, BoxError>(Frame::data(Bytes::from(message)))
    };
    Request::new(Body::stream(StreamBody::new(futures_util::stream::iter((0..messages).map(message)))))
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_is_tried_again_by_its_code_unless_it_is_the_callers_own_or_says_that_it_is_a_stream() {
    let (invoke, echo) = fixture(&retries("", "1,12"));
    let mut stream = grpc("1", 1);
    stream.headers_mut().insert(DAPR_STREAM, HeaderValue::from_static("true"));
    for (target, request, calls) in [
        ("callee", grpc("0", 1), 1),
        ("callee", grpc("1", 1), 3),
        ("callee", grpc("12", 1), 3),
        ("callee", grpc("2", 1), 1),
        ("caller", grpc("1", 1), 1),
        ("callee", stream, 1),
    ] {
        echo.calls.store(0, Ordering::Relaxed);
        invoke.proxy(&Ctx::default(), target, request).await.expect("an answer");
        assert_eq!(echo.calls.load(Ordering::Relaxed), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_say_so_is_refused_rather_than_repeated() {
    let (invoke, _) = fixture(&retries("", ""));
    let error = invoke.proxy(&Ctx::default(), "callee", grpc("0", 2)).await.expect_err("two messages");
    assert_eq!(error.code(), Code::ProxyStreamed);
    assert_eq!(error.message(), "cannot use resiliency policies with retries on streaming RPCs");
}
