//! The error table: one row per error, one column per door.
//!
//! Dapr shows one error code with several statuses (`ERR_STATE_SAVE` is 500, 409 or 400), so a [`Code`] names a row and
//! not a string. Where Dapr's two doors disagree, the row holds both columns and its doc says so. The rows are checked
//! against recorded answers of a stock daprd by the golden replay.

use GrpcCode as G;
use Kind as K;

/// Canonical gRPC status codes, by their names in Dapr's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[expect(missing_docs, reason = "the names are gRPC's")]
pub enum GrpcCode {
    InvalidArgument = 3,
    NotFound = 5,
    PermissionDenied = 7,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
}

/// What a program branches on, the same at every door. The cases of `error-kind` in WIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The named thing does not exist.
    NotFound,
    /// The request can never succeed as it is.
    Invalid,
    /// Not allowed.
    Denied,
    /// Someone else was faster: read again and retry.
    Conflict,
    /// This component or build cannot do that.
    Unsupported,
    /// Not reachable now: retry later.
    Unavailable,
    /// Not answered in time; it may have happened.
    Timeout,
    /// Anything else.
    Internal,
}

impl Kind {
    /// The name in WIT.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

/// How one error looks at each door.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// HTTP status.
    pub status: u16,
    /// `errorCode` over HTTP, `code` in WIT.
    pub tag: &'static str,
    /// gRPC status code.
    pub grpc: GrpcCode,
    /// `reason` of the gRPC `ErrorInfo`; empty means a plain status without details.
    pub reason: &'static str,
    /// Whether the HTTP body carries `details` as well.
    pub rich: bool,
    /// Whether the metadata of the `ErrorInfo` is sent over gRPC too.
    pub metadata_over_grpc: bool,
    /// What the HTTP door writes in front of the message.
    pub http_prefix: &'static str,
    /// What the HTTP door says instead of the message, where Dapr's doors say different things.
    pub http_message: Option<&'static str>,
    /// What a program branches on, unless a component's error says better.
    pub kind: Kind,
}

const fn row(status: u16, tag: &'static str, grpc: GrpcCode, reason: &'static str, kind: Kind) -> Row {
    Row { status, tag, grpc, reason, rich: false, metadata_over_grpc: true, http_prefix: "", http_message: None, kind }
}

const fn rich(status: u16, tag: &'static str, grpc: GrpcCode, reason: &'static str, kind: Kind) -> Row {
    Row { rich: true, ..row(status, tag, grpc, reason, kind) }
}

macro_rules! codes {
    ($($category:literal: { $($(#[doc = $doc:literal])+ $code:ident = $row:expr;)+ })+) => {
        /// Every error that the blocks can answer with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($($(#[doc = $doc])+ $code,)+)+ }

        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Self] = &[$($(Self::$code,)+)+];

            /// How this error looks at each door.
            #[must_use]
            pub const fn row(self) -> Row {
                match self { $($(Self::$code => $row,)+)+ }
            }

            /// The group under which metrics count it.
            #[must_use]
            pub const fn category(self) -> &'static str {
                match self { $($(Self::$code)|+ => $category,)+ }
            }
        }
    };
}

codes! {
    "common": {
        /// The body is not what the call needs.
        MalformedRequest = row(400, "ERR_MALFORMED_REQUEST", G::InvalidArgument, "", K::Invalid);
        /// The body could not be read: the caller went away or sent too much.
        BodyRead = row(400, "ERR_BODY_READ", G::InvalidArgument, "", K::Invalid);
    }
    "state": {
        /// No state store at all is configured for this app.
        StateStoreNotConfigured = Row {
            metadata_over_grpc: false,
            ..rich(500, "ERR_STATE_STORE_NOT_CONFIGURED", G::FailedPrecondition, "DAPR_STATE_NOT_CONFIGURED", K::NotFound)
        };
        /// There are state stores, but none of that name.
        StateStoreNotFound = Row {
            metadata_over_grpc: false,
            ..rich(400, "ERR_STATE_STORE_NOT_FOUND", G::InvalidArgument, "DAPR_STATE_NOT_FOUND", K::NotFound)
        };
        /// The key holds `||`.
        StateIllegalKey = Row {
            http_prefix: "api error: code = InvalidArgument desc = ",
            ..rich(400, "ERR_MALFORMED_REQUEST", G::InvalidArgument, "DAPR_STATE_ILLEGAL_KEY", K::Invalid)
        };
        /// An item to save has no key. The doors differ in code and message.
        StateKeyEmpty = Row {
            http_message: Some("\"key\" is a required field"),
            ..row(400, "ERR_MALFORMED_REQUEST", G::InvalidArgument, "ERR_STATE_SAVE", K::Invalid)
        };
        /// A read failed.
        StateGet = row(500, "ERR_STATE_GET", G::Internal, "ERR_STATE_GET", K::Internal);
        /// A bulk read failed as a whole.
        StateBulkGet = row(500, "ERR_STATE_BULK_GET", G::Internal, "ERR_STATE_BULK_GET", K::Internal);
        /// A write failed.
        StateSave = row(500, "ERR_STATE_SAVE", G::Internal, "ERR_STATE_SAVE", K::Internal);
        /// A write lost against another.
        StateSaveEtagMismatch = row(409, "ERR_STATE_SAVE", G::Aborted, "ERR_STATE_SAVE", K::Conflict);
        /// A write came with something that is no etag.
        StateSaveEtagInvalid = row(400, "ERR_STATE_SAVE", G::InvalidArgument, "ERR_STATE_SAVE", K::Invalid);
        /// A deletion failed.
        StateDelete = row(500, "ERR_STATE_DELETE", G::Internal, "ERR_STATE_DELETE", K::Internal);
        /// A deletion lost against a write.
        StateDeleteEtagMismatch = row(409, "ERR_STATE_DELETE", G::Aborted, "ERR_STATE_DELETE", K::Conflict);
        /// A deletion came with something that is no etag.
        StateDeleteEtagInvalid = row(400, "ERR_STATE_DELETE", G::InvalidArgument, "ERR_STATE_DELETE", K::Invalid);
        /// A bulk deletion failed, at least in part.
        StateBulkDelete = row(500, "ERR_STATE_BULK_DELETE", G::Internal, "ERR_STATE_BULK_DELETE", K::Internal);
        /// A bulk deletion lost against a write.
        StateBulkDeleteEtagMismatch = row(409, "ERR_STATE_BULK_DELETE", G::Aborted, "ERR_STATE_BULK_DELETE", K::Conflict);
        /// A bulk deletion came with something that is no etag.
        StateBulkDeleteEtagInvalid =
            row(400, "ERR_STATE_BULK_DELETE", G::InvalidArgument, "ERR_STATE_BULK_DELETE", K::Invalid);
        /// The store has no transactions.
        StateTransactionsUnsupported = rich(
            500, "ERR_STATE_STORE_NOT_SUPPORTED", G::Unimplemented, "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED", K::Unsupported,
        );
        /// A transaction has more operations than the store takes.
        StateTooManyOperations = rich(
            400, "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS", G::InvalidArgument, "DAPR_STATE_TOO_MANY_TRANSACTIONS", K::Invalid,
        );
        /// An operation that is neither upsert nor delete.
        StateOperationUnsupported = row(
            400, "ERR_NOT_SUPPORTED_STATE_OPERATION", G::Unimplemented, "ERR_NOT_SUPPORTED_STATE_OPERATION", K::Invalid,
        );
        /// A transaction failed. Etag errors too: Dapr does not tell them apart here, only `kind` does.
        StateTransaction = row(500, "ERR_STATE_TRANSACTION", G::Internal, "ERR_STATE_TRANSACTION", K::Internal);
        /// The store has no queries.
        StateQueryUnsupported =
            rich(500, "ERR_STATE_STORE_NOT_SUPPORTED", G::Internal, "DAPR_STATE_QUERYING_NOT_SUPPORTED", K::Unsupported);
        /// A query failed.
        StateQuery = rich(500, "ERR_STATE_QUERY", G::Internal, "DAPR_STATE_QUERY_FAILED", K::Internal);
    }
    "secret": {
        /// No secret store at all is configured for this app.
        SecretStoresNotConfigured =
            row(500, "ERR_SECRET_STORES_NOT_CONFIGURED", G::FailedPrecondition, "", K::NotFound);
        /// There are secret stores, but none of that name. Dapr's 401 is odd, and clients rely on it.
        SecretStoreNotFound = row(401, "ERR_SECRET_STORE_NOT_FOUND", G::InvalidArgument, "", K::NotFound);
        /// The Configuration's secret scopes forbid it.
        SecretDenied = row(403, "ERR_PERMISSION_DENIED", G::PermissionDenied, "", K::Denied);
        /// A secret could not be read.
        SecretGet = row(500, "ERR_SECRET_GET", G::Internal, "", K::Internal);
    }
    "service-invocation": {
        /// Nothing says which app is meant.
        InvokeNoTarget = row(404, "ERR_DIRECT_INVOKE", G::NotFound, "", K::Invalid);
        /// The app could not be found or did not answer.
        Invoke = row(500, "ERR_DIRECT_INVOKE", G::Internal, "", K::Unavailable);
    }
    "health": {
        /// The app or a server is not up yet.
        NotReady = row(500, "ERR_HEALTH_NOT_READY", G::Internal, "", K::Unavailable);
        /// Components are not up yet.
        OutboundNotReady = row(500, "ERR_OUTBOUND_HEALTH_NOT_READY", G::Internal, "", K::Unavailable);
        /// The health of another app was asked for.
        HealthAppIdMismatch = row(500, "ERR_HEALTH_APPID_NOT_MATCH", G::Internal, "", K::Invalid);
    }
}
