//! From method and path to endpoint, without allocating for a path that is clean.

use std::borrow::Cow;

use http::Method;

use crate::codec;

/// What this door can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    GetState,
    SaveState,
    DeleteState,
    BulkGetState,
    TransactState,
    QueryState,
    Publish,
    BulkPublish,
    BulkPublishAlpha1,
    InvokeBinding,
    GetSecret,
    BulkGetSecrets,
    GetConfiguration,
    GetConfigurationAlpha1,
    SubscribeConfiguration,
    SubscribeConfigurationAlpha1,
    UnsubscribeConfiguration,
    UnsubscribeConfigurationAlpha1,
    Encrypt,
    Decrypt,
    SubtleCrypto,
    ConverseAlpha1,
    ConverseAlpha2,
    TryLock,
    Unlock,
    GetMetadata,
    SetMetadata,
    Health,
    OutboundHealth,
    Shutdown,
}

impl Endpoint {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 30] = [
        Self::GetState,
        Self::SaveState,
        Self::DeleteState,
        Self::BulkGetState,
        Self::TransactState,
        Self::QueryState,
        Self::Publish,
        Self::BulkPublish,
        Self::BulkPublishAlpha1,
        Self::InvokeBinding,
        Self::GetSecret,
        Self::BulkGetSecrets,
        Self::GetConfiguration,
        Self::GetConfigurationAlpha1,
        Self::SubscribeConfiguration,
        Self::SubscribeConfigurationAlpha1,
        Self::UnsubscribeConfiguration,
        Self::UnsubscribeConfigurationAlpha1,
        Self::Encrypt,
        Self::Decrypt,
        Self::SubtleCrypto,
        Self::ConverseAlpha1,
        Self::ConverseAlpha2,
        Self::TryLock,
        Self::Unlock,
        Self::GetMetadata,
        Self::SetMetadata,
        Self::Health,
        Self::OutboundHealth,
        Self::Shutdown,
    ];

    /// Dapr's names for the access rules: of the group, and of the path.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::GetState | Self::DeleteState => ("v1/state", "v1.0/state/{storeName}/{key}"),
            Self::SaveState => ("v1/state", "v1.0/state/{storeName}"),
            Self::BulkGetState => ("v1/state", "v1.0/state/{storeName}/bulk"),
            Self::TransactState => ("v1/state", "v1.0/state/{storeName}/transaction"),
            Self::QueryState => ("v1alpha1/state", "v1.0-alpha1/state/{storeName}/query"),
            Self::Publish => ("v1/publish", "v1.0/publish/{pubsubname}/*"),
            Self::BulkPublish => ("v1/publish", "v1.0/publish/bulk/{pubsubname}/*"),
            Self::BulkPublishAlpha1 => ("v1alpha1/publish", "v1.0-alpha1/publish/bulk/{pubsubname}/*"),
            Self::InvokeBinding => ("v1/bindings", "v1.0/bindings/{name}"),
            Self::GetSecret => ("v1/secrets", "v1.0/secrets/{secretStoreName}/{key}"),
            Self::BulkGetSecrets => ("v1/secrets", "v1.0/secrets/{secretStoreName}/bulk"),
            Self::GetConfiguration => ("v1/configuration", "v1.0/configuration/{storeName}"),
            Self::GetConfigurationAlpha1 => ("v1alpha1/configuration", "v1.0-alpha1/configuration/{storeName}"),
            Self::SubscribeConfiguration => ("v1/configuration", "v1.0/configuration/{storeName}/subscribe"),
            Self::SubscribeConfigurationAlpha1 => {
                ("v1alpha1/configuration", "v1.0-alpha1/configuration/{storeName}/subscribe")
            }
            Self::UnsubscribeConfiguration => {
                ("v1/configuration", "v1.0/configuration/{storeName}/{configurationSubscribeID}/unsubscribe")
            }
            Self::UnsubscribeConfigurationAlpha1 => (
                "v1alpha1/configuration",
                "v1.0-alpha1/configuration/{storeName}/{configurationSubscribeID}/unsubscribe",
            ),
            Self::Encrypt => ("v1alpha1/crypto", "v1.0-alpha1/crypto/{name}/encrypt"),
            Self::Decrypt => ("v1alpha1/crypto", "v1.0-alpha1/crypto/{name}/decrypt"),
            Self::SubtleCrypto => ("v1alpha1/subtlecrypto", "v1.0-alpha1/subtlecrypto/{name}"),
            Self::ConverseAlpha1 => ("v1alpha1/conversation", "v1.0-alpha1/conversation/{name}/converse"),
            Self::ConverseAlpha2 => ("v1alpha2/conversation", "v1.0-alpha2/conversation/{name}/converse"),
            Self::TryLock => ("v1alpha1/lock", "v1.0-alpha1/lock/{storeName}"),
            Self::Unlock => ("v1alpha1/unlock", "v1.0-alpha1/unlock/{storeName}"),
            Self::GetMetadata => ("v1/metadata", "v1.0/metadata"),
            Self::SetMetadata => ("v1/metadata", "v1.0/metadata/{key}"),
            Self::Health => ("v1/healthz", "v1.0/healthz"),
            Self::OutboundHealth => ("v1/healthz", "v1.0/healthz/outbound"),
            Self::Shutdown => ("v1/shutdown", "v1.0/shutdown"),
        }
    }

    /// Health probes are neither traced nor asked for a token, and no rule can take them away.
    pub(crate) fn is_probe(self) -> bool {
        matches!(self, Self::Health | Self::OutboundHealth)
    }
}

/// As [`Endpoint::names`], for invocation. That is no endpoint but what remains when none is found.
pub(crate) const INVOKE_NAMES: (&str, &str) = ("v1/invoke", "v1.0/invoke/*");

/// The operations of Dapr's low-level cryptography.
const SUBTLE_OPERATIONS: [&str; 7] = ["getkey", "encrypt", "decrypt", "wrapkey", "unwrapkey", "sign", "verify"];

/// An endpoint with the parts of the path that it is about, still escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'p> {
    pub(crate) endpoint: Endpoint,
    store: &'p str,
    key: &'p str,
}

impl<'p> Route<'p> {
    /// Store and key, unescaped. `None` if they are not UTF-8.
    pub(crate) fn decode(self) -> Option<(Cow<'p, str>, Cow<'p, str>)> {
        Some((codec::unescape(self.store)?, codec::unescape(self.key)?))
    }
}

/// Resolves `//`, `.` and `..` and drops a trailing slash, as Go's `path.Clean` does.
pub(crate) fn clean(path: &str) -> Cow<'_, str> {
    if !looks_unclean(path.as_bytes()) {
        return Cow::Borrowed(path);
    }
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

/// Whether a segment is empty or starts with a dot. The latter need not be unclean, but is rare.
fn looks_unclean(path: &[u8]) -> bool {
    path.ends_with(b"/") || path.windows(2).any(|pair| pair[0] == b'/' && matches!(pair[1], b'/' | b'.'))
}

/// The endpoint that a clean path names for `method`. What names none is taken for an invocation, as in daprd.
pub(crate) fn find<'p>(method: &Method, path: &'p str) -> Option<Route<'p>> {
    let mut segments = path.strip_prefix('/')?.split('/');
    let version = segments.next()?;
    if let Some(published) = publishing(method, version, path) {
        return Some(published);
    }
    let (group, first, second, third) = (segments.next()?, segments.next(), segments.next(), segments.next());
    if segments.next().is_some() {
        return None;
    }
    if let Some(last) = third {
        return find_long(method, version, group, first?, second?, last);
    }
    let writes = method == Method::POST || method == Method::PUT;
    let (endpoint, store, key) = match (version, group, first, second) {
        ("v1.0", "state", Some(store), None) if writes => (Endpoint::SaveState, store, ""),
        ("v1.0", "state", Some(store), Some("bulk")) if writes => (Endpoint::BulkGetState, store, ""),
        ("v1.0", "state", Some(store), Some("transaction")) if writes => (Endpoint::TransactState, store, ""),
        ("v1.0", "state", Some(store), Some(key)) if method == Method::GET => (Endpoint::GetState, store, key),
        ("v1.0", "state", Some(store), Some(key)) if method == Method::DELETE => (Endpoint::DeleteState, store, key),
        ("v1.0-alpha1", "state", Some(store), Some("query")) if writes => (Endpoint::QueryState, store, ""),
        ("v1.0", "bindings", Some(name), None) if writes => (Endpoint::InvokeBinding, name, ""),
        ("v1.0", "secrets", Some(store), Some("bulk")) if method == Method::GET => {
            (Endpoint::BulkGetSecrets, store, "")
        }
        ("v1.0", "secrets", Some(store), Some(key)) if method == Method::GET => (Endpoint::GetSecret, store, key),
        ("v1.0", "configuration", Some(store), None) if method == Method::GET => {
            (Endpoint::GetConfiguration, store, "")
        }
        ("v1.0-alpha1", "configuration", Some(store), None) if method == Method::GET => {
            (Endpoint::GetConfigurationAlpha1, store, "")
        }
        ("v1.0", "configuration", Some(store), Some("subscribe")) if method == Method::GET => {
            (Endpoint::SubscribeConfiguration, store, "")
        }
        ("v1.0-alpha1", "configuration", Some(store), Some("subscribe")) if method == Method::GET => {
            (Endpoint::SubscribeConfigurationAlpha1, store, "")
        }
        ("v1.0-alpha1", "crypto", Some(name), Some("encrypt")) if method == Method::PUT => {
            (Endpoint::Encrypt, name, "")
        }
        ("v1.0-alpha1", "crypto", Some(name), Some("decrypt")) if method == Method::PUT => {
            (Endpoint::Decrypt, name, "")
        }
        ("v1.0-alpha1", "subtlecrypto", Some(name), Some(operation))
            if method == Method::POST && SUBTLE_OPERATIONS.contains(&operation) =>
        {
            (Endpoint::SubtleCrypto, name, "")
        }
        ("v1.0-alpha1", "conversation", Some(name), Some("converse")) if method == Method::POST => {
            (Endpoint::ConverseAlpha1, name, "")
        }
        ("v1.0-alpha2", "conversation", Some(name), Some("converse")) if method == Method::POST => {
            (Endpoint::ConverseAlpha2, name, "")
        }
        ("v1.0-alpha1", "lock", Some(store), None) if method == Method::POST => (Endpoint::TryLock, store, ""),
        ("v1.0-alpha1", "unlock", Some(store), None) if method == Method::POST => (Endpoint::Unlock, store, ""),
        ("v1.0", "metadata", None, None) if method == Method::GET => (Endpoint::GetMetadata, "", ""),
        ("v1.0", "metadata", Some(key), None) if method == Method::PUT => (Endpoint::SetMetadata, "", key),
        ("v1.0", "healthz", None, None) if method == Method::GET => (Endpoint::Health, "", ""),
        ("v1.0", "healthz", Some("outbound"), None) if method == Method::GET => (Endpoint::OutboundHealth, "", ""),
        ("v1.0", "shutdown", None, None) if method == Method::POST => (Endpoint::Shutdown, "", ""),
        _ => return None,
    };
    Some(Route { endpoint, store, key })
}

/// As [`find`], for topics, which may hold slashes.
fn publishing<'p>(method: &Method, version: &str, path: &'p str) -> Option<Route<'p>> {
    let named = path.get(1 + version.len()..)?.strip_prefix("/publish/")?;
    if method != Method::POST && method != Method::PUT {
        return None;
    }
    let in_bulk = || named.strip_prefix("bulk/")?.split_once('/');
    let (endpoint, (store, key)) = match (version, in_bulk()) {
        ("v1.0", Some(names)) => (Endpoint::BulkPublish, names),
        ("v1.0-alpha1", Some(names)) => (Endpoint::BulkPublishAlpha1, names),
        ("v1.0", None) => (Endpoint::Publish, named.split_once('/')?),
        _ => return None,
    };
    Some(Route { endpoint, store, key })
}

/// As [`find`], for paths of five segments.
fn find_long<'p>(
    method: &Method,
    version: &str,
    group: &str,
    store: &'p str,
    key: &'p str,
    last: &str,
) -> Option<Route<'p>> {
    let endpoint = match (version, group, last) {
        ("v1.0", "configuration", "unsubscribe") if method == Method::GET => Endpoint::UnsubscribeConfiguration,
        ("v1.0-alpha1", "configuration", "unsubscribe") if method == Method::GET => {
            Endpoint::UnsubscribeConfigurationAlpha1
        }
        _ => return None,
    };
    Some(Route { endpoint, store, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &Method, path: &str, expect: Option<(Endpoint, &str, &str)>) {
        let path = clean(path);
        let found = find(method, &path);
        assert_eq!(found, expect.map(|(endpoint, store, key)| Route { endpoint, store, key }), "{method} {path}");
    }

    #[test]
    fn paths_lead_where_daprs_lead() {
        check(&Method::GET, "/v1.0/state/s/k", Some((Endpoint::GetState, "s", "k")));
        check(&Method::GET, "//v1.0//state/s/./x/../k/", Some((Endpoint::GetState, "s", "k")));
        check(&Method::GET, "/v1.0/state/s/bulk", Some((Endpoint::GetState, "s", "bulk")));
        check(&Method::DELETE, "/v1.0/state/s/transaction", Some((Endpoint::DeleteState, "s", "transaction")));
        check(&Method::PUT, "/v1.0/state/s/bulk", Some((Endpoint::BulkGetState, "s", "")));
        check(&Method::POST, "/v1.0/state/s", Some((Endpoint::SaveState, "s", "")));
        check(&Method::POST, "/v1.0/publish/ps/a/b/c", Some((Endpoint::Publish, "ps", "a/b/c")));
        check(&Method::PUT, "/v1.0/publish/bulk/ps", Some((Endpoint::Publish, "bulk", "ps")));
        check(&Method::PUT, "/v1.0/publish/bulk/ps/a/b", Some((Endpoint::BulkPublish, "ps", "a/b")));
        check(&Method::POST, "/v1.0-alpha1/publish/bulk/ps/a", Some((Endpoint::BulkPublishAlpha1, "ps", "a")));
        check(&Method::PUT, "/v1.0/bindings/b", Some((Endpoint::InvokeBinding, "b", "")));
        check(&Method::GET, "/v1.0/secrets/s/bulk", Some((Endpoint::BulkGetSecrets, "s", "")));
        check(&Method::PUT, "/v1.0/metadata/k", Some((Endpoint::SetMetadata, "", "k")));
        check(&Method::GET, "/v1.0/healthz/outbound", Some((Endpoint::OutboundHealth, "", "")));
    }

    #[test]
    fn everything_else_falls_through() {
        for path in
            ["/", "", "*", "/v1.0", "/v1.0/state", "/v1.0/state/s", "/v1.0/state/s/", "/v1.0/state/s/a/b", "/nothing"]
        {
            check(&Method::GET, path, None);
        }
        check(&Method::POST, "/v1.0/publish/ps/", None);
        check(&Method::POST, "/v1.0-alpha1/publish/ps/a", None);
        check(&Method::GET, "/v1.0/publish/ps/a", None);
        check(&Method::PATCH, "/v1.0/state/s", None);
        check(&Method::HEAD, "/v1.0/state/s/k", None);
        check(&Method::GET, "/v1.0/invoke/a/method/b", None);
        check(&Method::POST, "/v1.0/state/s/query", None);
        check(&Method::POST, "/v1.0-alpha1/state/s/k", None);
        check(&Method::GET, "/v1.0-alpha1/invoke/a/method/b", None);
    }

    #[test]
    fn a_clean_path_is_not_copied() {
        assert!(matches!(clean("/v1.0/state/s/a.b"), Cow::Borrowed(_)));
        assert_eq!(clean("/a/../../b"), "/b");
        assert_eq!(clean("/"), "/");
        assert_eq!(clean("/a/.b"), "/a/.b");
    }

    #[test]
    fn store_and_key_are_unescaped_as_query_text_is() {
        let decode = |path| find(&Method::GET, path).expect("a route").decode();
        assert_eq!(decode("/v1.0/state/my%20store/a+b%2Fc"), Some(("my store".into(), "a b/c".into())));
        assert_eq!(decode("/v1.0/state/s/%FF"), None);
    }

    #[test]
    fn endpoints_are_listed_in_order() {
        assert!(Endpoint::ALL.iter().enumerate().all(|(index, endpoint)| *endpoint as usize == index));
    }
}
