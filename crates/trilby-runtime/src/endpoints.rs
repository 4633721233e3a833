//! HTTPEndpoint resources as the invocation block calls them.

use std::{collections::HashMap, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use trilby_component::ComponentError;
use trilby_core::invoke::{HttpClient, HttpEndpoint};

use crate::{
    properties::Resolver,
    resources::{self, Pair, Source},
};

/// Whom a client trusts, and how it proves who it is. The default is the usual certificates and no proof.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// PEM certificates to trust instead of the usual ones.
    pub root_ca: Option<String>,
    /// PEM certificates of the client, its own first.
    pub certificate: Option<String>,
    /// PEM private key of the client.
    pub private_key: Option<String>,
}

/// Makes a client for servers outside of this runtime. The error is for people.
///
/// It comes from above, because a client is a transport and this crate knows none.
pub type HttpClientFactory = Arc<dyn Fn(&TlsSettings) -> Result<Arc<dyn HttpClient>, String> + Send + Sync>;

/// The clients of a runtime: one for each set of TLS settings, so that connections are shared.
pub(crate) struct Clients {
    factory: Option<HttpClientFactory>,
    made: HashMap<TlsSettings, Arc<dyn HttpClient>>,
}

impl Clients {
    pub(crate) fn new(factory: Option<HttpClientFactory>) -> Self {
        Self { factory, made: HashMap::new() }
    }

    /// The client for absolute URLs, unless this runtime has none.
    pub(crate) fn plain(&mut self) -> Result<Option<Arc<dyn HttpClient>>, ComponentError> {
        self.factory.is_some().then(|| self.get(TlsSettings::default())).transpose()
    }

    fn get(&mut self, tls: TlsSettings) -> Result<Arc<dyn HttpClient>, ComponentError> {
        if let Some(client) = self.made.get(&tls) {
            return Ok(Arc::clone(client));
        }
        let no_client = || ComponentError::unsupported("this runtime was built without a client for outside addresses");
        let factory = self.factory.as_ref().ok_or_else(no_client)?;
        let client = factory(&tls).map_err(|reason| ComponentError::metadata(format!("spec.clientTLS: {reason}")))?;
        self.made.insert(tls, Arc::clone(&client));
        Ok(client)
    }

    /// What an endpoint is for the app of `resolver`.
    pub(crate) async fn endpoint(
        &mut self,
        endpoint: &resources::HttpEndpoint,
        mut resolver: Resolver<'_>,
    ) -> Result<HttpEndpoint, ComponentError> {
        let base_url = base_url(&endpoint.base_url)?;
        let headers = headers(&endpoint.headers, &mut resolver).await?;
        let tls = TlsSettings {
            root_ca: pem("spec.clientTLS.rootCA", endpoint.root_ca.as_ref(), &mut resolver).await?,
            certificate: pem("spec.clientTLS.certificate", endpoint.certificate.as_ref(), &mut resolver).await?,
            private_key: pem("spec.clientTLS.privateKey", endpoint.private_key.as_ref(), &mut resolver).await?,
        };
        Ok(HttpEndpoint { base_url, headers, client: self.get(tls)? })
    }
}

fn base_url(text: &str) -> Result<Uri, ComponentError> {
    let url = text.parse::<Uri>().ok();
    url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()).ok_or_else(|| {
        ComponentError::metadata(format!("spec.baseUrl {text:?} is not a URL such as https://api.example.com/v2"))
    })
}

async fn headers(pairs: &[Pair], resolver: &mut Resolver<'_>) -> Result<HeaderMap, ComponentError> {
    let mut headers = HeaderMap::new();
    for Pair { name, source } in pairs {
        let value = resolver.value(&format!("spec.headers {name}"), source).await?;
        let illegal =
            |what| ComponentError::metadata(format!("spec.headers {name}: its {what} is not that of a header"));
        let header = HeaderName::try_from(name).map_err(|_| illegal("name"))?;
        headers.insert(header, HeaderValue::try_from(value).map_err(|_| illegal("value"))?);
    }
    Ok(headers)
}

async fn pem(
    field: &str,
    source: Option<&Source>,
    resolver: &mut Resolver<'_>,
) -> Result<Option<String>, ComponentError> {
    let Some(source) = source else { return Ok(None) };
    Ok(Some(resolver.value(field, source).await?).filter(|pem| !pem.is_empty()))
}
