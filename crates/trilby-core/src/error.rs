//! The one error of the blocks, and the table that says how each door shows it.

mod table;

use std::{collections::BTreeMap, fmt};

use trilby_component::{ComponentError, ErrorKind};

pub use table::{Code, GrpcCode, Kind, Row};

/// The result of every block function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error as a caller of the blocks sees it: a row of the table, a message, and details where Dapr gives some.
#[derive(Debug)]
pub struct Error {
    code: Code,
    kind: Kind,
    message: String,
    details: Option<Box<Details>>,
}

/// What Dapr adds to its richer errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Metadata of the `ErrorInfo`.
    pub metadata: BTreeMap<String, String>,
    /// `ResourceInfo`: type and name.
    pub resource: Option<(&'static str, String)>,
    /// `BadRequest`: the field and what is wrong with it.
    pub field: Option<(String, String)>,
    /// `Help`: a link and what it leads to.
    pub help: Option<(&'static str, &'static str)>,
}

impl Error {
    /// An error of row `code`. `message` names the thing and, where there is one, the fix.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, kind: code.row().kind, message: message.into(), details: None }
    }

    /// An error caused by a component: what a program branches on follows the component's kind.
    pub(crate) fn from_component(code: Code, message: impl Into<String>, cause: &ComponentError) -> Self {
        Self::new(code, message).with_kind_of(cause.kind())
    }

    /// Lets a program branch on what went wrong further down.
    #[must_use]
    pub(crate) fn with_kind_of(mut self, cause: ErrorKind) -> Self {
        self.kind = match cause {
            ErrorKind::InvalidRequest | ErrorKind::InvalidMetadata | ErrorKind::EtagInvalid => Kind::Invalid,
            ErrorKind::EtagMismatch => Kind::Conflict,
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::Denied => Kind::Denied,
            ErrorKind::Unsupported => Kind::Unsupported,
            ErrorKind::Unavailable => Kind::Unavailable,
            ErrorKind::Timeout => Kind::Timeout,
            _ => self.code.row().kind,
        };
        self
    }

    /// Adds what Dapr says in its richer errors.
    #[must_use]
    pub(crate) fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The row of the table.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// What a program branches on; the WIT case.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message for people, without what a door puts in front of it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Dapr's richer details, if this error has any.
    #[must_use]
    pub fn details(&self) -> Option<&Details> {
        self.details.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
