//! The way from the world to an app that has no port of its own: what arrives goes to the app as it came.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode, header};
use http_body::Body as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    select,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use trilby_component::ErrorKind;
use trilby_core::{AppChannel, Body, ChannelError, Ctx, Response};

use super::Served;
use crate::address::Bound;

/// Longest request head. Browsers send more cookies than Dapr's clients send headers.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most headers. hyper must have a limit, and its default is 100; Go's servers have none.
const MAX_HEADERS: usize = 1000;
/// Longest time for a request head, and for a connection without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// A failed accept is mostly a lack of file descriptors, which does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

pub(super) fn serve(served: &Served<'_>, bound: Bound, tasks: &mut JoinSet<()>) {
    let app = App { id: served.api.app.id.as_str().into(), channel: Arc::clone(served.channel) };
    let (stopped, drain_timeout) = (served.stop.stopped(), served.settings.drain_timeout);
    tasks.spawn(async move {
        match bound {
            Bound::Tcp(listener) => app.serve(listener, stopped, drain_timeout).await,
            Bound::Unix(listener, _file) => app.serve(listener, stopped, drain_timeout).await,
        }
    });
}

/// What connections come from.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

#[derive(Clone)]
struct App {
    id: Arc<str>,
    channel: Arc<dyn AppChannel>,
}

impl App {
    async fn serve(&self, listener: impl Accept, stopped: impl Future<Output = ()>, drain: Duration) {
        let (running, stop) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut stopped = pin!(stopped);
        loop {
            select! {
                () = &mut stopped => break,
                accepted = listener.accept() => match accepted {
                    Ok(stream) => {
                        connections.spawn(self.clone().serve_connection(stream, stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(app_id = &*self.id, %error, "no connection can be accepted; trying again");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop((listener, running));
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(drain, drained).await.is_err() {
            tracing::warn!(app_id = &*self.id, "requests did not finish in time and are cut off");
        }
    }

    async fn serve_connection<S>(self, stream: S, mut stop: watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| self.answer(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS)
            .pipeline_flush(true)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = select! {
            biased;
            ended = connection.as_mut() => ended,
            _ = stop.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(app_id = &*self.id, %error, "connection broke");
        }
    }

    async fn answer(&self, request: http::Request<Incoming>) -> Result<Response, Infallible> {
        let request = request.map(|body| if body.is_end_stream() { Body::Empty } else { Body::stream(body) });
        let ctx = Ctx::from_headers(request.headers());

        let answer = self.channel.invoke(&ctx, request).await;

        Ok(answer.unwrap_or_else(|error| {
            // The way to a guest has logged it, with what only it knows.
            tracing::debug!(app_id = &*self.id, %error, "app gave no answer");
            refusal(&error)
        }))
    }
}

/// What the world is told of an app that gave no answer. The log has the rest.
fn refusal(error: &ChannelError) -> Response {
    let status = match error.kind {
        ErrorKind::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let mut response = Response::new(Body::from(format!("{error}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
