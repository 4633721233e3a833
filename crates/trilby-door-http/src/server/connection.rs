//! One connection: HTTP/1.1 or HTTP/2, told apart by its first bytes, or the one turned into the other.

use std::{
    convert::Infallible,
    future::ready,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
};

use http::{Version, header::HOST};
use http_body::Body as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulConnection},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    sync::watch,
};
use trilby_core::{Body, Response, body::BoxError};

use super::{
    h2c::{self, Upgrade},
    head_timer::{CountedReads, HeadTimer},
};
use crate::{HttpDoor, Options, error};

/// The least that hyper accepts for its buffer, and enough for a head of the default limit and Go's slack on top.
const MIN_BUFFER_BYTES: usize = 8 << 10;
/// Go has no limit for the number of headers but that of the head. hyper must have one; this is as good as none, since
/// headers are rarely shorter.
const BYTES_PER_HEADER: usize = 8;
/// How much longer than the limit Go lets a request head be.
const HEAD_SLACK_BYTES: usize = 4 << 10;

/// Serves requests until the peer leaves, or until the sender of `stop` is gone and the last request is answered.
pub(super) async fn serve<S>(door: HttpDoor, stream: S, mut stop: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let reads = Arc::new(AtomicUsize::new(0));
    let builder = builder(&door.0.options, &reads);
    let io = CountedReads::new(TokioIo::new(stream), reads);
    let ended = if door.0.options.h2c {
        serve_either(door, &builder, io, &mut stop).await
    } else {
        let service = service_fn(move |request| answer(door.clone(), request));
        drive(builder.http1_only().serve_connection(io, service), &mut stop).await
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "connection broke");
    }
}

async fn serve_either<I>(
    door: HttpDoor,
    builder: &auto::Builder<TokioExecutor>,
    io: I,
    stop: &mut watch::Receiver<()>,
) -> Result<(), BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let upgrade: Arc<Mutex<Option<Upgrade>>> = Arc::default();
    let (asked, requests) = (Arc::clone(&upgrade), door.clone());
    let service = service_fn(move |mut request| {
        let Some(wanted) = Upgrade::of(&mut request) else { return answer(requests.clone(), request) };
        *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
        Box::pin(ready(Ok(h2c::switching_protocols())))
    });
    drive(builder.serve_connection_with_upgrades(io, service), stop).await?;

    let upgraded = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgraded) = upgraded {
        let io = upgraded.into_http2(door.0.options.header_read_timeout).await?;
        let service = service_fn(move |request| answer(door.clone(), request));
        drive(builder.serve_connection(TokioIo::new(io), service), stop).await?;
    }
    Ok(())
}

/// The work on one request. It is boxed so that its size, some kilobytes, is spent on requests and not on connections.
type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

fn answer(door: HttpDoor, request: http::Request<Incoming>) -> Answering {
    if !says_one_host(&request) {
        return Box::pin(ready(Ok(error::bad_request())));
    }
    // Most requests have no body; a stream for nothing would cost an allocation.
    let request = request.map(|body| if body.is_end_stream() { Body::Empty } else { Body::stream(body) });
    Box::pin(async move { Ok(door.handle(request).await) })
}

/// HTTP/1.1 wants to know the host, and only one (RFC 9112 §3.2); Go insists on it and hyper does not.
fn says_one_host(request: &http::Request<Incoming>) -> bool {
    request.version() != Version::HTTP_11 || request.headers().get_all(HOST).iter().count() == 1
}

async fn drive<C>(connection: C, stop: &mut watch::Receiver<()>) -> Result<(), BoxError>
where
    C: GracefulConnection<Error = BoxError>,
{
    let mut connection = pin!(connection);
    select! {
        biased;
        ended = connection.as_mut() => return ended,
        _ = stop.changed() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

fn builder(options: &Options, reads: &Arc<AtomicUsize>) -> auto::Builder<TokioExecutor> {
    let head_bytes = options.max_header_bytes.saturating_add(HEAD_SLACK_BYTES);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // A head that does not fit is answered with 431. The buffer is all that an idle connection keeps.
        .max_buf_size(head_bytes.max(MIN_BUFFER_BYTES))
        .max_headers(head_bytes.max(MIN_BUFFER_BYTES) / BYTES_PER_HEADER)
        .timer(HeadTimer::new(options.header_read_timeout, Arc::clone(reads)))
        .header_read_timeout(options.header_read_timeout)
        // A caller that has sent everything may say so and still wants its answer.
        .half_close(true);
    builder.http2().max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX));
    builder
}
