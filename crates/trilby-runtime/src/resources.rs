//! Resources: the YAML documents that say which components and endpoints a runtime has.
//!
//! They come from directories, files or text. A document that cannot be read is skipped with a warning, as daprd does,
//! or is an error: [`Resources::lenient`] and [`Resources::strict`].

mod document;
mod pair;
mod resiliency;
mod subscription;

use std::{fmt, fs, path::Path, sync::Arc, time::Duration};

use serde::Deserialize;
use trilby_core::Identity;

use crate::error::StartError;

pub(crate) use document::{Document, documents};
pub(crate) use pair::or_default;
pub use pair::{Pair, Source};
pub use resiliency::Resiliency;
pub(crate) use resiliency::unknown_policies;
pub use subscription::Subscription;

/// Kinds of Dapr's that a later version will read.
const LATER_KINDS: [&str; 2] = ["MCPServer", "WorkflowAccessPolicy"];
const KNOWN_KINDS: &str =
    "Component, Configuration, HTTPEndpoint, Subscription, Resiliency, MCPServer, WorkflowAccessPolicy";
/// The only version of the kinds that are read.
const API_VERSION: &str = "dapr.io/v1alpha1";

/// Where a resource was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Path of the file, or the name that was given to a text.
    pub file: Arc<str>,
    /// Number of the document in its file, from 1.
    pub document: usize,
    /// Line in the file, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: document {}, line {}", self.file, self.document, self.line)
    }
}

/// What every resource has.
#[derive(Debug, Clone)]
pub struct Header {
    /// Where it was written.
    pub origin: Origin,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; an app that has a namespace sees only resources of its own or of none.
    pub namespace: Option<String>,
    /// Ids of the apps that may see it. Empty means all.
    pub scopes: Vec<String>,
    /// `auth.secretStore`: name of the component that its `secretKeyRef`s are read from.
    pub secret_store: Option<String>,
}

impl Header {
    /// Whether an app sees this resource.
    #[must_use]
    pub fn is_visible_to(&self, app: &Identity) -> bool {
        let same_namespace = match (&self.namespace, &app.namespace) {
            (Some(own), Some(apps)) => own == apps,
            _ => true,
        };
        same_namespace && (self.scopes.is_empty() || self.scopes.contains(&app.id))
    }
}

/// A Component resource.
#[derive(Clone)]
pub struct Component {
    /// What every resource has.
    pub header: Header,
    /// For example `state.redis`.
    pub type_name: String,
    /// As written; empty, `v0` and `v1` are one.
    pub version: String,
    /// Whether the runtime starts without it if it cannot be opened.
    pub ignore_errors: bool,
    /// Longest time it may take to open. Default 5 s.
    pub init_timeout: Duration,
    /// `spec.metadata`, as written.
    pub metadata: Vec<Pair>,
}

/// A PEM document of an HTTPEndpoint, or where to find it.
pub type Pem = Option<Source>;

/// An HTTPEndpoint resource.
#[derive(Clone)]
pub struct HttpEndpoint {
    /// What every resource has.
    pub header: Header,
    /// Scheme, host, and an optional path prefix.
    pub base_url: String,
    /// Headers that every call gets.
    pub headers: Vec<Pair>,
    /// Certificates to trust instead of the usual ones.
    pub root_ca: Pem,
    /// The client's certificate.
    pub certificate: Pem,
    /// The client's private key.
    pub private_key: Pem,
}

/// Everything that was read, in the order in which it was read.
#[derive(Default)]
pub struct Resources {
    strict: bool,
    pub(crate) components: Vec<Arc<Component>>,
    pub(crate) endpoints: Vec<Arc<HttpEndpoint>>,
    pub(crate) resiliencies: Vec<Arc<Resiliency>>,
    pub(crate) subscriptions: Vec<Arc<Subscription>>,
}

impl Resources {
    /// No resources yet; documents that cannot be read are skipped with a warning, as daprd does.
    #[must_use]
    pub fn lenient() -> Self {
        Self::default()
    }

    /// No resources yet; a document that cannot be read is an error.
    #[must_use]
    pub fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// Whether a resource that cannot be read, or that names what is not there, is an error.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Adds what was read elsewhere, after what is here.
    pub fn append(&mut self, mut other: Self) {
        self.components.append(&mut other.components);
        self.endpoints.append(&mut other.endpoints);
        self.resiliencies.append(&mut other.resiliencies);
        self.subscriptions.append(&mut other.subscriptions);
    }

    /// Shows everything to these apps alone, and still only to those of them that its own scopes name.
    #[must_use]
    pub fn only_for(mut self, app_ids: &[String]) -> Self {
        // No scope means everybody, so what would be left without one goes.
        self.components.retain_mut(|component| narrow(&mut Arc::make_mut(component).header.scopes, app_ids));
        self.endpoints.retain_mut(|endpoint| narrow(&mut Arc::make_mut(endpoint).header.scopes, app_ids));
        self.resiliencies.retain_mut(|one| narrow(&mut Arc::make_mut(one).header.scopes, app_ids));
        self.subscriptions.retain_mut(|one| narrow(&mut Arc::make_mut(one).header.scopes, app_ids));
        self
    }

    /// Components in the order in which they were read.
    pub fn components(&self) -> impl Iterator<Item = &Component> {
        self.components.iter().map(Arc::as_ref)
    }

    /// HTTP endpoints in the order in which they were read.
    pub fn endpoints(&self) -> impl Iterator<Item = &HttpEndpoint> {
        self.endpoints.iter().map(Arc::as_ref)
    }

    /// Reads every `.yaml` and `.yml` file of a directory, by name, without its sub-directories.
    ///
    /// # Errors
    /// If the directory cannot be read; if strict, also what [`read_file`](Self::read_file) says.
    pub fn read_directory(&mut self, directory: &Path) -> Result<(), StartError> {
        let failed = |source| StartError::Read { path: directory.to_owned(), source };
        let entries = fs::read_dir(directory).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(|path| !path.is_dir()).collect();
        paths.sort();
        for path in paths {
            if !is_yaml(&path) {
                tracing::debug!(path = %path.display(), "not a .yaml or .yml file, skipped");
                continue;
            }
            match self.read_file(&path) {
                Err(error @ StartError::Read { .. }) if !self.strict => tracing::warn!(%error, "resource file skipped"),
                result => result?,
            }
        }
        Ok(())
    }

    /// Reads one file of one or more documents.
    ///
    /// # Errors
    /// If the file cannot be read; if strict, also for a document that cannot be.
    pub fn read_file(&mut self, path: &Path) -> Result<(), StartError> {
        let text = fs::read(path).map_err(|source| StartError::Read { path: path.to_owned(), source })?;
        self.read_text(&path.display().to_string(), &String::from_utf8_lossy(&text))
    }

    /// Reads one or more documents. `name` stands for the file in messages.
    ///
    /// # Errors
    /// If strict, for a document that cannot be read.
    pub fn read_text(&mut self, name: &str, text: &str) -> Result<(), StartError> {
        for document in documents(name, text) {
            match self.read_document(&document) {
                Err(error) if !self.strict => tracing::warn!(%error, "resource skipped"),
                result => result?,
            }
        }
        Ok(())
    }

    fn read_document(&mut self, document: &Document<'_>) -> Result<(), StartError> {
        let TypeMeta { api_version, kind } = document.decode()?;
        if !api_version.starts_with("dapr.io/") {
            if kind == "Component" || kind == "Configuration" || kind == "HTTPEndpoint" {
                let found =
                    if api_version.is_empty() { "no apiVersion".into() } else { format!("apiVersion {api_version}") };
                return Err(document.error(format!("a {kind} with {found}, expected {API_VERSION}")));
            }
            tracing::debug!(origin = %document.origin(), api_version, kind, "not a resource of Dapr's, skipped");
            return Ok(());
        }
        if LATER_KINDS.contains(&kind.as_str()) {
            tracing::info!(origin = %document.origin(), kind, "this version does not read resources of this kind, skipped");
            return Ok(());
        }
        if kind == "Subscription" && subscription::API_VERSIONS.contains(&api_version.as_str()) {
            self.subscriptions.push(Arc::new(Subscription::read(document, &api_version)?));
            return Ok(());
        }
        if api_version != API_VERSION && KNOWN_KINDS.split(", ").any(|known| known == kind) {
            return Err(document.error(format!("a {kind} with apiVersion {api_version}, expected {API_VERSION}")));
        }
        match kind.as_str() {
            "Component" => self.components.push(Arc::new(component(document)?)),
            "Resiliency" => self.resiliencies.push(Arc::new(Resiliency::read(document)?)),
            "HTTPEndpoint" => self.endpoints.push(Arc::new(endpoint(document)?)),
            // As in Dapr, a Configuration is chosen by whoever starts the app.
            "Configuration" => {
                tracing::info!(origin = %document.origin(), "not among the configuration files, skipped")
            }
            _ => return Err(document.error(format!("unknown kind {kind:?}; Dapr's kinds are {KNOWN_KINDS}"))),
        }
        Ok(())
    }
}

/// Cuts `scopes` down to `app_ids`; whether anybody is left.
fn narrow(scopes: &mut Vec<String>, app_ids: &[String]) -> bool {
    if scopes.is_empty() {
        scopes.extend_from_slice(app_ids);
    } else {
        scopes.retain(|scope| app_ids.contains(scope));
    }
    !scopes.is_empty()
}

fn is_yaml(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default, deserialize_with = "or_default")]
    api_version: String,
    // Go reads names without case, and Dapr's own tests have this spelling.
    #[serde(default, alias = "Kind", deserialize_with = "or_default")]
    kind: String,
}

#[derive(Deserialize)]
struct ObjectMeta {
    name: String,
    namespace: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Auth {
    secret_store: Option<String>,
}

/// Any resource: `spec` is what differs.
#[derive(Deserialize)]
struct Manifest<Spec> {
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(default, deserialize_with = "or_default")]
    auth: Auth,
    #[serde(default, deserialize_with = "or_default")]
    scopes: Vec<String>,
}

impl<Spec> Manifest<Spec> {
    fn split(self, document: &Document<'_>) -> Result<(Header, Spec), StartError> {
        let name = self.metadata.name;
        // The name becomes a segment of a path.
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '%']) {
            return Err(document
                .error(format!("metadata.name {name:?} must not be empty, '.' or '..', nor contain '/' or '%'")));
        }
        let header = Header {
            origin: document.origin(),
            name,
            namespace: self.metadata.namespace.filter(|namespace| !namespace.is_empty()),
            scopes: self.scopes,
            secret_store: self.auth.secret_store.filter(|store| !store.is_empty()),
        };
        Ok((header, self.spec))
    }
}

fn component(document: &Document<'_>) -> Result<Component, StartError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        r#type: String,
        #[serde(default, deserialize_with = "or_default")]
        version: String,
        #[serde(default, deserialize_with = "or_default")]
        ignore_errors: bool,
        #[serde(default, deserialize_with = "or_default")]
        init_timeout: String,
        #[serde(default, deserialize_with = "or_default")]
        metadata: Vec<Pair>,
    }
    const INIT_TIMEOUT: Duration = Duration::from_secs(5);

    let (header, spec) = document.decode::<Manifest<Spec>>()?.split(document)?;
    let init_timeout = match spec.init_timeout.as_str() {
        "" => INIT_TIMEOUT,
        text => trilby_component::properties::duration::parse(text).ok_or_else(|| {
            document.error(format!("spec.initTimeout {text:?} is not a duration such as 5s or 1m30s"))
        })?,
    };
    Ok(Component {
        header,
        type_name: spec.r#type,
        version: spec.version,
        ignore_errors: spec.ignore_errors,
        // Dapr takes no time at all for not set.
        init_timeout: if init_timeout.is_zero() { INIT_TIMEOUT } else { init_timeout },
        metadata: spec.metadata,
    })
}

fn endpoint(document: &Document<'_>) -> Result<HttpEndpoint, StartError> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct ClientTls {
        #[serde(rename = "rootCA", alias = "rootCa")]
        root_ca: Option<Source>,
        certificate: Option<Source>,
        private_key: Option<Source>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        // Go reads names without case, so daprd takes both spellings of each acronym, and so do its users.
        #[serde(alias = "baseURL")]
        base_url: String,
        #[serde(default, deserialize_with = "or_default")]
        headers: Vec<Pair>,
        #[serde(default, rename = "clientTLS", alias = "clientTls", deserialize_with = "or_default")]
        client_tls: ClientTls,
    }

    let (header, Spec { base_url, headers, client_tls }) = document.decode::<Manifest<Spec>>()?.split(document)?;
    let ClientTls { root_ca, certificate, private_key } = client_tls;
    Ok(HttpEndpoint { header, base_url, headers, root_ca, certificate, private_key })
}

#[cfg(test)]
mod tests;
