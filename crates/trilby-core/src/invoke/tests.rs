//! Targets, headers and paths of service invocation, against apps that are Rust closures.

use std::sync::Mutex;

use super::*;
use crate::{Body, app};

type Seen = Arc<Mutex<Vec<http::request::Parts>>>;

struct Apps(HashMap<String, Arc<dyn AppChannel>>);

#[async_trait]
impl NameResolver for Apps {
    async fn resolve(&self, id: &str, _: Option<&str>) -> Result<Option<Arc<dyn AppChannel>>, ChannelError> {
        Ok(self.0.get(id).cloned())
    }
}

/// An invocation block of app `caller`, where `caller` and `callee` note what reaches them.
fn fixture() -> (InvokeApi, Seen) {
    let seen = Seen::default();
    let notes = Arc::clone(&seen);
    let app: Arc<dyn AppChannel> = Arc::new(app::from_fn(move |request: Request| {
        notes.lock().unwrap().push(request.into_parts().0);
        async { Response::new(Body::from("hi")) }
    }));
    let apps = Apps([("caller".to_owned(), Arc::clone(&app)), ("callee".to_owned(), app)].into());
    (InvokeApi::new(Identity::new("caller"), Arc::new(apps), HashMap::new(), None), seen)
}

fn get(path: &str) -> http::request::Builder {
    http::Request::get(path)
}

#[tokio::test]
async fn the_callee_learns_who_calls_and_cannot_be_lied_to() {
    let (invoke, seen) = fixture();
    let request = get("/m?q=1").header(CALLER_APP_ID, "admin").body(Body::Empty).expect("a request");
    invoke.call(&Ctx::default(), "callee", request).await.expect("answers");
    let parts = seen.lock().unwrap().remove(0);
    assert_eq!(parts.uri, "/m?q=1");
    assert_eq!(parts.headers[CALLER_APP_ID], "caller");
    assert_eq!(parts.headers[CALLER_NAMESPACE], "default");
    assert_eq!(parts.headers[CALLEE_APP_ID], "callee");
}

#[tokio::test]
async fn connection_headers_stay_behind() {
    let (invoke, seen) = fixture();
    let request = get("/m")
        .header("connection", "keep-alive, x-private")
        .header("x-private", "1")
        .header("te", "trailers")
        .header("x-kept", "1")
        .body(Body::Empty)
        .expect("a request");
    invoke.call(&Ctx::default(), "caller", request).await.expect("answers");
    let headers = seen.lock().unwrap().remove(0).headers;
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["traceparent", "x-kept"]);
}

#[tokio::test]
async fn an_unknown_app_is_named_in_the_error() {
    let (invoke, _) = fixture();
    let error = invoke.call(&Ctx::default(), "noapp", get("/m").body(Body::Empty).expect("a request")).await;
    let error = error.expect_err("nobody is called that");
    assert_eq!(error.code(), Code::Invoke);
    assert_eq!(error.kind(), crate::error::Kind::NotFound);
    assert_eq!(error.message(), "failed to invoke, id: noapp, err: couldn't find service: noapp");
}

#[tokio::test]
async fn a_target_that_names_nothing_is_refused() {
    let (invoke, _) = fixture();
    for (target, code) in [("", Code::InvokeNoTarget), ("a.b.c", Code::Invoke), ("http://example.com", Code::Invoke)] {
        let request = get("/m").body(Body::Empty).expect("a request");
        let error = invoke.call(&Ctx::default(), target, request).await.expect_err(target);
        assert_eq!(error.code(), code, "{target}");
    }
}

#[test]
fn base_urls_keep_their_path_prefix() {
    let join = |base: &str, method: &str| {
        join(&base.parse().expect("a URI"), &method.parse().expect("a URI")).expect("joins").to_string()
    };
    assert_eq!(join("http://h:1", "/m?q=1"), "http://h:1/m?q=1");
    assert_eq!(join("https://h/api/", "/m"), "https://h/api/m");
}
