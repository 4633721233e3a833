//! The connection to NATS, and what its errors mean.

use std::{borrow::Cow, path::PathBuf};

use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr,
    jetstream::{self, Context, context::PublishErrorKind, stream::ConsumerErrorKind},
};
use percent_encoding::percent_decode_str;
use trilby_component::{ComponentError, ErrorKind, Result};

use super::settings::Settings;
use crate::cryptography;

/// Connects, and from then on connects again whenever it has to.
pub(super) async fn connect(settings: &Settings) -> Result<Client> {
    let addresses = settings.nats_url.split(',').map(|address| address.trim().parse()).collect::<Result<Vec<_>, _>>();
    let addresses: Vec<ServerAddr> =
        addresses.map_err(|error| ComponentError::metadata(format!("metadata natsURL: {error}")))?;
    cryptography::choose();
    let options = log_in(options(settings), settings, &addresses)?;
    options.connect(&addresses[..]).await.map_err(|error| explain_connect(settings, &error))
}

fn options(settings: &Settings) -> ConnectOptions {
    ConnectOptions::new().name(&settings.name).event_callback(|event| async move {
        match event {
            Event::Connected => tracing::info!("connected to nats"),
            Event::Disconnected => tracing::warn!("lost the connection to nats; connecting again until it works"),
            Event::Closed => tracing::debug!("the connection to nats is closed"),
            other => tracing::warn!(event = %other, "nats reports trouble"),
        }
    })
}

/// As Dapr chooses: the JWT, or else the certificate, or else the token; beside that, what the URL holds.
fn log_in(mut options: ConnectOptions, settings: &Settings, addresses: &[ServerAddr]) -> Result<ConnectOptions> {
    let named = addresses.iter().find_map(|address| Some((address.username()?, address.password())));
    options = match named {
        Some((user, Some(password))) => options.user_and_password(decode(user), decode(password)),
        Some((token, None)) => options.token(decode(token)),
        None => options,
    };
    Ok(if !settings.jwt.is_empty() {
        let (jwt, seed) = (settings.jwt.trim(), settings.seed_key.trim());
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        options
            .credentials(&credentials)
            .map_err(|error| ComponentError::metadata(format!("metadata jwt and seedKey cannot be used: {error}")))?
    } else if !settings.tls_client_cert.is_empty() {
        let (certificate, key) = (PathBuf::from(&settings.tls_client_cert), PathBuf::from(&settings.tls_client_key));
        options.add_client_certificate(certificate, key).require_tls(true)
    } else if !settings.token.is_empty() {
        options.token(settings.token.clone())
    } else {
        options
    })
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text)).into_owned()
}

/// JetStream over that connection.
pub(super) fn jetstream(settings: &Settings, client: Client) -> Context {
    if !settings.api_prefix.is_empty() {
        jetstream::with_prefix(client, &settings.api_prefix)
    } else if !settings.domain.is_empty() {
        jetstream::with_domain(client, &settings.domain)
    } else {
        jetstream::new(client)
    }
}

fn explain_connect(settings: &Settings, error: &ConnectError) -> ComponentError {
    let kind = match error.kind() {
        ConnectErrorKind::ServerParse => ErrorKind::InvalidMetadata,
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => ErrorKind::Denied,
        _ => ErrorKind::Unavailable,
    };
    // The URL may hold a password.
    let hosts = settings.nats_url.split(',').map(|url| url.rsplit(['@', '/']).next().unwrap_or_default());
    let hosts = hosts.collect::<Vec<_>>().join(",");
    ComponentError::new(kind, format!("error connecting to nats at {hosts}: {error}"))
}

/// What a failed publish means, in the words of the driver that Dapr uses.
pub(super) fn explain_publish(error: &jetstream::context::PublishError) -> ComponentError {
    let (kind, message) = match error.kind() {
        PublishErrorKind::StreamNotFound => (ErrorKind::Unavailable, "nats: no response from stream".to_owned()),
        PublishErrorKind::TimedOut => (ErrorKind::Timeout, "nats: timeout".to_owned()),
        PublishErrorKind::BrokenPipe => (ErrorKind::Unavailable, "nats: connection closed".to_owned()),
        PublishErrorKind::MaxPayloadExceeded => {
            (ErrorKind::InvalidRequest, "nats: maximum payload exceeded".to_owned())
        }
        _ => (ErrorKind::Internal, format!("nats: {error}")),
    };
    ComponentError::new(kind, message)
}

/// What an error about a consumer means.
pub(super) fn explain_consumer(error: &jetstream::stream::ConsumerError) -> ComponentError {
    let kind = match error.kind() {
        ConsumerErrorKind::TimedOut => ErrorKind::Timeout,
        ConsumerErrorKind::Request => ErrorKind::Unavailable,
        ConsumerErrorKind::InvalidName => ErrorKind::InvalidMetadata,
        ConsumerErrorKind::JetStream(error) if error.code() == 404 => ErrorKind::NotFound,
        _ => ErrorKind::Internal,
    };
    ComponentError::new(kind, format!("nats: {error}"))
}
