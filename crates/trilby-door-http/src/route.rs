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
    GetSecret,
    BulkGetSecrets,
    GetMetadata,
    SetMetadata,
    Health,
    OutboundHealth,
    Shutdown,
}

impl Endpoint {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 13] = [
        Self::GetState,
        Self::SaveState,
        Self::DeleteState,
        Self::BulkGetState,
        Self::TransactState,
        Self::QueryState,
        Self::GetSecret,
        Self::BulkGetSecrets,
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
            Self::GetSecret => ("v1/secrets", "v1.0/secrets/{secretStoreName}/{key}"),
            Self::BulkGetSecrets => ("v1/secrets", "v1.0/secrets/{secretStoreName}/bulk"),
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
    let (group, first, second) = (segments.next()?, segments.next(), segments.next());
    if segments.next().is_some() {
        return None;
    }
    let writes = method == Method::POST || method == Method::PUT;
    let (endpoint, store, key) = match (version, group, first, second) {
        ("v1.0", "state", Some(store), None) if writes => (Endpoint::SaveState, store, ""),
        ("v1.0", "state", Some(store), Some("bulk")) if writes => (Endpoint::BulkGetState, store, ""),
        ("v1.0", "state", Some(store), Some("transaction")) if writes => (Endpoint::TransactState, store, ""),
        ("v1.0", "state", Some(store), Some(key)) if method == Method::GET => (Endpoint::GetState, store, key),
        ("v1.0", "state", Some(store), Some(key)) if method == Method::DELETE => (Endpoint::DeleteState, store, key),
        ("v1.0-alpha1", "state", Some(store), Some("query")) if writes => (Endpoint::QueryState, store, ""),
        ("v1.0", "secrets", Some(store), Some("bulk")) if method == Method::GET => {
            (Endpoint::BulkGetSecrets, store, "")
        }
        ("v1.0", "secrets", Some(store), Some(key)) if method == Method::GET => (Endpoint::GetSecret, store, key),
        ("v1.0", "metadata", None, None) if method == Method::GET => (Endpoint::GetMetadata, "", ""),
        ("v1.0", "metadata", Some(key), None) if method == Method::PUT => (Endpoint::SetMetadata, "", key),
        ("v1.0", "healthz", None, None) if method == Method::GET => (Endpoint::Health, "", ""),
        ("v1.0", "healthz", Some("outbound"), None) if method == Method::GET => (Endpoint::OutboundHealth, "", ""),
        ("v1.0", "shutdown", None, None) if method == Method::POST => (Endpoint::Shutdown, "", ""),
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
