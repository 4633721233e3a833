//! The closed set of ways in which a component can fail.

use std::fmt;

/// The result of every component operation.
pub type Result<T, E = ComponentError> = std::result::Result<T, E>;

/// What went wrong, as far as a caller can branch on it.
///
/// Blocks map a kind to an API error; retry policies look at nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The component's own configuration is missing something or malformed. Only [`open`](crate::catalog) returns it.
    InvalidMetadata,
    /// The request cannot be served as it is: a bad TTL, an unknown option.
    InvalidRequest,
    /// The etag is not one that this store could have given out.
    EtagInvalid,
    /// The item changed since the etag was read, or exists although it must not.
    EtagMismatch,
    /// The named thing does not exist. A missing *state item* is not an error; a missing secret is.
    NotFound,
    /// The backend refused the credentials or the operation.
    Denied,
    /// This component does not implement the operation.
    Unsupported,
    /// The backend cannot be reached or is overloaded. Worth a retry.
    Unavailable,
    /// The operation did not end in time. It may have happened.
    Timeout,
    /// Anything else.
    Internal,
}

impl ErrorKind {
    /// Whether trying the same request again can help. Dapr retries every state error but those about etags.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::Internal)
    }
}

/// A failed component operation: a kind to branch on and a message for people.
#[derive(Debug)]
pub struct ComponentError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ComponentError {
    /// An error of `kind` whose message names the thing and, where there is one, the fix.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Keeps the driver's own error for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Shorthand for [`ErrorKind::InvalidMetadata`].
    pub fn metadata(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidMetadata, message)
    }

    /// Shorthand for [`ErrorKind::InvalidRequest`].
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    /// Shorthand for [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Shorthand for [`ErrorKind::EtagMismatch`]; `reason` may be empty.
    pub fn etag_mismatch(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::EtagMismatch, reason)
    }

    /// What a caller can branch on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether this is about an etag, which no retry can mend.
    #[must_use]
    pub fn is_etag(&self) -> bool {
        matches!(self.kind, ErrorKind::EtagInvalid | ErrorKind::EtagMismatch)
    }
}

impl fmt::Display for ComponentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Dapr's clients look for these two prefixes, so they belong to the kind and not to each store.
        let prefix = match self.kind {
            ErrorKind::EtagMismatch => "possible etag mismatch. error from state store",
            ErrorKind::EtagInvalid => "invalid etag value",
            _ => return f.write_str(&self.message),
        };
        f.write_str(prefix)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl std::error::Error for ComponentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_errors_carry_the_prefix_that_clients_look_for() {
        assert_eq!(ComponentError::etag_mismatch("").to_string(), "possible etag mismatch. error from state store");
        assert_eq!(
            ComponentError::new(ErrorKind::EtagInvalid, "not a number").to_string(),
            "invalid etag value: not a number"
        );
        assert_eq!(ComponentError::request("no").to_string(), "no");
    }

    #[test]
    fn etag_errors_are_never_retried() {
        assert!(!ErrorKind::EtagMismatch.is_retryable());
        assert!(!ErrorKind::EtagInvalid.is_retryable());
        assert!(ErrorKind::Unavailable.is_retryable());
    }
}
