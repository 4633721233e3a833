//! Programs from an OCI registry: `oci://HOST/REPOSITORY[:TAG][@DIGEST]`.
//!
//! An artifact is taken as the tools of the Wasm world push it: a manifest, or an index of several, with one layer that
//! is the program. Registries that want a token give one to anybody for what anybody may read; there is no login.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{StatusCode, Uri};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::http::{self as web, Client};
use crate::error::LoadReason;

/// Largest manifest, as registries themselves have it.
const MANIFEST_BYTES: usize = 4 << 20;

/// What a manifest may be.
const MANIFESTS: HeaderValue = HeaderValue::from_static(concat!(
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, ",
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
));

/// A name of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    /// A tag, or a digest as `sha256:…`.
    version: String,
}

impl FromStr for Reference {
    type Err = LoadReason;

    /// Reads what stands behind `oci://`. Without tag and digest it is the tag `latest`.
    fn from_str(text: &str) -> Result<Self, LoadReason> {
        let bad = || LoadReason::Address(format!("{text:?} is not HOST/REPOSITORY[:TAG]"));
        let (registry, rest) = text.split_once('/').ok_or_else(bad)?;
        let (named, digest) = match rest.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (rest, None),
        };
        let (repository, tag) = match named.rsplit_once(':') {
            Some((repository, tag)) => (repository, tag),
            None => (named, "latest"),
        };
        let version = digest.unwrap_or(tag);
        // Whatever else stands in an address would make it lead elsewhere.
        let is_plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:[]".contains(&byte))
        };
        if ![registry, repository, version].into_iter().all(is_plain) {
            return Err(bad());
        }
        Ok(Self { registry: registry.into(), repository: repository.into(), version: version.into() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.version.contains(':') { '@' } else { ':' };
        write!(f, "oci://{}/{}{separator}{}", self.registry, self.repository, self.version)
    }
}

impl Reference {
    /// The last part of the repository's name.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }

    /// Downloads the program. `bytes` is the most that it may have.
    pub(super) async fn fetch(&self, client: &Client, bytes: usize) -> Result<Bytes, LoadReason> {
        let mut session = Session { client, headers: HeaderMap::from_iter([(ACCEPT, MANIFESTS)]) };
        let mut manifest = session.manifest(self, &self.version).await?;
        if let Some(digest) = manifest.chosen() {
            manifest = session.manifest(self, &digest).await?;
        }
        let layer = manifest.program()?;
        let content = session.get(&self.address("blobs", &layer.digest)?, bytes).await?;
        verified(content, &layer.digest)
    }

    fn address(&self, part: &str, version: &str) -> Result<Uri, LoadReason> {
        let host = match self.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // As all clients of registries do: there are no certificates for one's own machine.
        let scheme = if matches!(name, "localhost" | "127.0.0.1" | "[::1]") { "http" } else { "https" };
        format!("{scheme}://{host}/v2/{}/{part}/{version}", self.repository).parse().map_err(super::bad)
    }
}

/// Requests to one registry, with the token that it gave.
struct Session<'a> {
    client: &'a Client,
    headers: HeaderMap,
}

impl Session<'_> {
    async fn manifest(&mut self, reference: &Reference, version: &str) -> Result<Manifest, LoadReason> {
        let content = self.get(&reference.address("manifests", version)?, MANIFEST_BYTES).await?;
        let content = if version.contains(':') { verified(content, version)? } else { content };
        serde_json::from_slice(&content).map_err(|error| LoadReason::Artifact(format!("its manifest: {error}")))
    }

    async fn get(&mut self, uri: &Uri, bytes: usize) -> Result<Bytes, LoadReason> {
        let mut response = self.client.get(uri, &self.headers).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && !self.headers.contains_key(AUTHORIZATION)
            && let Some(asked) = Challenge::of(response.headers())
        {
            asked.check(uri)?;
            let token = asked.answer(self.client).await?;
            self.headers.insert(AUTHORIZATION, token);
            response = self.client.get(uri, &self.headers).await?;
        }
        web::body(response, bytes).await
    }
}

/// Where a registry says that a token is to be had.
struct Challenge {
    address: Uri,
}

impl Challenge {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(WWW_AUTHENTICATE)?.to_str().ok()?.strip_prefix("Bearer ")?;
        let field = |name: &str| {
            let start = text.find(&format!("{name}=\""))? + name.len() + 2;
            text[start..].split('"').next()
        };
        let parameters: Vec<_> =
            ["service", "scope"].into_iter().filter_map(|name| Some(format!("{name}={}", field(name)?))).collect();
        let address = format!("{}?{}", field("realm")?, parameters.join("&")).replace(' ', "%20");
        Some(Self { address: address.parse().ok()? })
    }

    /// Whether the registry at `uri` may send us there: what is asked of it in secret is not to be had in the open.
    fn check(&self, uri: &Uri) -> Result<(), LoadReason> {
        if self.address.scheme_str() == Some("https") || uri.scheme_str() == Some("http") {
            return Ok(());
        }
        Err(LoadReason::Artifact(format!("its registry wants a token of {}, which is not encrypted", self.address)))
    }

    async fn answer(&self, client: &Client) -> Result<HeaderValue, LoadReason> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(alias = "access_token")]
            token: String,
        }

        let response = client.get(&self.address, &HeaderMap::new()).await?;
        let content = web::body(response, MANIFEST_BYTES).await?;
        let refused = |reason: String| LoadReason::Artifact(format!("its registry gives no token: {reason}"));
        let answer: Answer = serde_json::from_slice(&content).map_err(|error| refused(error.to_string()))?;
        let mut token =
            HeaderValue::try_from(format!("Bearer {}", answer.token)).map_err(|error| refused(error.to_string()))?;
        token.set_sensitive(true);
        Ok(token)
    }
}

/// A manifest, or an index of manifests.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Manifest {
    layers: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Platform {
    architecture: String,
}

impl Manifest {
    /// The manifest that an index leads to: that for Wasm if it says so, else the first.
    fn chosen(&self) -> Option<String> {
        let is_wasm = |entry: &&Descriptor| {
            entry.platform.as_ref().is_some_and(|platform| platform.architecture.starts_with("wasm"))
        };
        let chosen = self.manifests.iter().find(is_wasm).or(self.manifests.first())?;
        Some(chosen.digest.clone())
    }

    /// The layer that is the program: the one that says so, or the only one.
    fn program(&self) -> Result<&Descriptor, LoadReason> {
        let only = if let [only] = &*self.layers { Some(only) } else { None };
        self.layers.iter().find(|layer| layer.media_type.contains("wasm")).or(only).ok_or_else(|| {
            let types: Vec<_> = self.layers.iter().map(|layer| layer.media_type.as_str()).collect();
            LoadReason::Artifact(format!("none of its layers is of type application/wasm but [{}]", types.join(", ")))
        })
    }
}

/// The content, if it is what the digest says.
fn verified(content: Bytes, digest: &str) -> Result<Bytes, LoadReason> {
    let Some(expected) = digest.strip_prefix("sha256:") else {
        return Err(LoadReason::Artifact(format!("digest {digest} is none of sha256")));
    };
    if hex::encode(Sha256::digest(&content)) != expected {
        return Err(LoadReason::Artifact(format!("what was sent is not what {digest} stands for")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<(&str, &str)>) {
        let parsed = text.parse::<Reference>().ok();
        let found = parsed.map(|reference| {
            let address = reference.address("manifests", &reference.version).expect("an address").to_string();
            (address, reference.to_string())
        });
        assert_eq!(found, expect.map(|(address, name)| (address.to_owned(), name.to_owned())), "{text}");
    }

    #[test]
    fn references_have_a_host_a_repository_and_a_version() {
        check("ghcr.io/a/b:1", Some(("https://ghcr.io/v2/a/b/manifests/1", "oci://ghcr.io/a/b:1")));
        check(
            "localhost:5000/a",
            Some(("http://localhost:5000/v2/a/manifests/latest", "oci://localhost:5000/a:latest")),
        );
        check("h/a:1@sha256:00", Some(("https://h/v2/a/manifests/sha256:00", "oci://h/a@sha256:00")));
        for bad in ["", "host", "host/", "/a", "host/a:", "host/a b", "host/a?x", "host/a#x", "u@host/a", "host/%2e"] {
            check(bad, None);
        }
    }

    #[test]
    fn tokens_are_not_asked_for_in_the_open() {
        let challenge = "Bearer realm=\"http://other/token\",service=\"here\"";
        let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))]);
        let asked = Challenge::of(&headers).expect("a challenge");
        assert_eq!(asked.address, "http://other/token?service=here");
        let check = |registry: &'static str| asked.check(&Uri::from_static(registry));
        assert!(check("http://localhost/v2/a/manifests/1").is_ok());
        assert!(check("https://registry/v2/a/manifests/1").is_err());
    }

    #[test]
    fn the_layer_of_wasm_is_the_program() {
        let layers = |types: &[&str]| {
            let layers = types.iter().map(|media_type| Descriptor {
                media_type: (*media_type).to_owned(),
                digest: format!("of {media_type}"),
                platform: None,
            });
            Manifest { layers: layers.collect(), ..Manifest::default() }
        };
        let program = |types: &[&str]| layers(types).program().map(|layer| layer.digest.clone()).ok();
        assert_eq!(program(&["text/plain", "application/wasm"]).as_deref(), Some("of application/wasm"));
        assert_eq!(program(&["application/octet-stream"]).as_deref(), Some("of application/octet-stream"));
        assert_eq!(program(&["a/b", "c/d"]), None);
        assert_eq!(program(&[]), None);
    }
}
