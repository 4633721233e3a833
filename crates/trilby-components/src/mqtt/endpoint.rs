//! Where an MQTT server is, and how a connection to it comes about.

use std::{io, sync::Arc};

use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use trilby_component::{ComponentError, Result};

use crate::tls;

/// A server, and our name and password there.
#[derive(Clone)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    /// Empty if the server asks for none.
    pub(super) username: String,
    pub(super) password: String,
    tls: Option<Arc<ClientConfig>>,
}

/// TCP, or TLS over it.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

impl Endpoint {
    /// `url` as `mqtt://user:password@host:port`. `tcp` is another word for `mqtt`; `mqtts`, `ssl`, `tls` and `tcps` mean
    /// TLS.
    ///
    /// # Errors
    /// `InvalidMetadata` if it does not parse, or the certificates cannot be used.
    pub(crate) fn new(url: &str, tls: &tls::Settings) -> Result<Self> {
        // The text is not repeated: it may hold a password.
        let invalid = |why: &str| {
            ComponentError::metadata(format!("metadata url: {why}, expected mqtt://user:password@host:port"))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("it has no scheme"))?;
        let (secure, default_port) = match scheme {
            "mqtt" | "tcp" => (false, 1883),
            "mqtts" | "ssl" | "tls" | "tcps" => (true, 8883),
            other => return Err(invalid(&format!("unknown scheme {other:?}"))),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (username, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match address.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'))
        {
            Some((host, port)) => (host, port.parse().map_err(|_| invalid(&format!("{port:?} is not a port")))?),
            None => (address, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid("it has no host"));
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Ok(Self {
            host: host.to_owned(),
            port,
            username: decode(username),
            password: decode(password),
            tls: if secure { Some(tls.client_config()?) } else { None },
        })
    }

    /// For messages to people.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(super) async fn connect(&self) -> io::Result<Box<dyn Transport>> {
        let tcp = TcpStream::connect((&*self.host, self.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let server = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(server, tcp).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint> {
        Endpoint::new(url, &tls::Settings::default())
    }

    #[test]
    fn addresses_have_a_scheme_and_may_have_a_port_and_a_login() {
        for (url, name, login, secure) in [
            ("mqtt://h", "h:1883", ("", ""), false),
            ("tcp://u:p%40@h:1/", "h:1", ("u", "p@"), false),
            ("mqtts://u@h", "h:8883", ("u", ""), true),
            ("ssl://h:1", "h:1", ("", ""), true),
            ("mqtt://[::1]:5", "::1:5", ("", ""), false),
        ] {
            let found = endpoint(url).expect("valid");
            assert_eq!((&*found.name(), found.tls.is_some()), (name, secure), "{url}");
            assert_eq!((&*found.username, &*found.password), login, "{url}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_meant_is_refused_and_not_repeated() {
        for url in ["h:1883", "http://h", "mqtt://", "mqtt://u:secret@h:port", "mqtt://u:secret@"] {
            let error = endpoint(url).err().expect("invalid").to_string();
            assert!(error.starts_with("metadata url: ") && !error.contains("secret"), "{error}");
        }
    }
}
