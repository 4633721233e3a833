//! Requests and responses between their two forms: records of the WIT and HTTP messages.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, StatusCode, Uri, header};
use trilby_core::{Body, Request, Response, body::CollectError};

use crate::wit::trilby::dapr::types;

/// Why a record cannot be sent as it is; names the part.
pub(crate) struct Invalid(pub(crate) String);

/// A guest's request, to send.
pub(crate) fn request_from_wit(record: types::Request) -> Result<Request, Invalid> {
    let types::Request { method, path, query, headers, body } = record;
    let target = match (path.starts_with('/'), query.is_empty()) {
        (true, true) => path,
        (false, true) => format!("/{path}"),
        (true, false) => format!("{path}?{query}"),
        (false, false) => format!("/{path}?{query}"),
    };
    let mut request = HttpRequest::new(Body::from(body));
    *request.method_mut() =
        Method::from_bytes(method.as_bytes()).map_err(|_| Invalid(format!("{method:?} is not an HTTP method")))?;
    *request.uri_mut() = Uri::try_from(&target)
        .map_err(|error| Invalid(format!("{target:?} is not a path and query, percent-encode them: {error}")))?;
    *request.headers_mut() = headers_from_wit(headers)?;
    Ok(request)
}

/// A guest's answer, to give back.
pub(crate) fn response_from_wit(record: types::Response) -> Result<Response, Invalid> {
    let mut response = Response::new(Body::from(record.body));
    *response.status_mut() = status(record.status)?;
    *response.headers_mut() = headers_from_wit(record.headers)?;
    Ok(response)
}

/// A request for a guest.
pub(crate) async fn request_to_wit(request: Request, max_body_bytes: usize) -> Result<types::Request, CollectError> {
    let (parts, body) = request.into_parts();
    Ok(types::Request {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: headers_to_wit(&parts.headers),
        body: body.collect(max_body_bytes).await?.into(),
    })
}

/// An answer for a guest.
pub(crate) async fn response_to_wit(
    response: Response,
    max_body_bytes: usize,
) -> Result<types::Response, CollectError> {
    let (parts, body) = response.into_parts();
    Ok(types::Response {
        status: parts.status.as_u16(),
        headers: headers_to_wit(&parts.headers),
        body: body.collect(max_body_bytes).await?.into(),
    })
}

/// The statuses that end a call. The ones below announce another answer, and there is none.
pub(crate) fn status(number: u16) -> Result<StatusCode, Invalid> {
    let valid = if (200..600).contains(&number) { StatusCode::from_u16(number).ok() } else { None };
    valid.ok_or_else(|| Invalid(format!("{number} is not the status of an answer, 200 to 599 are")))
}

fn headers_to_wit(headers: &HeaderMap) -> Vec<(String, String)> {
    let to_wit = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(to_wit).collect()
}

fn headers_from_wit(pairs: Vec<(String, String)>) -> Result<HeaderMap, Invalid> {
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let name: HeaderName = name.parse().map_err(|_| Invalid(format!("{name:?} is not a header name")))?;
        if belongs_to_transport(&name) {
            continue;
        }
        let value = HeaderValue::try_from(value)
            .map_err(|_| Invalid(format!("the value of header {name} holds control characters")))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Whether a header says how a message travels rather than what it is. Whoever sends the message writes those.
pub(crate) fn belongs_to_transport(name: &HeaderName) -> bool {
    is_hop_by_hop(name) || name == header::CONTENT_LENGTH
}

/// Whether a guest may neither set nor see a header, because it belongs to one connection.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "host"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, query: &str, headers: &[(&str, &str)]) -> Result<Request, String> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let record =
            types::Request { method: method.into(), path: path.into(), query: query.into(), headers, body: vec![1] };
        request_from_wit(record).map_err(|Invalid(message)| message)
    }

    #[test]
    fn a_path_needs_no_slash_and_a_query_no_question_mark() {
        for (path, query, expect) in
            [("a/b", "", "/a/b"), ("/a", "x=1", "/a?x=1"), ("", "x=1", "/?x=1"), ("a%20b", "", "/a%20b")]
        {
            let request = request("GET", path, query, &[]).expect("valid");
            assert_eq!(request.uri(), expect, "{path:?} {query:?}");
        }
    }

    #[test]
    fn what_is_invalid_is_named() {
        let error = |result: Result<Request, String>| result.expect_err("invalid");
        assert_eq!(error(request("G T", "/", "", &[])), "\"G T\" is not an HTTP method");
        assert!(error(request("GET", "/a b", "", &[])).starts_with("\"/a b\" is not a path and query"));
        assert_eq!(error(request("GET", "/", "", &[("a b", "")])), "\"a b\" is not a header name");
        assert_eq!(
            error(request("GET", "/", "", &[("x-a", "1\r\n2")])),
            "the value of header x-a holds control characters"
        );
    }

    #[test]
    fn connection_headers_are_left_out() {
        let request = request("GET", "/", "", &[("Connection", "close"), ("Content-Length", "9"), ("x-a", "1")]);
        let headers = request.expect("valid").headers().clone();
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-a"]);
    }

    #[test]
    fn only_final_statuses_are_answers() {
        assert!(status(200).is_ok() && status(599).is_ok());
        for number in [0, 100, 101, 199, 600, 1000] {
            assert!(status(number).is_err(), "{number}");
        }
    }
}
