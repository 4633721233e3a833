//! Where the API server is, whom to trust for it and who we are.

use std::path::{Path, PathBuf};

use http::{HeaderValue, Uri};
use tokio::fs;
use trilby_component::{ComponentError, ErrorKind, Result};

use super::{Surroundings, kubeconfig};
use crate::{http::Client, tls};

/// An API server.
pub(super) struct Cluster {
    /// Its URL, without a slash at its end.
    pub(super) server: String,
    pub(super) client: Client,
    pub(super) identity: Identity,
}

/// Who we are to the server, beside a client certificate.
pub(super) enum Identity {
    Nobody,
    /// What the header `authorization` says.
    Header(HeaderValue),
    /// A file that holds a token. It is replaced now and then, so that it is read for each request.
    TokenFile(PathBuf),
}

impl Identity {
    /// Whoever may say this in the header `authorization`.
    ///
    /// # Errors
    /// `InvalidMetadata` for what no header can hold.
    pub(super) fn header(scheme: &str, value: &str) -> Result<Self> {
        header(scheme, value)
            .map(Self::Header)
            .ok_or_else(|| ComponentError::metadata("kubernetes: the token cannot be sent"))
    }

    /// What to say in the header `authorization`.
    ///
    /// # Errors
    /// `Denied` if there is a file with a token and it cannot be used.
    pub(super) async fn credential(&self) -> Result<Option<HeaderValue>> {
        match self {
            Self::Nobody => Ok(None),
            Self::Header(value) => Ok(Some(value.clone())),
            Self::TokenFile(path) => {
                let unusable = |error: String| {
                    let message = format!("failed to read token file {:?}: {error}", path.display());
                    ComponentError::new(ErrorKind::Denied, message)
                };
                let token = fs::read_to_string(path).await.map_err(|error| unusable(error.to_string()))?;
                match token.trim() {
                    "" => Err(unusable("it is empty".to_owned())),
                    token => header("Bearer", token).map(Some).ok_or_else(|| unusable("it holds no token".to_owned())),
                }
            }
        }
    }
}

fn header(scheme: &str, value: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(format!("{scheme} {value}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The pod's own cluster, or that of the kubeconfig: `own`, else the one around us.
///
/// # Errors
/// `InvalidMetadata` that says what is missing or cannot be used.
pub(super) async fn find(surroundings: &Surroundings, own: &str) -> Result<Cluster> {
    if let Some(cluster) = of_pod(surroundings).await? {
        return Ok(cluster);
    }
    let own = (!own.is_empty()).then(|| Path::new(own));
    match own.or(surroundings.kubeconfig.as_deref()) {
        Some(path) => kubeconfig::read(path).await,
        None => Err(ComponentError::metadata(
            "this is no pod of a cluster, and no kubeconfig is known; set kubeconfigPath, or KUBECONFIG",
        )),
    }
}

/// The cluster that this is a pod of, if it is one that may speak to it.
async fn of_pod(surroundings: &Surroundings) -> Result<Option<Cluster>> {
    let token = surroundings.service_account.join("token");
    let Some((host, port)) = &surroundings.server else { return Ok(None) };
    if !fs::try_exists(&token).await.unwrap_or(false) {
        return Ok(None);
    }
    // An address of IP version 6.
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let trust = tls::Settings {
        ca_cert: fs::read_to_string(surroundings.service_account.join("ca.crt")).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "no authority of the cluster's own; those that browsers trust must vouch for it");
            String::new()
        }),
        ..tls::Settings::default()
    };
    Cluster::new(&format!("https://{host}:{port}"), &trust, "", Identity::TokenFile(token)).map(Some)
}

impl Cluster {
    /// `name` is the one that the server's certificate is for, if that is not in its URL.
    ///
    /// # Errors
    /// `InvalidMetadata` for what is no URL, or a certificate or key that cannot be used.
    pub(super) fn new(server: &str, trust: &tls::Settings, name: &str, identity: Identity) -> Result<Self> {
        let server = server.trim_end_matches('/');
        let url = server.parse::<Uri>().ok().filter(|url| url.scheme().is_some() && url.host().is_some());
        if url.is_none() {
            let message = format!("kubernetes: server {server:?} is no URL; it should be as https://kubernetes:6443");
            return Err(ComponentError::metadata(message));
        }
        Ok(Self { server: server.to_owned(), client: Client::for_server(trust, name)?, identity })
    }
}
