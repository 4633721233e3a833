//! What `pubsub.rabbitmq` and `bindings.rabbitmq` share: a connection that comes back, publishing and consuming.

mod consumer;
mod endpoint;
mod link;
mod properties;
mod publisher;
mod socket;

use std::time::Duration;

use lapin::{ErrorKind as Failure, protocol::AMQPErrorKind, types::ShortString};
use trilby_component::{ComponentError, ErrorKind, Result};

pub(crate) use self::{
    consumer::{Consumer, Source},
    endpoint::Endpoint,
    link::Link,
    properties::{header_text, properties_of},
    publisher::{Channel, Publisher},
};

/// Most messages that RabbitMQ may send ahead where the metadata do not say: it would send them all.
pub(crate) const PREFETCH: u16 = 256;

/// How long connecting may take, with the login.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// A name that goes over the wire; RabbitMQ takes at most 255 bytes.
///
/// # Errors
/// `InvalidRequest` if it is longer.
pub(crate) fn name(what: &str, text: &str) -> Result<ShortString> {
    ShortString::try_new(text).map_err(|_| {
        ComponentError::request(format!("{what} is longer than the 255 bytes that rabbitmq takes: {text}"))
    })
}

/// What `error` means for the caller.
pub(crate) fn explain(error: &lapin::Error) -> ComponentError {
    let (kind, message) = match error.kind() {
        Failure::ProtocolError(refusal) => {
            let kind = match refusal.kind() {
                AMQPErrorKind::Soft(soft) if soft.get_id() == ACCESS_REFUSED => ErrorKind::Denied,
                AMQPErrorKind::Soft(_) => ErrorKind::Internal,
                AMQPErrorKind::Hard(hard) if hard.get_id() == NOT_ALLOWED => ErrorKind::Denied,
                // The others end the connection: it is closed by force, or something is wrong with the server.
                AMQPErrorKind::Hard(_) => ErrorKind::Unavailable,
            };
            (kind, format!("rabbitmq refused the request: {}", refusal.get_message()))
        }
        Failure::IOError(_)
        | Failure::RuntimeShutdownError(_)
        | Failure::MissingHeartbeatError
        | Failure::InvalidConnectionState(_)
        | Failure::InvalidChannelState(..)
        | Failure::InvalidChannel(_) => (ErrorKind::Unavailable, format!("error connecting to rabbitmq: {error}")),
        _ => (ErrorKind::Internal, error.to_string()),
    };
    ComponentError::new(kind, message).with_source(error.clone())
}

/// AMQP's number for a login or a request that is not allowed.
const ACCESS_REFUSED: u16 = 403;
/// AMQP's number for a virtual host that is not there or not allowed.
const NOT_ALLOWED: u16 = 530;
