//! What has to be true of an item for a write to happen: etags and concurrency modes in one value.

use trilby_component::state::{Concurrency, DeleteRequest, SetRequest};

/// What has to be true of an item for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing: the last write wins.
    Any,
    /// The item does not exist.
    Absent,
    /// The item exists and has this etag.
    Etag(String),
}

impl Condition {
    pub(super) fn of_set(request: &SetRequest) -> Self {
        Self::new(request.etag.as_deref(), &request.options.concurrency)
    }

    pub(super) fn of_delete(request: &DeleteRequest) -> Self {
        Self::new(request.etag.as_deref(), &request.options.concurrency)
    }

    /// An etag is checked in every mode, even last-write, as Dapr's stores do.
    fn new(etag: Option<&str>, concurrency: &Concurrency) -> Self {
        match etag {
            Some(etag) if !etag.is_empty() => Self::Etag(etag.to_owned()),
            _ if *concurrency == Concurrency::FirstWrite => Self::Absent,
            _ => Self::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_counts_in_every_mode_and_an_empty_one_in_none() {
        for mode in ["", "first-write", "last-write"] {
            assert_eq!(Condition::new(Some("1"), &mode.into()), Condition::Etag("1".to_owned()), "{mode}");
            assert_eq!(Condition::new(Some(""), &mode.into()), Condition::new(None, &mode.into()), "{mode}");
        }
        assert_eq!(Condition::new(None, &Concurrency::FirstWrite), Condition::Absent);
        assert_eq!(Condition::new(None, &Concurrency::LastWrite), Condition::Any);
        assert_eq!(Condition::new(None, &Concurrency::Unspecified), Condition::Any);
    }
}
