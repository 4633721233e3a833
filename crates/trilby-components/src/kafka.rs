//! What `pubsub.kafka` and `bindings.kafka` share: settings, a producer, and members of consumer groups.

mod config;
mod group;
mod lane;
mod producer;
mod record;

use krafka::error::{ErrorCode, KrafkaError};
use trilby_component::{ComponentError, ErrorKind};

pub(crate) use self::{
    config::Config,
    group::Group,
    lane::{Handling, Receiver},
    producer::Producer,
    record::{Headers, value},
};

/// What `error` means for the caller.
pub(crate) fn explain(error: KrafkaError) -> ComponentError {
    let kind = match &error {
        KrafkaError::Auth { .. } => ErrorKind::Denied,
        KrafkaError::Timeout { .. } | KrafkaError::DeliveryTimeout { .. } => ErrorKind::Timeout,
        KrafkaError::Network(_) | KrafkaError::Closed { .. } => ErrorKind::Unavailable,
        KrafkaError::Config { .. } => ErrorKind::InvalidRequest,
        KrafkaError::Broker { code, .. } => match code {
            ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed => ErrorKind::Denied,
            ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidTopic => {
                ErrorKind::InvalidRequest
            }
            ErrorCode::UnknownTopicOrPartition => ErrorKind::NotFound,
            _ => ErrorKind::Unavailable,
        },
        _ => ErrorKind::Internal,
    };
    ComponentError::new(kind, format!("kafka: {error}")).with_source(error)
}
