//! `secretstores.hashicorp.vault`: secrets of a key-value engine, version 2, of HashiCorp Vault or OpenBao.
//!
//! A secret is a path below the prefix, and its keys are the secret's own; as `text` the whole of it, as JSON, is one value.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::fs;
use trilby_component::{
    ComponentError, ErrorKind, Metadata, OpenRequest, Result,
    secret::{Feature, Secret, SecretStore},
};

use crate::{http::Client, tls};

/// The longest answer that is read, in bytes. Vault's own limit for a request is 32 MiB.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is escaped in the path of a secret. Slashes are part of it.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'\\');

/// What `spec.metadata` may hold.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Where the server is. Default `https://127.0.0.1:8200`. Dapr's `vaultAddr`.
    pub vault_addr: String,
    /// The token to show. This or `vaultTokenMountPath` is required. Dapr's `vaultToken`.
    pub vault_token: String,
    /// The file that holds the token. Dapr's `vaultTokenMountPath`.
    pub vault_token_mount_path: String,
    /// Where the engine is mounted. Default `secret`. Dapr's `enginePath`.
    pub engine_path: String,
    /// The folder of the secrets. Default `dapr`. Dapr's `vaultKVPrefix`.
    #[serde(rename = "vaultKVPrefix")]
    pub vault_kv_prefix: String,
    /// Whether secrets are in that folder at all. Default true. Dapr's `vaultKVUsePrefix`.
    #[serde(rename = "vaultKVUsePrefix")]
    pub vault_kv_use_prefix: bool,
    /// What a secret is. Default `map`. Dapr's `vaultValueType`.
    pub vault_value_type: String,
    /// Authorities that vouch for the server, PEM. Default: those that browsers trust. Dapr's `caPem`.
    pub ca_pem: String,
    /// A folder of files with such authorities; `caPem` goes before it. Dapr's `caPath`.
    pub ca_path: String,
    /// A file with such authorities; the other two go before it. Dapr's `caCert`.
    pub ca_cert: String,
    /// Whether any certificate will do. Default false. Dapr's `skipVerify`.
    pub skip_verify: bool,
    /// The name that the server's certificate is for. Default: that of the address. Dapr's `tlsServerName`.
    #[serde(rename = "tlsServerName")]
    pub tls_server_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vault_addr: "https://127.0.0.1:8200".to_owned(),
            vault_token: String::new(),
            vault_token_mount_path: String::new(),
            engine_path: "secret".to_owned(),
            vault_kv_prefix: "dapr".to_owned(),
            vault_kv_use_prefix: true,
            vault_value_type: "map".to_owned(),
            ca_pem: String::new(),
            ca_path: String::new(),
            ca_cert: String::new(),
            skip_verify: false,
            tls_server_name: String::new(),
        }
    }
}

/// Nothing is sent before the first secret is asked for.
///
/// # Errors
/// `InvalidMetadata` without a token or with two, for a file that cannot be read, an address that is no URL, or an unknown
/// `vaultValueType`.
pub async fn open(request: OpenRequest) -> Result<Arc<dyn SecretStore>> {
    let config: Config = request.properties.parse()?;
    Ok(Arc::new(Vault::new(&config).await?))
}

struct Vault {
    client: Client,
    /// The engine's URL, without a slash at its end.
    engine: String,
    /// What stands before the name of each secret.
    prefix: String,
    token: HeaderValue,
    is_text: bool,
}

impl Vault {
    async fn new(config: &Config) -> Result<Self> {
        let is_text = match config.vault_value_type.as_str() {
            "map" => false,
            "text" => true,
            other => {
                return Err(ComponentError::metadata(format!(
                    "vault init error, invalid value type {other}, accepted values are map or text"
                )));
            }
        };
        let mut token = HeaderValue::try_from(token(config).await?)
            .map_err(|_| ComponentError::metadata("the vault token holds what no header can hold"))?;
        token.set_sensitive(true);
        let address = config.vault_addr.trim_end_matches('/');
        let url = address.parse::<Uri>().ok().filter(|url| url.scheme().is_some() && url.host().is_some());
        if url.is_none() {
            let message =
                format!("metadata vaultAddr: {address:?} is no URL; set it, for example to https://vault:8200");
            return Err(ComponentError::metadata(message));
        }
        let trust = tls::Settings {
            ca_cert: authorities(config).await?,
            trusts_anyone: config.skip_verify,
            ..tls::Settings::default()
        };
        let has_prefix = config.vault_kv_use_prefix && !config.vault_kv_prefix.is_empty();
        Ok(Self {
            client: Client::for_server(&trust, &config.tls_server_name)?,
            engine: format!("{address}/v1/{}", utf8_percent_encode(&config.engine_path, PATH)),
            prefix: if has_prefix { format!("{}/", config.vault_kv_prefix) } else { String::new() },
            token,
            is_text,
        })
    }

    /// Reads a secret; `None` if there is none of that name and version.
    async fn read(&self, name: &str, version: &str) -> Result<Option<Secret>> {
        let version = utf8_percent_encode(version, NON_ALPHANUMERIC);
        let url = format!("{}?version={version}", self.url("data", name)?);
        let answer = self.ask(Method::GET, &url).await?;
        match answer.status() {
            StatusCode::OK => self.decode(name, answer.body()).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refused("couldn't get successful response", &answer)),
        }
    }

    fn decode(&self, name: &str, body: &[u8]) -> Result<Secret> {
        if !self.is_text {
            return Ok(data::<Secret>(body)?.data);
        }
        let whole: Box<RawValue> = data::<Box<RawValue>>(body)?.data;
        let text = serde_json::from_str(whole.get()).unwrap_or_else(|_| whole.get().to_owned());
        Ok(Secret::from([(name.to_owned(), text)]))
    }

    /// The names of all secrets, those in folders as well.
    async fn names(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Keys {
            keys: Vec<String>,
        }
        let list = Method::from_bytes(b"LIST").expect("a token is a method");
        let (mut names, mut folders) = (Vec::new(), vec![String::new()]);
        while let Some(folder) = folders.pop() {
            let answer = self.ask(list.clone(), &self.url("metadata", &folder)?).await?;
            if answer.status() != StatusCode::OK {
                return Err(refused("list keys couldn't get successful response", &answer));
            }
            let Keys { keys } = decode(answer.body())?;
            let paths = keys.into_iter().map(|key| format!("{folder}{key}"));
            let (inner, found): (Vec<_>, Vec<_>) = paths.partition(|path| path.ends_with('/'));
            folders.extend(inner);
            names.extend(found);
        }
        Ok(names)
    }

    /// # Errors
    /// `InvalidRequest` for a name that leads out of the prefix.
    fn url(&self, kind: &str, name: &str) -> Result<String> {
        if name.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(ComponentError::request(format!("secret name {name} leads out of the folder of the secrets")));
        }
        let path = format!("{}{name}", self.prefix);
        Ok(format!("{}/{kind}/{}", self.engine, utf8_percent_encode(&path, PATH)))
    }

    async fn ask(&self, method: Method, url: &str) -> Result<Response<Bytes>> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("x-vault-token", &self.token)
            .header("x-vault-request", "true")
            .body(Full::default())
            .map_err(|error| ComponentError::request(format!("couldn't generate request: {error}")))?;
        self.client.exchange(request, MAX_ANSWER_BYTES, Some(PATIENCE)).await
    }
}

#[async_trait]
impl SecretStore for Vault {
    fn features(&self) -> &[Feature] {
        if self.is_text { &[] } else { &[Feature::MultipleKeyValuesPerSecret] }
    }

    async fn get(&self, name: &str, metadata: &Metadata) -> Result<Secret> {
        self.read(name, version(metadata)).await?.ok_or_else(|| {
            let message = format!("getSecret {name} failed secret key or version not exist");
            ComponentError::new(ErrorKind::NotFound, message)
        })
    }

    async fn bulk_get(&self, metadata: &Metadata) -> Result<BTreeMap<String, Secret>> {
        let mut secrets = BTreeMap::new();
        for name in self.names().await? {
            // A secret that was deleted is still listed, and others may lack the version.
            if let Some(secret) = self.read(&name, version(metadata)).await? {
                secrets.insert(name, secret);
            }
        }
        Ok(secrets)
    }
}

/// The version that is asked for; 0 is the newest.
fn version(metadata: &Metadata) -> &str {
    metadata.get("version_id").map_or("0", String::as_str)
}

async fn token(config: &Config) -> Result<String> {
    match (config.vault_token.as_str(), config.vault_token_mount_path.as_str()) {
        ("", "") => Err(ComponentError::metadata("token mount path and token not set")),
        (token, "") => Ok(token.to_owned()),
        ("", path) => fs::read_to_string(path).await.map(|token| token.trim().to_owned()).map_err(|error| {
            let message = format!("couldn't read vault token from mount path {path} err: {error}");
            ComponentError::metadata(message).with_source(error)
        }),
        _ => Err(ComponentError::metadata("token mount path and token both set")),
    }
}

/// Who may vouch for the server, in PEM.
async fn authorities(config: &Config) -> Result<String> {
    if !config.ca_pem.is_empty() || config.skip_verify {
        return Ok(config.ca_pem.clone());
    }
    if config.ca_path.is_empty() {
        return if config.ca_cert.is_empty() { Ok(String::new()) } else { read(config.ca_cert.as_ref()).await };
    }
    let mut pem = String::new();
    for file in files(config.ca_path.as_ref()).await? {
        pem += &read(&file).await?;
        pem.push('\n');
    }
    Ok(pem)
}

async fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = async {
        let (mut files, mut entries) = (Vec::new(), fs::read_dir(folder).await?);
        while let Some(entry) = entries.next_entry().await? {
            // As mounted secrets are, a file may be a link.
            if fs::metadata(entry.path()).await?.is_file() {
                files.push(entry.path());
            }
        }
        Ok::<_, std::io::Error>(files)
    };
    list.await.map_err(|error| {
        let message = format!("couldn't read certificates at {}: {error}", folder.display());
        ComponentError::metadata(message).with_source(error)
    })
}

async fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).await.map_err(|error| {
        let message = format!("couldn't read CA file {} from disk: {error}", path.display());
        ComponentError::metadata(message).with_source(error)
    })
}

/// What an answer holds within its envelope.
fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        data: T,
    }
    let decoded = serde_json::from_slice::<Envelope<T>>(body);
    decoded
        .map(|envelope| envelope.data)
        .map_err(|error| ComponentError::new(ErrorKind::Internal, format!("couldn't decode response body: {error}")))
}

/// A secret beside what the engine knows of it.
#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

fn data<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<Data<T>> {
    decode(body)
}

/// What the server's status means, with its own words.
fn refused(what: &str, answer: &Response<Bytes>) -> ComponentError {
    let kind = match answer.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::Unavailable,
        status if status.is_server_error() => ErrorKind::Unavailable,
        status if status.is_client_error() => ErrorKind::InvalidRequest,
        _ => ErrorKind::Internal,
    };
    let (status, body) = (answer.status().as_u16(), String::from_utf8_lossy(answer.body()));
    ComponentError::new(kind, format!("{what}, status code {status}, body {}", body.trim_end()))
}
