//! The listener: accepts connections, serves each in a task of its own, and ends them in order.

mod connection;
mod h2c;
mod head_timer;

use std::{io, pin::pin, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};

use crate::HttpDoor;

/// How long to wait when no connection can be accepted, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl HttpDoor {
    /// Serves a listener until `shutdown` ends; then lets requests that are under way finish, for as long as the
    /// options say.
    ///
    /// Dropping the future closes every connection at once.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.accept(listener, shutdown).await;
    }

    /// As [`serve`](Self::serve), on a Unix domain socket. The socket's file is its owner's to remove.
    #[cfg(unix)]
    pub async fn serve_unix(&self, listener: tokio::net::UnixListener, shutdown: impl Future<Output = ()>) {
        self.accept(listener, shutdown).await;
    }

    async fn accept(&self, listener: impl Listener, shutdown: impl Future<Output = ()>) {
        let (running, stop) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => match accepted {
                    Ok(stream) => {
                        connections.spawn(connection::serve(self.clone(), stream, stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection can be accepted; trying again");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => report(ended),
            }
        }
        drop((listener, running));

        let drain = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if timeout(self.0.options.drain_timeout, drain).await.is_err() {
            tracing::warn!(connections = connections.len(), "requests did not finish in time and are cut off");
            connections.shutdown().await;
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request panicked; its connection is closed");
    }
}

/// What connections come from.
trait Listener {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        // Answers are written whole; waiting for more to send only makes them late.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Stream> {
        Ok(tokio::net::UnixListener::accept(self).await?.0)
    }
}
