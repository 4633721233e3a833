//! The server and the user that a kubeconfig names, as `kubectl` reads it.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::IgnoredAny};
use tokio::fs;
use trilby_component::{ComponentError, Result};

use super::cluster::{Cluster, Identity};
use crate::tls;

/// What is used of the file. Each list is of things by name.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Kubeconfig {
    clusters: Vec<NamedServer>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
    current_context: String,
}

#[derive(Deserialize)]
struct NamedServer {
    name: String,
    cluster: Server,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Server {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: String,
    proxy_url: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    #[serde(rename = "as")]
    impersonated: String,
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
}

/// The cluster of the current context.
///
/// # Errors
/// `InvalidMetadata` that names the file, for one that cannot be read, names what it does not have, or wants what this
/// build has not: logins by programs, impersonation, proxies.
pub(super) async fn read(path: &Path) -> Result<Cluster> {
    let named = |error: ComponentError| ComponentError::metadata(format!("kubeconfig {}: {error}", path.display()));
    let text = text_of(path).await.map_err(named)?;
    let config = serde_norway::from_str(&text).map_err(|error| named(ComponentError::metadata(error.to_string())))?;
    // Paths in the file begin at its folder.
    cluster(config, path.parent().unwrap_or(Path::new(""))).await.map_err(named)
}

async fn cluster(config: Kubeconfig, folder: &Path) -> Result<Cluster> {
    let missing = |what: &str, name: &str| ComponentError::metadata(format!("it has no {what} {name:?}"));
    let current = config.current_context;
    let context = config.contexts.into_iter().find(|context| context.name == current);
    let Context { cluster, user } = context.ok_or_else(|| missing("context", &current))?.context;
    let server = config.clusters.into_iter().find(|server| server.name == cluster);
    let server = server.ok_or_else(|| missing("cluster", &cluster))?.cluster;
    let user = match config.users.into_iter().find(|known| known.name == user) {
        Some(user) => user.user,
        None if user.is_empty() => User::default(),
        None => return Err(missing("user", &user)),
    };
    supported(&server, &user)?;
    let trust = tls::Settings {
        ca_cert: pem(folder, &server.certificate_authority_data, &server.certificate_authority).await?,
        client_cert: pem(folder, &user.client_certificate_data, &user.client_certificate).await?,
        client_key: pem(folder, &user.client_key_data, &user.client_key).await?,
        trusts_anyone: server.insecure_skip_tls_verify,
    };
    Cluster::new(&server.server, &trust, &server.tls_server_name, identity(&user, folder)?)
}

fn supported(server: &Server, user: &User) -> Result<()> {
    let wanted = [
        ("exec", user.exec.is_some()),
        ("auth-provider", user.auth_provider.is_some()),
        ("as", !user.impersonated.is_empty()),
        ("proxy-url", !server.proxy_url.is_empty()),
    ];
    match wanted.iter().find(|(_, wanted)| *wanted) {
        None => Ok(()),
        Some((name, _)) => Err(ComponentError::metadata(format!(
            "{name} is not supported; use token, tokenFile, client-certificate or username"
        ))),
    }
}

fn identity(user: &User, folder: &Path) -> Result<Identity> {
    if !user.token_file.is_empty() {
        return Ok(Identity::TokenFile(folder.join(&user.token_file)));
    }
    if !user.token.is_empty() {
        return Identity::header("Bearer", &user.token);
    }
    if !user.username.is_empty() {
        let login = format!("{}:{}", user.username, user.password);
        return Identity::header("Basic", &STANDARD.encode(login));
    }
    Ok(Identity::Nobody)
}

/// What `data` holds in base64, else what the file at `path` holds, else nothing.
async fn pem(folder: &Path, data: &str, path: &str) -> Result<String> {
    if !data.is_empty() {
        let decoded = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        return decoded.ok_or_else(|| ComponentError::metadata("its certificates and keys are not PEM in base64"));
    }
    if path.is_empty() { Ok(String::new()) } else { text_of(&folder.join(path)).await }
}

async fn text_of(path: &Path) -> Result<String> {
    fs::read_to_string(path).await.map_err(|error| {
        ComponentError::metadata(format!("unable to read {}: {error}", path.display())).with_source(error)
    })
}
