//! Errors of the blocks as a guest sees them. The only place that makes one.

use trilby_component::{ComponentError, ErrorKind as ComponentKind};
use trilby_core::{Code, Error, error::Kind};

use crate::{
    guest::Guest,
    wit::trilby::dapr::types::{self, ErrorKind},
};

impl types::Host for Guest {
    fn convert_error(&mut self, error: Error) -> wasmtime::Result<types::Error> {
        self.blocks().0.errors.record(error.code());
        Ok(types::Error {
            kind: kind(error.kind()),
            code: error.code().row().tag.to_owned(),
            message: error.message().to_owned(),
        })
    }
}

/// What a component says about one item among many, in a call that as a whole succeeds. `code` is what a call for this
/// item alone would fail with.
pub(crate) fn of_item(code: Code, error: &ComponentError) -> types::Error {
    let kind = match error.kind() {
        ComponentKind::InvalidRequest | ComponentKind::InvalidMetadata | ComponentKind::EtagInvalid => {
            ErrorKind::Invalid
        }
        ComponentKind::EtagMismatch => ErrorKind::Conflict,
        ComponentKind::NotFound => ErrorKind::NotFound,
        ComponentKind::Denied => ErrorKind::Denied,
        ComponentKind::Unsupported => ErrorKind::Unsupported,
        ComponentKind::Unavailable => ErrorKind::Unavailable,
        ComponentKind::Timeout => ErrorKind::Timeout,
        _ => kind(code.row().kind),
    };
    types::Error { kind, code: code.row().tag.to_owned(), message: error.to_string() }
}

fn kind(kind: Kind) -> ErrorKind {
    match kind {
        Kind::NotFound => ErrorKind::NotFound,
        Kind::Invalid => ErrorKind::Invalid,
        Kind::Denied => ErrorKind::Denied,
        Kind::Conflict => ErrorKind::Conflict,
        Kind::Unsupported => ErrorKind::Unsupported,
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Timeout => ErrorKind::Timeout,
        Kind::Internal => ErrorKind::Internal,
    }
}
