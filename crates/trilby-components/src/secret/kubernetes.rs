//! `secretstores.kubernetes`: the Secrets of a Kubernetes namespace, read from the cluster's API server.
//!
//! A pod speaks to its own cluster with its service account; everyone else to the one that a kubeconfig names.

mod cluster;
mod kubeconfig;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION},
};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use trilby_component::{
    ComponentError, ErrorKind, Metadata, OpenRequest, Result,
    secret::{Secret, SecretStore},
};

use self::cluster::Cluster;

/// The longest answer that is read, in bytes. A Secret has 1 MiB at most, and a namespace's are one answer.
const MAX_ANSWER_BYTES: usize = 128 << 20;
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where a pod finds its token and the authority that vouches for the server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What is not escaped in a name beside letters and digits.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What `spec.metadata` may hold.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The namespace of secrets where neither the request nor `NAMESPACE` names one. Dapr's `defaultNamespace`.
    pub default_namespace: String,
    /// The kubeconfig outside of a pod. Default: `KUBECONFIG`, then `.kube/config` in the home folder. Dapr's
    /// `kubeconfigPath`.
    pub kubeconfig_path: String,
}

/// What a process knows of the cluster around it.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Host and port of the API server, if this is a pod.
    pub server: Option<(String, String)>,
    /// The folder with `token` and `ca.crt` of a pod's service account.
    pub service_account: PathBuf,
    /// The kubeconfig that is used where the component names none.
    pub kubeconfig: Option<PathBuf>,
    /// The namespace of secrets where a request names none.
    pub namespace: Option<String>,
}

/// Those of a process that is in no pod and has no kubeconfig.
impl Default for Surroundings {
    fn default() -> Self {
        Self { server: None, service_account: SERVICE_ACCOUNT.into(), kubeconfig: None, namespace: None }
    }
}

impl Surroundings {
    /// Those that environment variables tell of: `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, `KUBECONFIG`,
    /// `HOME` and `NAMESPACE`.
    pub fn read<'a>(variable: impl Fn(&str) -> Option<&'a str>) -> Self {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let home = || given("HOME").map(|home| Path::new(home).join(".kube/config"));
        Self {
            server: given("KUBERNETES_SERVICE_HOST")
                .zip(given("KUBERNETES_SERVICE_PORT"))
                .map(|(host, port)| (host.to_owned(), port.to_owned())),
            kubeconfig: given("KUBECONFIG").map(PathBuf::from).or_else(home),
            namespace: given("NAMESPACE").map(str::to_owned),
            ..Self::default()
        }
    }
}

/// Nothing is sent before the first secret is asked for.
///
/// # Errors
/// `InvalidMetadata` if this is no pod and there is no kubeconfig that can be used.
pub async fn open(surroundings: Surroundings, request: OpenRequest) -> Result<Arc<dyn SecretStore>> {
    let config: Config = request.properties.parse()?;
    let cluster = cluster::find(&surroundings, &config.kubeconfig_path).await?;
    let namespace = surroundings.namespace.unwrap_or(config.default_namespace);
    Ok(Arc::new(Kubernetes { cluster, namespace }))
}

struct Kubernetes {
    cluster: Cluster,
    /// Where secrets are that are asked for without a namespace. Empty: nowhere.
    namespace: String,
}

impl Kubernetes {
    /// The URL of the secrets of the namespace that is asked for.
    fn secrets(&self, metadata: &Metadata) -> Result<String> {
        let asked = metadata.get("namespace").filter(|name| !name.is_empty());
        let namespace = segment("namespace", asked.unwrap_or(&self.namespace))?.ok_or_else(|| {
            ComponentError::request(
                "namespace is missing on metadata and NAMESPACE env variable, and no default namespace is set",
            )
        })?;
        Ok(format!("{}/api/v1/namespaces/{namespace}/secrets", self.cluster.server))
    }

    async fn ask(&self, url: &str) -> Result<Response<Bytes>> {
        let mut request = Request::get(url)
            .header(ACCEPT, "application/json")
            .body(Full::default())
            .map_err(|error| ComponentError::request(format!("kubernetes: {error}")))?;
        if let Some(credential) = self.cluster.identity.credential().await? {
            request.headers_mut().insert(AUTHORIZATION, credential);
        }
        let answer = self.cluster.client.exchange(request, MAX_ANSWER_BYTES, Some(PATIENCE)).await?;
        if answer.status() == StatusCode::OK { Ok(answer) } else { Err(refused(&answer)) }
    }
}

#[async_trait]
impl SecretStore for Kubernetes {
    async fn get(&self, name: &str, metadata: &Metadata) -> Result<Secret> {
        let secrets = self.secrets(metadata)?;
        let name =
            segment("resource", name)?.ok_or_else(|| ComponentError::request("resource name may not be empty"))?;
        let answer = self.ask(&format!("{secrets}/{name}")).await?;
        decode::<Object>(answer.body())?.into_secret()
    }

    async fn bulk_get(&self, metadata: &Metadata) -> Result<BTreeMap<String, Secret>> {
        #[derive(Deserialize)]
        struct List {
            items: Option<Vec<Object>>,
        }
        let answer = self.ask(&self.secrets(metadata)?).await?;
        let objects = decode::<List>(answer.body())?.items.unwrap_or_default().into_iter();
        objects.map(|mut object| Ok((std::mem::take(&mut object.metadata.name), object.into_secret()?))).collect()
    }
}

/// A name as a part of a path, escaped; `None` if it is empty.
///
/// # Errors
/// `InvalidRequest` for what would be a path of its own.
fn segment(what: &str, name: &str) -> Result<Option<String>> {
    let reason = match name {
        "" => return Ok(None),
        "." | ".." => format!("may not be '{name}'"),
        _ => match name.find(['/', '%']) {
            None => return Ok(Some(utf8_percent_encode(name, SEGMENT).to_string())),
            Some(at) => format!("may not contain '{}'", &name[at..=at]),
        },
    };
    Err(ComponentError::request(format!("invalid {what} name {name:?}: [{reason}]")))
}

/// A Secret as the API has it.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: ObjectMeta,
    data: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct ObjectMeta {
    #[serde(default)]
    name: String,
}

impl Object {
    fn into_secret(self) -> Result<Secret> {
        let decoded = self.data.unwrap_or_default().into_iter().map(|(key, value)| {
            let bytes = STANDARD.decode(value).map_err(|error| {
                ComponentError::new(ErrorKind::Internal, format!("kubernetes: key {key} is not base64: {error}"))
            })?;
            Ok((key, String::from_utf8_lossy(&bytes).into_owned()))
        });
        decoded.collect()
    }
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        ComponentError::new(ErrorKind::Internal, format!("kubernetes: couldn't decode response body: {error}"))
    })
}

/// What the server's status means, in its own words.
fn refused(answer: &Response<Bytes>) -> ComponentError {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let kind = match answer.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unavailable,
        status if status.is_server_error() => ErrorKind::Unavailable,
        status if status.is_client_error() => ErrorKind::InvalidRequest,
        _ => ErrorKind::Internal,
    };
    let message = serde_json::from_slice(answer.body()).map(|Status { message }| message);
    let message = message.ok().filter(|message| !message.is_empty());
    ComponentError::new(kind, message.unwrap_or_else(|| format!("kubernetes answered with {}", answer.status())))
}
