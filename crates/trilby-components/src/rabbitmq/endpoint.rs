//! Where RabbitMQ is, and how a connection to it comes about.

use std::{io, sync::Arc, time::Duration};

use lapin::{
    Connection, ConnectionProperties,
    tcp::AsyncTcpStream,
    uri::{AMQPScheme, AMQPUri, SASLMechanism},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time};
use tokio_rustls::TlsConnector;
use trilby_component::{ComponentError, Result};

use super::{CONNECT_LIMIT, socket};
use crate::tls;

/// A server, and who we are to it.
pub(crate) struct Endpoint {
    uri: AMQPUri,
    options: ConnectionProperties,
    tls: Arc<ClientConfig>,
}

impl Endpoint {
    /// `uri` as `amqp://user:password@host:port/vhost`; `name` is shown among the server's connections, if it is not
    /// empty.
    ///
    /// # Errors
    /// `InvalidMetadata` if the address does not parse, or the certificates cannot be used.
    pub(crate) fn new(uri: &str, name: &str, tls: &tls::Settings) -> Result<Self> {
        // The text is not repeated: it holds the password.
        let mut uri: AMQPUri = uri.parse().map_err(|error| {
            ComponentError::metadata(format!(
                "invalid connection string: {error}, expected amqp://user:password@host:port"
            ))
        })?;
        if uri.vhost.is_empty() {
            // As Dapr's driver reads a path that is just a slash.
            "/".clone_into(&mut uri.vhost);
        }
        let mut options = ConnectionProperties::default();
        if !name.is_empty() {
            options = options.with_connection_name(name.into());
        }
        Ok(Self { uri, options, tls: tls.client_config()? })
    }

    /// Whether it is reached with TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    /// Sets how often each side says that it is alive.
    #[must_use]
    pub(crate) fn with_heartbeat(mut self, interval: Duration) -> Self {
        self.uri.query.heartbeat = Some(u16::try_from(interval.as_secs()).unwrap_or(u16::MAX));
        self
    }

    /// Logs in with the certificate instead of a password.
    #[must_use]
    pub(crate) fn with_certificate_login(mut self) -> Self {
        self.uri.query.auth_mechanism = Some(SASLMechanism::External);
        self
    }

    /// # Errors
    /// The server cannot be reached in time or refuses the login.
    pub(super) async fn connect(&self) -> lapin::Result<Connection> {
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        let connect = async move |uri: AMQPUri, _| {
            let host = uri.authority.host;
            let tcp = TcpStream::connect((&*host, uri.authority.port)).await?;
            tcp.set_nodelay(true)?;
            Ok(AsyncTcpStream::Plain(match uri.scheme {
                AMQPScheme::AMQP => socket::socket(tcp),
                AMQPScheme::AMQPS => {
                    let server = ServerName::try_from(host).map_err(io::Error::other)?;
                    socket::socket(tls.connect(server, tcp).await?)
                }
            }))
        };
        let connecting = Connection::connector(self.uri.clone(), socket::runtime(), connect, self.options.clone());
        time::timeout(CONNECT_LIMIT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(uri: &str) -> Result<Endpoint> {
        Endpoint::new(uri, "", &tls::Settings::default())
    }

    #[test]
    fn a_path_without_a_name_is_the_default_virtual_host() {
        for (uri, vhost) in [("amqp://h", "/"), ("amqp://h/", "/"), ("amqp://h/orders", "orders")] {
            assert_eq!(endpoint(uri).expect("valid").uri.vhost, vhost, "{uri}");
        }
    }

    #[test]
    fn an_address_that_does_not_parse_is_not_repeated() {
        let error = endpoint("http://user:secret@h").err().expect("not AMQP").to_string();
        assert!(error.starts_with("invalid connection string: ") && !error.contains("secret"), "{error}");
    }
}
