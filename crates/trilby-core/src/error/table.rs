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
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
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
    /// Whether the `ResourceInfo` repeats the message, and the `ErrorInfo` has metadata even if there are none.
    pub told: bool,
    /// Whether the metadata of the `ErrorInfo` is sent over gRPC too.
    pub metadata_over_grpc: bool,
    /// What the HTTP door writes in front of the message.
    pub http_prefix: &'static str,
    /// What the HTTP door says instead of the message, where Dapr's doors say different things.
    pub http_message: Option<&'static str>,
    /// What the gRPC door writes in front of the message.
    pub grpc_prefix: &'static str,
    /// What a program branches on, unless a component's error says better.
    pub kind: Kind,
}

const fn row(status: u16, tag: &'static str, grpc: GrpcCode, reason: &'static str, kind: Kind) -> Row {
    Row {
        status,
        tag,
        grpc,
        reason,
        rich: false,
        told: false,
        metadata_over_grpc: true,
        http_prefix: "",
        http_message: None,
        grpc_prefix: "",
        kind,
    }
}

const fn rich(status: u16, tag: &'static str, grpc: GrpcCode, reason: &'static str, kind: Kind) -> Row {
    Row { rich: true, ..row(status, tag, grpc, reason, kind) }
}

const fn told(status: u16, tag: &'static str, grpc: GrpcCode, reason: &'static str, kind: Kind) -> Row {
    Row { told: true, ..rich(status, tag, grpc, reason, kind) }
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
        /// Something that the call needs is missing.
        BadRequest = row(400, "ERR_BAD_REQUEST", G::InvalidArgument, "", K::Invalid);
        /// Dapr has this, and its builds leave it out.
        ApiUnimplemented = row(501, "ERR_API_UNIMPLEMENTED", G::Unimplemented, "", K::Unsupported);
        /// There is no app to tell.
        AppChannelNil = row(500, "ERR_APP_CHANNEL_NIL", G::Internal, "", K::Unavailable);
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
    "binding": {
        /// An output binding does not exist, does not know the operation, or failed.
        InvokeOutputBinding =
            row(500, "ERR_INVOKE_OUTPUT_BINDING", G::Internal, "ERR_INVOKE_OUTPUT_BINDING", K::Internal);
    }
    "pubsub": {
        /// No broker is named.
        PubSubNameEmpty =
            told(404, "ERR_PUBSUB_EMPTY", G::InvalidArgument, "DAPR_PUBSUB_NAME_EMPTY", K::Invalid);
        /// There is no broker of that name.
        PubSubNotFound = Row {
            metadata_over_grpc: false,
            ..told(404, "ERR_PUBSUB_NOT_FOUND", G::InvalidArgument, "DAPR_PUBSUB_NOT_FOUND", K::NotFound)
        };
        /// No topic is named.
        PubSubTopicEmpty =
            told(404, "ERR_TOPIC_NAME_EMPTY", G::InvalidArgument, "DAPR_PUBSUB_TOPIC_NAME_EMPTY", K::Invalid);
        /// The broker's topic rules forbid it.
        PubSubForbidden =
            told(403, "ERR_PUBSUB_FORBIDDEN", G::PermissionDenied, "DAPR_PUBSUB_FORBIDDEN", K::Denied);
        /// The broker did not take it.
        PubSubPublish =
            told(500, "ERR_PUBSUB_PUBLISH_MESSAGE", G::Internal, "DAPR_PUBSUB_PUBLISH_MESSAGE", K::Internal);
        /// Metadata of the request cannot be read.
        PubSubMetadata = told(
            400, "ERR_PUBSUB_REQUEST_METADATA", G::InvalidArgument, "DAPR_PUBSUB_METADATA_DESERIALIZATION", K::Invalid,
        );
        /// It says that it is a CloudEvent, and is not.
        PubSubCloudEvent = told(
            500, "ERR_PUBSUB_CLOUD_EVENTS_SER", G::InvalidArgument, "DAPR_PUBSUB_CLOUD_EVENT_CREATION", K::Invalid,
        );
        /// An entry of a bulk publish is not what its content type says.
        PubSubEntryEvent =
            told(400, "ERR_PUBSUB_EVENTS_SER", G::InvalidArgument, "DAPR_PUBSUB_MARSHAL_ENVELOPE", K::Invalid);
        /// An entry of a bulk publish has no id, or that of another.
        PubSubEntryId =
            told(400, "ERR_PUBSUB_EVENTS_SER", G::InvalidArgument, "DAPR_PUBSUB_MARSHAL_EVENTS", K::Invalid);
        /// The body of a bulk publish is no list of entries.
        PubSubEntries =
            told(400, "ERR_PUBSUB_EVENTS_SER", G::InvalidArgument, "DAPR_PUBSUB_UNMARSHAL_EVENTS", K::Invalid);
        /// A message of the outbox could not be published; the transaction was not begun.
        PubSubOutbox = told(500, "ERR_PUBLISH_OUTBOX", G::Internal, "DAPR_PUBSUB_OUTBOX", K::Internal);
    }
    "configuration": {
        /// No configuration store at all is configured for this app.
        ConfigurationStoreNotConfigured = row(
            500, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", G::FailedPrecondition,
            "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", K::NotFound,
        );
        /// There are configuration stores, but none of that name.
        ConfigurationStoreNotFound = row(
            400, "ERR_CONFIGURATION_STORE_NOT_FOUND", G::InvalidArgument, "ERR_CONFIGURATION_STORE_NOT_FOUND",
            K::NotFound,
        );
        /// A read failed.
        ConfigurationGet =
            row(500, "ERR_CONFIGURATION_GET", G::Internal, "ERR_CONFIGURATION_GET", K::Internal);
        /// The store would not watch.
        ConfigurationSubscribe =
            row(500, "ERR_CONFIGURATION_SUBSCRIBE", G::InvalidArgument, "ERR_CONFIGURATION_SUBSCRIBE", K::Internal);
        /// There is no such subscription. Dapr's doors answer with a message of their own shape.
        ConfigurationUnsubscribe =
            row(500, "ERR_CONFIGURATION_UNSUBSCRIBE", G::Internal, "ERR_CONFIGURATION_UNSUBSCRIBE", K::NotFound);
    }
    "crypto": {
        /// No cryptography provider at all is configured for this app.
        CryptoProvidersNotConfigured =
            row(500, "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", G::Internal, "", K::NotFound);
        /// There are cryptography providers, but none of that name.
        CryptoProviderNotFound = row(400, "ERR_CRYPTO_PROVIDER_NOT_FOUND", G::InvalidArgument, "", K::NotFound);
        /// A key could not be read.
        CryptoKey = row(500, "ERR_CRYPTO_KEY", G::Internal, "", K::Internal);
        /// An operation with a key failed, or a document could not be begun.
        Crypto = row(500, "ERR_CRYPTO", G::Internal, "", K::Internal);
        /// A document broke off, or was changed, after its header.
        CryptoStream = Row {
            grpc_prefix: "failed to perform operation: ",
            ..row(500, "ERROR", G::Internal, "", K::Invalid)
        };
    }
    "conversation": {
        /// There is no model of that name.
        ConversationNotFound = row(400, "ERR_CONVERSATION_NOT_FOUND", G::InvalidArgument, "", K::NotFound);
        /// There is nothing to answer.
        ConversationMissingInputs = row(400, "ERR_CONVERSATION_MISSING_INPUTS", G::InvalidArgument, "", K::Invalid);
        /// A message or an option is none. The tag is spelled as Dapr spells it.
        ConversationInvalidParams = row(400, "ERR_CONVERSATION_INVALID_PARMS", G::InvalidArgument, "", K::Invalid);
        /// The model did not answer.
        ConversationInvoke = row(500, "ERR_CONVERSATION_INVOKE", G::Internal, "", K::Internal);
    }
    "lock": {
        /// No lock store at all is configured for this app.
        LockStoreNotConfigured = row(500, "ERR_LOCK_STORE_NOT_CONFIGURED", G::FailedPrecondition, "", K::NotFound);
        /// There are lock stores, but none of that name.
        LockStoreNotFound = row(400, "ERR_LOCK_STORE_NOT_FOUND", G::InvalidArgument, "", K::NotFound);
        /// A lock could not be taken, for another reason than that somebody holds it.
        TryLock = row(500, "ERR_TRY_LOCK", G::Internal, "", K::Internal);
        /// A lock could not be given back.
        Unlock = row(500, "ERR_UNLOCK", G::Internal, "", K::Internal);
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
        /// It did not answer in time.
        InvokeTimeout = row(500, "ERR_DIRECT_INVOKE", G::DeadlineExceeded, "", K::Timeout);
        /// A gRPC call could not be passed on. Only that door passes calls on.
        Proxy = row(500, "ERR_DIRECT_INVOKE", G::Unknown, "", K::Internal);
        /// The app that it is for was not reached.
        ProxyUnavailable = row(500, "ERR_DIRECT_INVOKE", G::Unavailable, "", K::Unavailable);
        /// The app that it is for did not answer in time.
        ProxyTimeout = row(500, "ERR_DIRECT_INVOKE", G::DeadlineExceeded, "", K::Timeout);
        /// It is a stream, and a policy would have to repeat it.
        ProxyStreamed = row(500, "ERR_DIRECT_INVOKE", G::FailedPrecondition, "", K::Invalid);
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
