//! `crypto.dapr.jwks`: the keys of a JSON Web Key Set, each by its `kid`.
//!
//! The set is given as it is, as JSON or base64 of it; or it is read from a file, and again when that changes; or it is
//! fetched from an HTTP server, and again when it is old or does not have a key that is asked for.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{Request, Uri};
use http_body_util::Full;
use serde::Deserialize;
use tokio::sync::Semaphore;
use trilby_component::{ComponentError, ErrorKind, OpenRequest, Result, crypto::CryptoProvider, properties::duration};

use super::{
    key::{Key, Set},
    local::{KeySource, Local},
};
use crate::{http::Client, tls};

/// How often a file is looked at, at most.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// The longest set that is fetched, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// What the two durations may not fall below; what does is not set, as in Dapr.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// What `spec.metadata` may hold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The set: JSON, base64 of it, an `http` or `https` URL, or the path of a file. Required. Dapr's `jwks`.
    pub jwks: String,
    /// How long a server may take to answer. Default 30 s. Dapr's `requestTimeout`.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// How old a fetched set becomes before it is fetched again. Default 10 min. Dapr's `minRefreshInterval`.
    #[serde(with = "duration")]
    pub min_refresh_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            jwks: String::new(),
            request_timeout: Duration::from_secs(30),
            min_refresh_interval: Duration::from_secs(600),
        }
    }
}

/// Reads or fetches the set.
///
/// # Errors
/// `InvalidMetadata` if `jwks` is not set, or is none of the four; `Unavailable` or `Timeout` if a server does not answer,
/// `Internal` if it answers with something else.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn CryptoProvider>> {
    let mut config: Config = request.properties.parse()?;
    if config.jwks.is_empty() {
        return Err(ComponentError::metadata(
            "metadata property 'jwks' is required; set it to a key set, its URL or its file",
        ));
    }
    let default = Config::default();
    if config.request_timeout < SHORTEST_TIMEOUT {
        config.request_timeout = default.request_timeout;
    }
    if config.min_refresh_interval < SHORTEST_INTERVAL {
        config.min_refresh_interval = default.min_refresh_interval;
    }
    if config.jwks.starts_with("https://") || config.jwks.starts_with("http://") {
        return Ok(Arc::new(Local(Keys::open(Origin::server(&config)?, config.min_refresh_interval).await?)));
    }
    if tokio::fs::metadata(&config.jwks).await.is_ok_and(|found| found.is_file()) {
        return Ok(Arc::new(Local(Keys::open(Origin::File(config.jwks.into()), FILE_INTERVAL).await?)));
    }
    Ok(Arc::new(Local(inline(&config.jwks)?)))
}

fn inline(text: &str) -> Result<Set> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(&STANDARD, lenient).decode(text.trim_end_matches('='));
    Set::parse(decoded.as_deref().unwrap_or(text.as_bytes())).map_err(|reason| {
        let allowed = "not a URL, path to local file, or JSON value (optionally base64-encoded)";
        ComponentError::metadata(format!("failed to parse property 'jwks': {allowed}: {reason}"))
    })
}

#[async_trait]
impl KeySource for Set {
    async fn key(&self, name: &str) -> Result<Arc<Key>> {
        self.get(name).ok_or_else(missing)
    }
}

fn missing() -> ComponentError {
    ComponentError::new(ErrorKind::NotFound, "key not found")
}

/// Where a set comes from that may change.
enum Origin {
    File(PathBuf),
    Server { client: Box<Client>, uri: Uri, timeout: Duration },
}

/// What a file looked like when it was read.
type Stamp = Option<(SystemTime, u64)>;

impl Origin {
    fn server(config: &Config) -> Result<Self> {
        let uri: Uri = config
            .jwks
            .parse()
            .map_err(|error| ComponentError::metadata(format!("jwks {} is no URL: {error}", config.jwks)))?;
        if uri.scheme_str() == Some("http") {
            tracing::warn!("the key set is fetched without TLS; use https outside of development");
        }
        let client = Box::new(Client::new(&tls::Settings::default())?);
        Ok(Self::Server { client, uri, timeout: config.request_timeout })
    }

    /// Reads the set; `None` if it is the one with this stamp.
    async fn read(&self, known: Stamp) -> Result<Option<(Set, Stamp)>> {
        match self {
            Self::File(path) => {
                let broken = |reason: String| {
                    ComponentError::metadata(format!("key set {} cannot be read: {reason}", path.display()))
                };
                let found = tokio::fs::metadata(path).await.map_err(|error| broken(error.to_string()))?;
                let stamp = found.modified().ok().map(|time| (time, found.len()));
                if stamp.is_some() && stamp == known {
                    return Ok(None);
                }
                let text = tokio::fs::read(path).await.map_err(|error| broken(error.to_string()))?;
                Ok(Some((Set::parse(&text).map_err(broken)?, stamp)))
            }
            Self::Server { client, uri, timeout } => {
                let broken = |reason: String| {
                    ComponentError::new(ErrorKind::Internal, format!("failed to fetch JWKS from {uri}: {reason}"))
                };
                let request = Request::get(uri).body(Full::default()).map_err(|error| broken(error.to_string()))?;
                let response = client.exchange(request, MAX_BYTES, Some(*timeout)).await?;
                if !response.status().is_success() {
                    return Err(broken(format!("the server answered {}", response.status())));
                }
                Ok(Some((Set::parse(response.body()).map_err(broken)?, None)))
            }
        }
    }
}

/// A set that is kept, and read again when it is old.
struct Keys {
    origin: Origin,
    interval: Duration,
    kept: RwLock<Kept>,
    /// Whose turn it is to read the set, so that it is read once however many wait for it.
    turn: Semaphore,
}

struct Kept {
    set: Arc<Set>,
    stamp: Stamp,
    read_at: Instant,
}

impl Keys {
    async fn open(origin: Origin, interval: Duration) -> Result<Self> {
        let (set, stamp) = origin.read(None).await?.ok_or_else(missing)?;
        let kept = RwLock::new(Kept { set: Arc::new(set), stamp, read_at: Instant::now() });
        Ok(Self { origin, interval, kept, turn: Semaphore::new(1) })
    }

    fn known(&self, name: &str) -> Option<Arc<Key>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).set.get(name)
    }

    /// The stamp of the set, if that is old.
    fn stale(&self) -> Option<Stamp> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        (kept.read_at.elapsed() >= self.interval).then_some(kept.stamp)
    }

    /// Reads the set again if it is old. If it cannot be read, the old one is kept.
    async fn refresh(&self) {
        let Some(stamp) = self.stale() else { return };
        let read = self.origin.read(stamp).await;
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.read_at = Instant::now();
        match read {
            Ok(Some((set, stamp))) => (kept.set, kept.stamp) = (Arc::new(set), stamp),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the key set could not be read again; the old one is kept"),
        }
    }
}

#[async_trait]
impl KeySource for Keys {
    async fn key(&self, name: &str) -> Result<Arc<Key>> {
        // Who asks for a known key waits for no other who reads the set.
        let turn = match self.known(name) {
            Some(_) => self.turn.try_acquire().ok(),
            None => self.turn.acquire().await.ok(),
        };
        if turn.is_some() {
            self.refresh().await;
        }
        drop(turn);
        self.known(name).ok_or_else(missing)
    }
}
