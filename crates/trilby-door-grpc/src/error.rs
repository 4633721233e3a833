//! The only place that makes a status of an error.

use std::collections::HashMap;

use http::StatusCode;
use prost::{Message, Name};
use prost_types::Any;
use tonic::{Code, Status};
use trilby_core::{Error, error::Details};
use trilby_proto::google::rpc;

/// Domain of every reason that Dapr gives.
const DOMAIN: &str = "dapr.io";
/// Dapr cuts an app's own words to this many bytes, because values in an `ErrorInfo` should be short.
const MAX_DETAIL_BYTES: usize = 63;

/// Notes a failed call, once.
pub(crate) fn log(error: &Error, app_id: &str, method: &str) {
    tracing::debug!(app_id, method, code = ?error.code(), message = error.message(), "call failed");
}

/// What the table says about `error`. A row without a reason is a plain status.
pub(crate) fn to_status(error: &Error) -> Status {
    let row = error.code().row();
    let code = Code::from_i32(row.grpc as i32);
    if row.reason.is_empty() {
        return Status::new(code, format!("{}{}", row.grpc_prefix, error.message()));
    }
    let details = error.details();
    let metadata = match details {
        Some(details) if row.metadata_over_grpc => details.metadata.clone().into_iter().collect(),
        _ => HashMap::new(),
    };
    let info = rpc::ErrorInfo { reason: row.reason.to_owned(), domain: DOMAIN.to_owned(), metadata };
    let described = if row.told { error.message() } else { "" };
    let mut packed = details.map(|details| pack(details, described)).unwrap_or_default();
    packed.push(any(&info));
    with_details(code, error.message(), packed)
}

/// The status of a call that ended with an HTTP status: an app's, or one that Dapr's door thinks in.
pub(crate) fn from_http(status: StatusCode, text: &str) -> Status {
    let reason = status_text(status);
    let metadata = HashMap::from([
        ("http.code".to_owned(), status.as_str().to_owned()),
        ("http.error_message".to_owned(), text[..text.floor_char_boundary(MAX_DETAIL_BYTES)].to_owned()),
    ]);
    let info = rpc::ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned(), metadata };
    with_details(code_of(status), reason, vec![any(&info)])
}

/// `BadRequest`, `Help`, `ResourceInfo`, in Dapr's order; the `ErrorInfo` comes after them.
fn pack(details: &Details, described: &str) -> Vec<Any> {
    let field = details.field.as_ref().map(|(field, description)| {
        let violation = rpc::bad_request::FieldViolation { field: field.clone(), description: description.clone() };
        any(&rpc::BadRequest { field_violations: vec![violation] })
    });
    let help = details.help.map(|(url, description)| {
        let link = rpc::help::Link { url: url.to_owned(), description: description.to_owned() };
        any(&rpc::Help { links: vec![link] })
    });
    let resource = details.resource.as_ref().map(|(kind, name)| {
        any(&rpc::ResourceInfo {
            resource_type: (*kind).to_owned(),
            resource_name: name.clone(),
            description: described.to_owned(),
            ..rpc::ResourceInfo::default()
        })
    });
    [field, help, resource].into_iter().flatten().collect()
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn with_details(code: Code, message: &str, details: Vec<Any>) -> Status {
    let status = rpc::Status { code: code as i32, message: message.to_owned(), details };
    Status::with_details(code, message, status.encode_to_vec().into())
}

/// Dapr's table from HTTP to gRPC.
fn code_of(status: StatusCode) -> Code {
    match status {
        _ if status.is_success() => Code::Ok,
        StatusCode::REQUEST_TIMEOUT => Code::Cancelled,
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT => Code::AlreadyExists,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// Dapr's table from gRPC to HTTP.
pub(crate) fn to_http(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Go's words for a status, where they are others than the registered ones.
fn status_text(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        StatusCode::URI_TOO_LONG => "Request URI Too Long",
        StatusCode::RANGE_NOT_SATISFIABLE => "Requested Range Not Satisfiable",
        other => other.canonical_reason().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(status: &Status) -> rpc::Status {
        rpc::Status::decode(status.details()).expect("a google.rpc.Status")
    }

    #[test]
    fn every_row_becomes_its_code_and_reason() {
        for code in trilby_core::Code::ALL {
            let row = code.row();
            let status = to_status(&Error::new(*code, "it failed"));
            assert_eq!(status.code() as i32, row.grpc as i32, "{code:?}");
            assert_eq!(status.message(), format!("{}it failed", row.grpc_prefix));
            if row.reason.is_empty() {
                assert!(status.details().is_empty(), "{code:?}");
                continue;
            }
            let packed = details(&status);
            assert_eq!((packed.code, packed.message.as_str()), (row.grpc as i32, "it failed"));
            let info = packed.details[0].to_msg::<rpc::ErrorInfo>().expect("an ErrorInfo");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (row.reason, DOMAIN));
        }
    }

    #[test]
    fn an_apps_words_are_cut_between_characters() {
        let text = "ž".repeat(40);
        let status = from_http(StatusCode::IM_A_TEAPOT, &text);
        assert_eq!((status.code(), status.message()), (Code::Unknown, "I'm a teapot"));
        let info = details(&status).details[0].to_msg::<rpc::ErrorInfo>().expect("an ErrorInfo");
        assert_eq!(info.metadata["http.code"], "418");
        assert_eq!(info.metadata["http.error_message"].len(), 62);
    }
}
