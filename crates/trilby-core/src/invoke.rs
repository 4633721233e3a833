//! Service invocation: finding the app or endpoint that is meant, and passing the call on as Dapr does.

mod attempt;
mod method;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::PathAndQuery};
use trilby_component::ErrorKind;

use crate::{
    AppChannel, ChannelError, Code, Ctx, Error, Identity, Request, Response, Result,
    resiliency::{Policies, Policy},
};

pub use method::normalize as normalize_method;

/// Who calls, added when the call crosses from one app to another.
pub const CALLER_APP_ID: HeaderName = HeaderName::from_static("dapr-caller-app-id");
/// The caller's namespace.
pub const CALLER_NAMESPACE: HeaderName = HeaderName::from_static("dapr-caller-namespace");
/// Who is called.
pub const CALLEE_APP_ID: HeaderName = HeaderName::from_static("dapr-callee-app-id");
/// Names the target in a request that does not name it in its path.
pub const DAPR_APP_ID: HeaderName = HeaderName::from_static("dapr-app-id");
/// Says of a gRPC call that it is a stream, which no policy applies to.
const DAPR_STREAM: HeaderName = HeaderName::from_static("dapr-stream");

/// The method of a request whose caller, over gRPC, named none. Only a gRPC app can be called so.
pub const NO_METHOD: &str = "NONE";

/// What an app that is called by HTTP methods has against a request without one.
///
/// # Errors
/// `InvalidRequest`, in Dapr's words.
pub fn check_method(request: &Request) -> Result<(), ChannelError> {
    if request.method().as_str() != NO_METHOD {
        return Ok(());
    }
    let message = "rpc error: code = InvalidArgument desc = missing HTTP extension field";
    Err(ChannelError::new(ErrorKind::InvalidRequest, message))
}

/// The code that a gRPC app answered with; rides along in the extensions of a response, for policies that match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcStatus(pub u16);

/// Where an app id leads. The seam for mDNS, Kubernetes, Consul; one process needs no more than its own apps.
#[async_trait]
pub trait NameResolver: Send + Sync {
    /// The channel to an app, or `None` if this resolver does not know it.
    async fn resolve(&self, app_id: &str, namespace: Option<&str>)
    -> Result<Option<Arc<dyn AppChannel>>, ChannelError>;
}

/// Calls HTTP servers that are no Dapr apps.
#[async_trait]
pub trait HttpClient: Send + Sync {
    /// Sends a request whose URI is absolute.
    async fn send(&self, request: Request) -> Result<Response, ChannelError>;
}

/// An HTTPEndpoint resource, ready to be called.
pub struct HttpEndpoint {
    /// Scheme, authority and an optional path prefix.
    pub base_url: Uri,
    /// Headers that every call gets.
    pub headers: HeaderMap,
    /// A client with the endpoint's own TLS settings.
    pub client: Arc<dyn HttpClient>,
}

/// What a call is aimed at, as the caller wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target<'a> {
    Url(&'a str),
    App { id: &'a str, namespace: Option<&'a str> },
}

/// The invocation block of one app.
pub struct InvokeApi {
    app: Identity,
    resolver: Arc<dyn NameResolver>,
    endpoints: HashMap<String, HttpEndpoint>,
    client: Option<Arc<dyn HttpClient>>,
    policies: Policies,
}

impl InvokeApi {
    /// A block for `app`. Without `client`, absolute URLs are refused.
    pub fn new(
        app: Identity,
        resolver: Arc<dyn NameResolver>,
        endpoints: HashMap<String, HttpEndpoint>,
        client: Option<Arc<dyn HttpClient>>,
    ) -> Self {
        Self { app, resolver, endpoints, client, policies: Policies::default() }
    }

    /// Keeps to these policies. Default none.
    #[must_use]
    pub fn with_policies(self, policies: Policies) -> Self {
        Self { policies, ..self }
    }

    /// Calls `target`: an app id, `app-id.namespace`, the name of an HTTPEndpoint, or an absolute `http(s)` URL.
    ///
    /// The request's path is the method's, still escaped; its headers are the caller's. The answer is the callee's,
    /// whatever its status.
    ///
    /// # Errors
    /// [`Code::InvokeNoTarget`] if `target` is empty; [`Code::Invoke`] if the callee is unknown or cannot be asked;
    /// [`Code::InvokeTimeout`].
    pub async fn call(&self, ctx: &Ctx, target: &str, mut request: Request) -> Result<Response> {
        if target.is_empty() {
            return Err(no_target());
        }
        let failed = |cause: ChannelError| {
            let code = if cause.kind == ErrorKind::Timeout { Code::InvokeTimeout } else { Code::Invoke };
            Error::new(code, format!("failed to invoke, id: {target}, err: {cause}")).with_kind_of(cause.kind)
        };
        prepare(&mut request, ctx).map_err(failed)?;
        let callee = self.parse(target).map_err(failed)?;
        let policy = self.policy(target, callee, &request);
        let answer = within_deadline(ctx, async {
            if policy.is_empty() {
                return self.send(ctx, target, callee, request).await;
            }
            attempt::call(&policy, request, |request| self.send(ctx, target, callee, request)).await
        });
        let mut response = answer.await.map_err(failed)?;
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    /// Passes a gRPC call on to the app that `target` names, unchanged but for the caller's identity.
    ///
    /// As in Dapr, no policy applies to the caller's own app, and none to a call that says `dapr-stream: true`.
    ///
    /// # Errors
    /// [`Code::Proxy`] and its variants, if the callee is unknown or cannot be asked.
    pub async fn proxy(&self, ctx: &Ctx, target: &str, mut request: Request) -> Result<Response> {
        let callee = self.parse(target).map_err(not_proxied)?;
        let Target::App { id, namespace } = callee else {
            let message = "gRPC calls are proxied to app ids, not to URLs";
            return Err(not_proxied(ChannelError::new(ErrorKind::Unsupported, message)));
        };
        let channel = self.resolve(id, namespace).await.map_err(not_proxied)?;
        ctx.trace.write_to(request.headers_mut());
        self.introduce(request.headers_mut(), id);
        let is_exempt = id == self.app.id || is_stream(request.headers());
        let policy = if is_exempt { Policy::default() } else { self.policy(target, callee, &request) };
        let answer = within_deadline(ctx, async {
            if policy.is_empty() {
                return channel.proxy(ctx, request).await;
            }
            attempt::proxy(&policy, request, |request| channel.proxy(ctx, request)).await
        });
        answer.await.map_err(not_proxied)
    }

    /// What holds for a call. Each method of an app has a breaker of its own.
    fn policy(&self, target: &str, callee: Target<'_>, request: &Request) -> Policy {
        self.policies.app(target, || {
            let method = request.uri().path().trim_start_matches('/');
            match (callee, self.endpoints.get(target)) {
                (Target::Url(_), _) => format!("{target}/{method}"),
                (_, Some(endpoint)) => format!("{target}:{}", endpoint.base_url),
                (_, None) => format!("{target}:{method}"),
            }
        })
    }

    async fn send(
        &self,
        ctx: &Ctx,
        target: &str,
        callee: Target<'_>,
        request: Request,
    ) -> Result<Response, ChannelError> {
        match callee {
            Target::Url(url) => self.call_url(url, request).await,
            Target::App { id, namespace } => match self.endpoints.get(target) {
                Some(endpoint) => call_endpoint(endpoint, request).await,
                None => self.call_app(ctx, id, namespace, request).await,
            },
        }
    }

    async fn call_app(
        &self,
        ctx: &Ctx,
        id: &str,
        namespace: Option<&str>,
        mut request: Request,
    ) -> Result<Response, ChannelError> {
        let channel = self.resolve(id, namespace).await?;
        self.introduce(request.headers_mut(), id);
        channel.invoke(ctx, request).await
    }

    async fn resolve(&self, id: &str, namespace: Option<&str>) -> Result<Arc<dyn AppChannel>, ChannelError> {
        let unknown = || ChannelError::new(ErrorKind::NotFound, format!("couldn't find service: {id}"));
        self.resolver.resolve(id, namespace).await?.ok_or_else(unknown)
    }

    async fn call_url(&self, url: &str, mut request: Request) -> Result<Response, ChannelError> {
        let client = self.client.as_ref().ok_or_else(|| {
            ChannelError::new(ErrorKind::Denied, "this runtime was built without a client for outside addresses")
        })?;
        let base = url
            .parse()
            .map_err(|error| ChannelError::new(ErrorKind::InvalidRequest, format!("{url} is not a URL: {error}")))?;
        *request.uri_mut() = join(&base, request.uri())?;
        client.send(request).await
    }

    fn parse<'a>(&'a self, target: &'a str) -> Result<Target<'a>, ChannelError> {
        if target.starts_with("http://") || target.starts_with("https://") {
            return Ok(Target::Url(target));
        }
        let own = self.app.namespace.as_deref();
        match target.split('.').collect::<Vec<_>>().as_slice() {
            [id] => Ok(Target::App { id, namespace: own }),
            [id, namespace] => Ok(Target::App { id, namespace: Some(namespace) }),
            _ => Err(ChannelError::new(ErrorKind::InvalidRequest, format!("invalid app id {target}"))),
        }
    }

    /// Tells the callee who calls. An app that calls itself gets no such headers, as with daprd; and none can be
    /// forged, because the caller's own are dropped first.
    fn introduce(&self, headers: &mut HeaderMap, callee: &str) {
        for name in [CALLER_APP_ID, CALLER_NAMESPACE, CALLEE_APP_ID] {
            headers.remove(name);
        }
        if callee == self.app.id {
            return;
        }
        let namespace = self.app.namespace_or_default();
        for (name, value) in [(CALLER_APP_ID, &*self.app.id), (CALLER_NAMESPACE, namespace), (CALLEE_APP_ID, callee)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Nothing in a request says which app is meant.
#[must_use]
pub fn no_target() -> Error {
    Error::new(Code::InvokeNoTarget, "failed getting app id either from the URL path or the header dapr-app-id")
}

/// An answer to a gRPC call that was not passed on, in Dapr's codes.
fn not_proxied(cause: ChannelError) -> Error {
    let code = match cause.kind {
        ErrorKind::Unavailable => Code::ProxyUnavailable,
        ErrorKind::Timeout => Code::ProxyTimeout,
        _ if cause.status == Some(attempt::FAILED_PRECONDITION) => Code::ProxyStreamed,
        _ => Code::Proxy,
    };
    Error::new(code, cause.message).with_kind_of(cause.kind)
}

/// Go's notion of true.
fn is_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(DAPR_STREAM).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    ["y", "yes", "true", "t", "on", "1"].iter().any(|yes| yes.eq_ignore_ascii_case(value))
}

async fn call_endpoint(endpoint: &HttpEndpoint, mut request: Request) -> Result<Response, ChannelError> {
    *request.uri_mut() = join(&endpoint.base_url, request.uri())?;
    for (name, value) in &endpoint.headers {
        request.headers_mut().insert(name, value.clone());
    }
    endpoint.client.send(request).await
}

/// Normalises the path and reduces the headers to those that a callee may see.
fn prepare(request: &mut Request, ctx: &Ctx) -> Result<(), ChannelError> {
    let path = normalize_method(request.uri().path())
        .map_err(|message| ChannelError::new(ErrorKind::InvalidRequest, message))?;
    let path = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    *request.uri_mut() = path.parse().map_err(|error| {
        ChannelError::new(ErrorKind::InvalidRequest, format!("method {path} is not a path: {error}"))
    })?;
    let headers = request.headers_mut();
    strip_hop_by_hop(headers);
    headers.remove(DAPR_APP_ID);
    headers.remove(header::HOST);
    ctx.trace.write_to(headers);
    Ok(())
}

/// Removes the headers that belong to one connection (RFC 9110 §7.6.1).
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const NAMES: [HeaderName; 8] = [
        header::CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::PROXY_AUTHENTICATE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in NAMES.iter().chain(&listed) {
        headers.remove(name);
    }
}

fn join(base: &Uri, method: &Uri) -> Result<Uri, ChannelError> {
    let tail = method.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = format!("{}{tail}", base.path().trim_end_matches('/'));
    let mut parts = base.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts)
        .map_err(|error| ChannelError::new(ErrorKind::InvalidRequest, format!("{base} is not a base URL: {error}")))
}

async fn within_deadline(
    ctx: &Ctx,
    call: impl Future<Output = Result<Response, ChannelError>>,
) -> Result<Response, ChannelError> {
    match ctx.deadline {
        None => call.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), call).await.unwrap_or_else(|_| {
            Err(ChannelError::new(ErrorKind::Timeout, "the app did not answer before the caller's deadline"))
        }),
    }
}

#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod tests;
