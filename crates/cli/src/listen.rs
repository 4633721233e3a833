//! Addresses as flags give them, and what is said when one is taken.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use tokio::net::lookup_host;
use trilby::{Address as Place, Error, Listener};

/// A host and a port, and the flag that the port came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Without dashes.
    pub flag: &'static str,
    /// A name or an IP address; empty for every interface.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') && !self.host.starts_with('[') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    /// A port of this machine alone.
    #[must_use]
    pub fn local(flag: &'static str, port: u16) -> Self {
        Self { flag, host: "127.0.0.1".into(), port }
    }

    /// Where to listen. A name that stands for several addresses stands for the first.
    ///
    /// # Errors
    /// If the host is not known, in words that name the flag.
    pub async fn resolve(&self) -> Result<SocketAddr, String> {
        if self.host.is_empty() {
            return Ok(every_interface(self.port));
        }
        let unknown = |reason: &str| format!("cannot listen on {self} (port of --{}): {reason}", self.flag);
        let mut found =
            lookup_host(self.to_string()).await.map_err(|error| unknown(&format!("unknown host: {error}")))?;
        found.next().ok_or_else(|| unknown("the host has no address"))
    }

    /// What to say when it cannot be listened on.
    #[must_use]
    pub fn refused(&self, error: &io::Error) -> String {
        refused(&self.to_string(), self.port, self.flag, error)
    }
}

/// What to say when a flag's port cannot be listened on. Port 0 is nobody's, so only the address is named then.
#[must_use]
pub(crate) fn refused(address: &str, port: u16, flag: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::AddrInUse {
        format!(
            "port {port} is in use, so {address} cannot be listened on; stop who has it or choose another with --{flag}"
        )
    } else {
        format!("cannot listen on {address}: {error}; choose another with --{flag}")
    }
}

/// Why a runtime did not start, with the flag where it was for a port.
#[must_use]
pub(crate) fn explain(error: Error) -> String {
    let Error::Listen { app, listener, address, source } = error else { return error.to_string() };
    let flag = match listener {
        Listener::Http => "dapr-http-port",
        Listener::Grpc => "dapr-grpc-port",
        Listener::Public => "dapr-public-port",
        _ => "app-port",
    };
    match address {
        Place::Tcp(socket) => {
            format!("app {app}, {listener}: {}", refused(&socket.to_string(), socket.port(), flag, &source))
        }
        Place::Unix(path) => {
            let path = path.display();
            format!(
                "app {app}, {listener}: cannot listen on {path}: {source}; choose another folder with --unix-domain-socket"
            )
        }
    }
}

/// Both families where the system has both, as Go's servers do it.
fn every_interface(port: u16) -> SocketAddr {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        Err(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_are_names_and_addresses_of_both_families() {
        for (host, expect) in [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("[::1]", "[::1]:80")] {
            let address = Address { flag: "dapr-http-port", host: host.into(), port: 80 };
            assert_eq!(address.resolve().await.expect(host).to_string(), expect);
        }
        let nowhere = Address { flag: "dapr-http-port", host: "no host".into(), port: 80 };
        let error = nowhere.resolve().await.expect_err("no such host");
        assert!(error.starts_with("cannot listen on no host:80 (port of --dapr-http-port): unknown host"), "{error}");
    }

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let address = Address::local("dapr-http-port", 3500);
        assert_eq!(
            address.refused(&io::ErrorKind::AddrInUse.into()),
            "port 3500 is in use, so 127.0.0.1:3500 cannot be listened on; stop who has it or choose another with --dapr-http-port"
        );
    }
}
