//! Listeners and connections.

use std::{convert::Infallible, io, panic::AssertUnwindSafe, pin::pin, time::Duration};

use futures_util::FutureExt as _;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Status;

use crate::{GrpcDoor, unary::Reply};

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

impl GrpcDoor {
    /// Serves connections until `shutdown` ends. Then no new ones are taken, and those that are open may finish their
    /// calls within the drain timeout.
    ///
    /// Dropping the future closes all connections.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let accept = async || {
            let (stream, _) = listener.accept().await?;
            // Fails only for a connection that is gone already.
            stream.set_nodelay(true).ok();
            Ok(stream)
        };
        self.serve_all(accept, shutdown).await;
    }

    /// As [`serve`](Self::serve), on a Unix socket.
    pub async fn serve_unix(&self, listener: UnixListener, shutdown: impl Future<Output = ()>) {
        let accept = async || listener.accept().await.map(|(stream, _)| stream);
        self.serve_all(accept, shutdown).await;
    }

    async fn serve_all<S>(&self, accept: impl AsyncFn() -> io::Result<S>, shutdown: impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (stop, stopping) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = accept() => match accepted {
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

    async fn serve_connection<S>(self, stream: S, mut stopping: watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let door = self.clone();
        let service = service_fn(move |request| {
            let door = door.clone();
            async move {
                // A panic is a bug; it must cost its caller an answer and nobody else anything.
                let answer = AssertUnwindSafe(door.answer(request)).catch_unwind().await;
                Ok::<_, Infallible>(answer.unwrap_or_else(|_| panicked()))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
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
