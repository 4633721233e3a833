//! Service invocation: finding the app or endpoint that is meant, and passing the call on as Dapr does.

mod method;

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::PathAndQuery};
use trilby_component::ErrorKind;

use crate::{AppChannel, ChannelError, Code, Ctx, Error, Identity, Request, Response, Result};

pub use method::normalize as normalize_method;

/// Who calls, added when the call crosses from one app to another.
pub const CALLER_APP_ID: HeaderName = HeaderName::from_static("dapr-caller-app-id");
/// The caller's namespace.
pub const CALLER_NAMESPACE: HeaderName = HeaderName::from_static("dapr-caller-namespace");
/// Who is called.
pub const CALLEE_APP_ID: HeaderName = HeaderName::from_static("dapr-callee-app-id");
/// Names the target in a request that does not name it in its path.
pub const DAPR_APP_ID: HeaderName = HeaderName::from_static("dapr-app-id");

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
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl InvokeApi {
    /// A block for `app`. Without `client`, absolute URLs are refused.
    pub fn new(
        app: Identity,
        resolver: Arc<dyn NameResolver>,
        endpoints: HashMap<String, HttpEndpoint>,
        client: Option<Arc<dyn HttpClient>>,
    ) -> Self {
        Self { app, resolver, endpoints, client }
    }

    /// Calls `target`: an app id, `app-id.namespace`, the name of an HTTPEndpoint, or an absolute `http(s)` URL.
    ///
    /// The request's path is the method's, still escaped; its headers are the caller's. The answer is the callee's,
    /// whatever its status.
    ///
    /// # Errors
    /// [`Code::InvokeNoTarget`] if `target` is empty; [`Code::Invoke`] if the callee is unknown or cannot be asked.
    pub async fn call(&self, ctx: &Ctx, target: &str, mut request: Request) -> Result<Response> {
        if target.is_empty() {
            return Err(no_target());
        }
        let failed = |cause: ChannelError| {
            Error::new(Code::Invoke, format!("failed to invoke, id: {target}, err: {cause}")).with_kind_of(cause.kind)
        };
        prepare(&mut request, ctx).map_err(failed)?;
        let answer = match self.parse(target).map_err(failed)? {
            Target::Url(url) => self.call_url(url, request).await,
            Target::App { id, namespace } => match self.endpoints.get(target) {
                Some(endpoint) => call_endpoint(endpoint, request).await,
                None => self.call_app(ctx, id, namespace, request).await,
            },
        };
        let mut response = answer.map_err(failed)?;
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    /// Passes a gRPC call on to the app that `target` names, unchanged but for the caller's identity.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn proxy(&self, ctx: &Ctx, target: &str, mut request: Request) -> Result<Response> {
        let failed = |cause: ChannelError| {
            Error::new(Code::Invoke, format!("failed to proxy to {target}: {cause}")).with_kind_of(cause.kind)
        };
        let Target::App { id, namespace } = self.parse(target).map_err(failed)? else {
            let message = "gRPC calls are proxied to app ids, not to URLs";
            return Err(failed(ChannelError::new(ErrorKind::Unsupported, message)));
        };
        let channel = self.resolve(id, namespace).await.map_err(failed)?;
        ctx.trace.write_to(request.headers_mut());
        self.introduce(request.headers_mut(), id);
        within_deadline(ctx, channel.proxy(ctx, request)).await.map_err(failed)
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
        within_deadline(ctx, channel.invoke(ctx, request)).await
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
mod tests;
