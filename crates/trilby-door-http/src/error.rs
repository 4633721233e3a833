//! The only place that builds an error response.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde::Serialize;
use trilby_core::{
    Body, Error, Response,
    error::{Details, Row},
};

use crate::codec;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Dapr's two shapes: with `details` where the table says so, else without. Member order as in golden/http.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(rename = "errorCode")]
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "@type")]
enum Detail<'a> {
    #[serde(rename = "type.googleapis.com/google.rpc.BadRequest")]
    BadRequest { field_violations: [FieldViolation<'a>; 1] },
    #[serde(rename = "type.googleapis.com/google.rpc.Help")]
    Help { links: [Link; 1] },
    #[serde(rename = "type.googleapis.com/google.rpc.ResourceInfo")]
    ResourceInfo { description: &'a str, owner: &'static str, resource_name: &'a str, resource_type: &'static str },
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    ErrorInfo { domain: &'static str, metadata: Option<&'a BTreeMap<String, String>>, reason: &'static str },
}

#[derive(Serialize)]
struct FieldViolation<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'a str,
    description: String,
}

#[derive(Serialize)]
struct Link {
    url: &'static str,
    description: &'static str,
}

/// The answer for an error of the blocks, as its row of the table says.
pub(crate) fn respond(error: &Error) -> Response {
    let row = error.code().row();
    tracing::debug!(code = ?error.code(), status = row.status, message = error.message(), "request failed");
    let message = match row.http_message {
        Some(message) => message.to_owned(),
        None => format!("{}{}", row.http_prefix, error.message()),
    };
    let details = match error.details() {
        Some(details) if row.rich => list(details, &row, error.message()),
        _ => Vec::new(),
    };

    let answer = Answer { code: row.tag, message: &message, details };
    let mut response = codec::json(codec::encode(&answer));
    *response.status_mut() = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn list<'a>(details: &'a Details, row: &Row, message: &'a str) -> Vec<Detail<'a>> {
    let (prefix, reason) = (row.http_prefix, row.reason);
    let field = details.field.as_ref().map(|(field, description)| {
        let description = format!("{prefix}{description}");
        Detail::BadRequest { field_violations: [FieldViolation { field, description }] }
    });
    let help = details.help.map(|(url, description)| Detail::Help { links: [Link { url, description }] });
    let resource = details.resource.as_ref().map(|(resource_type, resource_name)| Detail::ResourceInfo {
        description: if row.told { message } else { "" },
        owner: "",
        resource_name,
        resource_type,
    });
    let metadata = (row.told || !details.metadata.is_empty()).then_some(&details.metadata);
    let info = Detail::ErrorInfo { domain: "dapr.io", metadata, reason };
    field.into_iter().chain(help).chain(resource).chain([info]).collect()
}

/// A text, as Go's `http.Error` writes it; where daprd's own handlers were never reached.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

/// What Go's server says to a request line that it cannot parse. See golden/http/state-mem.jsonl, `bad%zz`.
pub(crate) fn bad_request() -> Response {
    let mut response = Response::new(Body::from("400 Bad Request"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

#[cfg(test)]
mod tests {
    use trilby_core::Code;

    use super::*;

    #[tokio::test]
    async fn every_row_becomes_a_response_with_its_status_and_tag() {
        for code in Code::ALL {
            let response = respond(&Error::new(*code, "it <failed>"));
            let row = code.row();
            assert_eq!(response.status().as_u16(), row.status, "{code:?}");
            let body = response.into_body().collect(1 << 16).await.expect("in hand");
            let start = format!(r#"{{"errorCode":"{}","message":"#, row.tag);
            assert!(body.starts_with(start.as_bytes()), "{code:?} {body:?}");
        }
    }

    #[test]
    fn details_come_in_the_order_of_daprs_builder() {
        let details = Details {
            metadata: [("appID".to_owned(), "myapp".to_owned())].into(),
            resource: Some(("state", "mem".to_owned())),
            field: Some((String::new(), "bad".to_owned())),
            help: Some(("https://x", "see")),
        };
        let row = Row { http_prefix: "why: ", reason: "REASON", ..Code::StateIllegalKey.row() };
        let text = String::from_utf8(codec::encode(&list(&details, &row, "it failed"))).expect("UTF-8");
        let expect = concat!(
            r#"[{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":[{"description":"why: bad"}]},"#,
            r#"{"@type":"type.googleapis.com/google.rpc.Help","links":[{"url":"https://x","description":"see"}]},"#,
            r#"{"@type":"type.googleapis.com/google.rpc.ResourceInfo","description":"","owner":"","#,
            r#""resource_name":"mem","resource_type":"state"},"#,
            r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","#,
            r#""metadata":{"appID":"myapp"},"reason":"REASON"}]"#,
        );
        assert_eq!(text, expect);
    }
}
