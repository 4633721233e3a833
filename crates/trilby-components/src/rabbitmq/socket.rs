//! Tokio, with sockets that may speak TLS.
//!
//! The driver has TLS of its own, but with it come a reader of PKCS #12 files, thirty packages and no way to say whom to
//! trust instead of everybody; so it is handed a socket on which that is already done.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use async_rs::{
    Runtime, Tokio,
    traits::{Reactor, RuntimeKit},
    util::RuntimeParts,
};
use futures_util::{AsyncRead, AsyncWrite, Stream};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

/// What the driver reads and writes.
pub(super) type Socket = Compat<Box<dyn Transport>>;

/// TCP, or TLS over it.
pub(super) trait Transport: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Transport for T {}

/// What the driver runs on: the runtime of whoever opens the connection.
pub(super) fn runtime() -> Runtime<impl RuntimeKit<TcpStream = Socket> + Clone + Send + Sync + 'static> {
    Runtime::new(RuntimeParts::new(Tokio::current(), Sockets(Tokio::current())))
}

pub(super) fn socket(transport: impl Transport + 'static) -> Socket {
    let transport: Box<dyn Transport> = Box::new(transport);
    transport.compat()
}

/// Tokio's timers, and sockets of ours.
#[derive(Clone, Debug)]
struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Socket;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// For sockets of the driver's own making, of which there are none.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Socket, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(period)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        async move { TcpStream::connect(address).await.map(socket) }
    }
}
