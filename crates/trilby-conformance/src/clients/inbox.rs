//! The app behind the HTTP door: a server that hears of what the app watches.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use crate::client::Values;

/// Where changes of a subscription go, by its id.
type Watchers = Mutex<HashMap<String, mpsc::Sender<Values>>>;

/// An app that is an HTTP server on loopback. It has no routes but those of `POST /configuration/STORE/KEY`.
pub struct Inbox {
    /// Where it listens.
    pub port: u16,
    watchers: Arc<Watchers>,
    /// The task that accepts connections. It ends with the app.
    _serving: JoinSet<()>,
}

impl Inbox {
    /// Starts to listen.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let watchers = Arc::<Watchers>::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&watchers)));
        Ok(Self { port, watchers, _serving: serving })
    }

    /// Takes what comes for a subscription from now on.
    pub(super) fn watch(&self, id: &str, changes: mpsc::Sender<Values>) {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), changes);
    }
}

async fn serve(listener: TcpListener, watchers: Arc<Watchers>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let watchers = Arc::clone(&watchers);
        let answer = service_fn(move |request| answer(request, Arc::clone(&watchers)));
        connections.spawn(async move {
            // The runtime says why it could not send something.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(request: Request<Incoming>, watchers: Arc<Watchers>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_update = request.method() == Method::POST && request.uri().path().starts_with("/configuration/");
    let status = match request.into_body().collect().await {
        Ok(body) if is_update => hear(&body.to_bytes(), &watchers).await,
        _ => StatusCode::NOT_FOUND,
    };
    let mut response = Response::default();
    *response.status_mut() = status;
    Ok(response)
}

async fn hear(body: &[u8], watchers: &Watchers) -> StatusCode {
    #[derive(Deserialize)]
    struct Update {
        id: String,
        items: Map<String, Value>,
    }
    let Ok(Update { id, items }) = serde_json::from_slice(body) else { return StatusCode::BAD_REQUEST };
    let value = |item: &Value| item["value"].as_str().unwrap_or_default().to_owned();
    let values = items.iter().map(|(key, item)| (key.clone(), value(item))).collect();
    let watcher = watchers.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
    if let Some(watcher) = watcher {
        // A case that has ended hears nothing any more.
        let _ = watcher.send(values).await;
    }
    StatusCode::OK
}
