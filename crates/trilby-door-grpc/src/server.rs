//! Listeners and connections.

use std::{convert::Infallible, io, panic::AssertUnwindSafe, pin::pin, time::Duration};

use futures_util::FutureExt as _;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Status;

use crate::{GrpcDoor, executor::AtOnce, unary::Reply};

/// After this long without a frame a client is asked for a sign of life, as daprd does.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long it has for that, as with daprd.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How much a client may send ahead of what is read: enough for most messages without a round trip.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// daprd sets no limit. This one is far above what one client needs, and keeps a broken one from filling the memory.
const MAX_STREAMS: u32 = 10_000;
/// A failed accept is mostly a lack of file descriptors, which does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Where connections come from.
trait Listener: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        // Fails only for a connection that is gone already.
        stream.set_nodelay(true).ok();
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl GrpcDoor {
    /// Serves connections until `shutdown` ends. Then no new ones are taken, and those that are open may finish their
    /// calls within the drain timeout.
    ///
    /// Dropping the future closes all connections.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
        self.serve_all(listener, shutdown).await;
    }

    /// As [`serve`](Self::serve), on a Unix socket.
    pub async fn serve_unix(&self, listener: UnixListener, shutdown: impl Future<Output = ()> + Send) {
        self.serve_all(listener, shutdown).await;
    }

    async fn serve_all(&self, listener: impl Listener, shutdown: impl Future<Output = ()> + Send) {
        let (stop, stopping) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.next() => match accepted {
                    Ok(stream) => {
                        connections.spawn(self.clone().serve_connection(stream, stopping.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(app_id = self.0.api.app.id, %error, "gRPC connection not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(stop);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(self.0.options.drain_timeout, drained).await.is_err() {
            tracing::warn!(app_id = self.0.api.app.id, "gRPC calls cut off at shutdown");
        }
    }

    async fn serve_connection(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut stopping: watch::Receiver<()>,
    ) {
        let door = self.clone();
        let service = service_fn(move |request| {
            let door = door.clone();
            async move {
                // A panic is a bug; it must cost its caller an answer and nobody else anything.
                let answer = AssertUnwindSafe(door.answer(request)).catch_unwind().await;
                Ok::<_, Infallible>(answer.unwrap_or_else(|_| panicked()))
            }
        });
        let connection = http2::Builder::new(AtOnce)
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(self.0.options.max_header_bytes)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = &mut connection => ended,
            _ = stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(app_id = self.0.api.app.id, %error, "gRPC connection ended");
        }
    }
}

fn panicked() -> http::Response<Reply> {
    Status::internal("internal error; the runtime's log says more").into_http()
}
