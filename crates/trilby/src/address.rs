//! Where a door listens.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

/// Connections that may wait to be accepted, so that a crowd is not turned away; the system may allow fewer. Go takes
/// what the system allows, which is mostly this.
const BACKLOG: u32 = 4096;

/// A TCP address or the path of a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Port 0 takes any port that is free.
    Tcp(SocketAddr),
    /// A file, made on start and removed on shutdown.
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// An address that is taken.
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Bound {
    pub(crate) async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => listen(*address).map(Self::Tcp),
            Address::Unix(path) => {
                // A process that was killed leaves its file behind, and nobody answers there.
                if UnixStream::connect(path).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
                {
                    std::fs::remove_file(path)?;
                }
                Ok(Self::Unix(UnixListener::bind(path)?, SocketFile(path.clone())))
            }
        }
    }

    /// The address, with the port that was found for port 0.
    pub(crate) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(_, file) => Ok(Address::Unix(file.0.clone())),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As `TcpListener::bind` does: an address is free again as soon as its server has ended.
    socket.set_reuseaddr(cfg!(unix))?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The file of a Unix socket. Its owner removes it.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "socket file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{net::TcpStream, time::timeout};

    use super::*;

    #[tokio::test]
    async fn a_crowd_may_wait_to_be_accepted() {
        let bound = Bound::bind(&Address::Tcp(([127, 0, 0, 1], 0).into())).await.expect("a free port");
        let Ok(Address::Tcp(address)) = bound.address() else { unreachable!("a TCP address") };
        let mut crowd = Vec::new();
        // More than the 128 that are the default elsewhere, and fewer than any system allows.
        while crowd.len() < 300 {
            let connecting = timeout(Duration::from_secs(5), TcpStream::connect(address));
            crowd.push(connecting.await.expect("there is room").expect("it listens"));
        }
    }

    #[tokio::test]
    async fn a_socket_file_is_replaced_only_if_nobody_answers_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = Address::Unix(directory.path().join("dapr.socket"));
        let first = Bound::bind(&address).await.expect("free");
        let taken = Bound::bind(&address).await.err().expect("somebody answers");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);

        let Bound::Unix(listener, file) = first else { unreachable!("a Unix address") };
        drop(listener);
        std::mem::forget(file);
        let again = Bound::bind(&address).await.expect("nobody answers");
        assert_eq!(again.address().expect("it has one"), address);
        drop(again);
        assert!(!directory.path().join("dapr.socket").exists());
    }
}
