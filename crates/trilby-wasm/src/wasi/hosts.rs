//! The hosts a guest may connect to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::Uri;
use wasmtime_wasi::sockets::SocketAddrUse;

/// A list of hosts. Empty allows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<HostPattern>);

/// One or more hosts: `*`, `example.com`, `*.example.com`, `127.0.0.1:6379`, `[::1]:80`, `https://example.com`.
///
/// Without a port any port is meant, without a scheme any scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    scheme: Option<String>,
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// Any name that ends with this, which starts with a dot.
    Below(String),
    /// A name, in lower case.
    Name(String),
    Ip(IpAddr),
}

/// A text that is no [`HostPattern`].
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a host; use HOST, HOST:PORT, SCHEME://HOST, *.DOMAIN or *")]
pub struct InvalidHost(String);

impl AllowedHosts {
    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request to this address is allowed.
    pub fn allows(&self, uri: &Uri) -> bool {
        let Some(host) = uri.host() else { return false };
        let scheme = uri.scheme_str().unwrap_or("http");
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        self.0.iter().any(|pattern| {
            pattern.scheme.as_deref().is_none_or(|wanted| wanted == scheme)
                && pattern.port.is_none_or(|wanted| wanted == port)
                && pattern.host.is_name(&host)
        })
    }

    /// Whether a socket may be used so. Sockets know no names, so names in the list are looked up.
    pub(super) async fn allows_socket(&self, addr: SocketAddr, used_for: SocketAddrUse) -> bool {
        match used_for {
            // The near end of an outgoing connection; it gets no further than the far end allows.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => addr.port() == 0 && addr.ip().is_unspecified(),
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => false,
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => {
                self.allows_addr(addr).await
            }
        }
    }

    async fn allows_addr(&self, addr: SocketAddr) -> bool {
        for pattern in &self.0 {
            // A scheme grants a protocol, not the bare connection under it.
            if pattern.scheme.is_some() || pattern.port.is_some_and(|port| port != addr.port()) {
                continue;
            }
            let allowed = match &pattern.host {
                Host::Any => true,
                Host::Ip(ip) => *ip == addr.ip(),
                Host::Name(name) => resolves(name, addr).await,
                // Which names lead to an address cannot be asked.
                Host::Below(_) => false,
            };
            if allowed {
                return true;
            }
        }
        false
    }
}

async fn resolves(name: &str, addr: SocketAddr) -> bool {
    match tokio::net::lookup_host((name, addr.port())).await {
        Ok(mut found) => found.any(|found| found.ip() == addr.ip()),
        Err(_) => false,
    }
}

impl Host {
    fn is_name(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Below(suffix) => host.ends_with(suffix.as_str()) && host.len() > suffix.len(),
            Self::Name(name) => name == host,
            Self::Ip(ip) => host.parse() == Ok(*ip),
        }
    }
}

impl FromIterator<HostPattern> for AllowedHosts {
    fn from_iter<I: IntoIterator<Item = HostPattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        parse(text).ok_or_else(|| InvalidHost(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<HostPattern> {
    let (scheme, authority) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, text),
    };
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            (Host::Ip(IpAddr::V6(ip.parse().ok()?)), port.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (parse_host(host)?, Some(port)),
            None => (parse_host(authority)?, None),
        },
    };
    let port = port.map(str::parse).transpose().ok()?;
    Some(HostPattern { scheme, host, port })
}

fn parse_host(host: &str) -> Option<Host> {
    if host == "*" {
        return Some(Host::Any);
    }
    if let Ok(ip) = host.parse() {
        return Some(Host::Ip(ip));
    }
    let name = host.strip_prefix('*').unwrap_or(host);
    let is_name =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let name = name.to_ascii_lowercase();
    match name.strip_prefix('.') {
        Some(below) if host.starts_with('*') && below.split('.').all(is_name) => Some(Host::Below(name)),
        None if name == host.to_ascii_lowercase() && name.split('.').all(is_name) => Some(Host::Name(name)),
        _ => None,
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Below(suffix) => write!(f, "*{suffix}")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Host::Ip(ip) => write!(f, "{ip}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(patterns: &[&str]) -> AllowedHosts {
        patterns.iter().map(|text| text.parse::<HostPattern>().expect("a pattern")).collect()
    }

    fn check(pattern: &str, allowed: &[&str], denied: &[&str]) {
        let hosts = hosts(&[pattern]);
        let allows = |uri: &str| hosts.allows(&uri.parse().expect("an address"));
        allowed.iter().for_each(|uri| assert!(allows(uri), "{pattern} allows {uri}"));
        denied.iter().for_each(|uri| assert!(!allows(uri), "{pattern} does not allow {uri}"));
    }

    #[test]
    fn patterns_allow_what_they_name() {
        check("*", &["http://a", "https://b:9"], &[]);
        check("a.com", &["http://a.com", "https://A.com:9/x"], &["http://b.a.com", "http://a.com.b"]);
        check("*.a.com", &["http://b.a.com", "http://c.b.a.com"], &["http://a.com", "http://ba.com"]);
        check("a.com:443", &["https://a.com", "http://a.com:443"], &["http://a.com"]);
        check("https://a.com", &["https://a.com:9"], &["http://a.com"]);
        check("[::1]:80", &["http://[::1]/"], &["http://[::1]:81/", "http://127.0.0.1"]);
        check("127.0.0.1", &["http://127.0.0.1:5"], &["http://127.0.0.2", "http://localhost"]);
    }

    #[test]
    fn nothing_is_allowed_unless_named() {
        assert!(!hosts(&[]).allows(&Uri::from_static("http://a.com")));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a b", "*a.com", "a.*.com", "a.com:port", "[::1", "http://", ".a.com"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn patterns_print_as_they_are_written() {
        for text in ["*", "a.com", "*.a.com", "a.com:443", "https://a.com", "[::1]:80", "127.0.0.1"] {
            assert_eq!(text.parse::<HostPattern>().expect("a pattern").to_string(), text);
        }
    }

    #[tokio::test]
    async fn sockets_reach_granted_addresses_only() {
        let hosts = hosts(&["127.0.0.1:80", "https://10.0.0.1"]);
        let allows =
            async |addr: &str, used_for| hosts.allows_socket(addr.parse().expect("an address"), used_for).await;
        assert!(allows("127.0.0.1:80", SocketAddrUse::TcpConnect).await);
        assert!(!allows("127.0.0.1:81", SocketAddrUse::TcpConnect).await);
        assert!(!allows("10.0.0.1:443", SocketAddrUse::TcpConnect).await);
        assert!(allows("0.0.0.0:0", SocketAddrUse::UdpBind).await);
        assert!(!allows("127.0.0.1:80", SocketAddrUse::TcpBind).await);
    }
}
