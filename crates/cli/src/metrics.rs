//! The metrics port: whatever is asked, the answer is all metrics.

mod process;

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use http_body_util::Full;
use hyper::{
    Response,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, select, time::sleep};

use crate::listen::Address;

/// Prometheus' text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Connections at a time; scrapers need one.
const MAX_CONNECTIONS: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The port, taken before anything else runs.
pub(crate) struct Metrics(TcpListener);

impl Metrics {
    /// # Errors
    /// If the port is in use, in words that name it and its flag.
    pub(crate) async fn listen(address: &Address) -> Result<Self, String> {
        let listener = TcpListener::bind(address.resolve().await?).await.map_err(|error| address.refused(&error))?;
        let found: io::Result<_> = listener.local_addr();
        // daprd's words, which tools look for.
        tracing::info!(
            "metrics server started on {}:{}/",
            address.host,
            found.map_or(address.port, |found| found.port())
        );
        Ok(Self(listener))
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(&self, render: impl Fn() -> String) -> Infallible {
        let service = service_fn(|_| {
            let mut text = render();
            process::render(&mut text);
            let mut response = Response::new(Full::new(Bytes::from(text)));
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
            async { Ok::<_, Infallible>(response) }
        });
        let mut connections = FuturesUnordered::new();
        loop {
            select! {
                accepted = self.0.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), &service);
                        // A scraper that goes away in the middle is its own loss.
                        connections.push(connection.map(drop));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no metrics connection can be accepted; trying again");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(()) = connections.next(), if !connections.is_empty() => {}
            }
        }
    }
}
