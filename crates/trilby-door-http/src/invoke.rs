//! Service invocation: finding out whom a request is for. The rest is the block's.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, Uri, header::AUTHORIZATION};
use trilby_core::{
    Api, Body, Code, Ctx, Error, Request, Response, Result,
    invoke::{DAPR_APP_ID, no_target},
};

use crate::codec;

/// Any method on `v1.0/invoke/{target}/method/{path}`, and on any other path with the target in a header.
pub(crate) async fn call(
    api: &Api,
    ctx: &Ctx,
    method: Method,
    uri: &Uri,
    headers: HeaderMap,
    body: Body,
    max_body_bytes: usize,
) -> Result<Response> {
    let (target, path) = find_target(uri.path(), &headers).ok_or_else(no_target)?;
    let failed = |reason: &dyn std::fmt::Display| {
        Error::new(Code::Invoke, format!("failed to invoke, id: {target}, err: {reason}"))
    };
    let mut request = Request::new(codec::limit(body, max_body_bytes).await.map_err(|error| failed(&error))?);
    *request.method_mut() = method;
    *request.uri_mut() = join(path, uri.query()).map_err(|error| failed(&error))?;
    *request.headers_mut() = headers;

    api.invoke.call(ctx, &target, request).await
}

/// Target and method path, the latter as escaped as it came. Three places are looked at, in Dapr's order.
fn find_target<'a>(path: &'a str, headers: &HeaderMap) -> Option<(Cow<'a, str>, &'a str)> {
    let in_header = headers.get(DAPR_APP_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    if let Some(id) = in_header.map(str::to_owned).or_else(|| in_basic_auth(headers)) {
        return Some((Cow::Owned(id), path));
    }
    // The path has not been cleaned: that would break the `//` of a target that is an absolute URL.
    let rest = strip_segments(path, ["v1.0", "invoke"])?;
    let (target, method) = rest.split_once("/method/").filter(|(target, _)| !target.is_empty())?;
    Some((codec::unescape(target).unwrap_or(Cow::Borrowed(target)), method))
}

/// The user name `dapr-app-id` with the app id as password, for clients that can only set a URL:
/// `http://dapr-app-id:ID@localhost:3500/PATH`.
fn in_basic_auth(headers: &HeaderMap) -> Option<String> {
    let credentials = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let credentials = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let (user, id) = credentials.split_once(':')?;
    (user.eq_ignore_ascii_case(DAPR_APP_ID.as_str()) && !id.contains(':')).then(|| id.to_owned())
}

/// What follows the leading segments, however many slashes stand between them.
fn strip_segments<'a>(mut path: &'a str, segments: [&str; 2]) -> Option<&'a str> {
    for segment in segments {
        path = path.trim_start_matches('/').strip_prefix(segment)?;
        if !path.starts_with('/') {
            return None;
        }
    }
    Some(path.trim_start_matches('/'))
}

fn join(path: &str, query: Option<&str>) -> Result<Uri, http::uri::InvalidUri> {
    let path = path.trim_start_matches('/');
    match query {
        Some(query) => format!("/{path}?{query}"),
        None => format!("/{path}"),
    }
    .parse()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(path: &str, expect: Option<(&str, &str)>) {
        let found = find_target(path, &HeaderMap::new());
        assert_eq!(found, expect.map(|(target, method)| (target.into(), method)), "{path}");
    }

    #[test]
    fn the_path_names_target_and_method() {
        check("/v1.0/invoke/app/method/a/b%2Fc", Some(("app", "a/b%2Fc")));
        check("/v1.0/invoke/app/method/", Some(("app", "")));
        check("//v1.0//invoke///app/method//x//y/", Some(("app", "/x//y/")));
        check("/v1.0/invoke/http://h:1/method/x", Some(("http://h:1", "x")));
        check("/v1.0/invoke/http%3A%2F%2Fh%3A1/method/x", Some(("http://h:1", "x")));
        check("/v1.0/invoke/app.ns/method/../x", Some(("app.ns", "../x")));
    }

    #[test]
    fn a_path_without_target_or_method_names_nothing() {
        for path in [
            "/",
            "/v1.0/invoke/app/method",
            "/v1.0/invoke//method/x",
            "/v1.0/invoke/app/x",
            "/v1.0/invokes/a/method/b",
            "*",
        ] {
            check(path, None);
        }
    }

    #[test]
    fn a_header_wins_over_the_path() {
        let header = |name, value| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        let path = "/v1.0/invoke/app/method/x";
        let found = find_target(path, &header(DAPR_APP_ID, "other"));
        assert_eq!(found, Some(("other".into(), path)));
        // dapr-app-id:other
        let found = find_target("/x", &header(AUTHORIZATION, "Basic ZGFwci1hcHAtaWQ6b3RoZXI="));
        assert_eq!(found, Some(("other".into(), "/x")));
        // user:other
        assert_eq!(find_target("/x", &header(AUTHORIZATION, "Basic dXNlcjpvdGhlcg==")), None);
    }
}
