//! Loading the components of an app: which it sees, in the order that their secrets allow, each opened once for all
//! apps that would get the same.

mod model;
mod open;

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;
use trilby_component::{Catalog, Properties, secret::SecretStore};
use trilby_core::Identity;

use crate::{
    Configuration,
    env::Env,
    error::StartError,
    properties::Resolver,
    resources::{Component, Header, HttpEndpoint, Source},
};

pub(crate) use open::Part;
use open::{is_broker, is_secret_store, open};

/// Tells the consumers of a broker apart. Dapr's default is the app's id.
const CONSUMER_ID: &str = "consumerID";

/// A component that is open.
pub(crate) struct Opened {
    pub(crate) component: Arc<Component>,
    pub(crate) part: Part,
    pub(crate) properties: Properties,
}

impl Opened {
    /// Whether `properties` would open the same.
    fn suits(&self, properties: &Properties) -> bool {
        let counts = |(name, _): &(&str, &str)| !(self.part.is_broadcast() && name.eq_ignore_ascii_case(CONSUMER_ID));
        self.properties.iter().filter(counts).eq(properties.iter().filter(counts))
    }
}

/// A resource that has a name and may be scoped to apps.
pub(crate) trait Scoped {
    const KIND: &'static str;
    fn header(&self) -> &Header;
}

impl Scoped for Component {
    const KIND: &'static str = "Component";

    fn header(&self) -> &Header {
        &self.header
    }
}

impl Scoped for HttpEndpoint {
    const KIND: &'static str = "HTTPEndpoint";

    fn header(&self) -> &Header {
        &self.header
    }
}

/// The resources that `app` sees, in order.
///
/// # Errors
/// If it would see two of one name. Two that no app sees both of may share a name.
pub(crate) fn visible<'a, T: Scoped>(resources: &'a [Arc<T>], app: &Identity) -> Result<Vec<&'a Arc<T>>, StartError> {
    let mut by_name: HashMap<&str, &Header> = HashMap::new();
    let seen: Vec<_> = resources.iter().filter(|resource| resource.header().is_visible_to(app)).collect();
    for resource in &seen {
        let header = resource.header();
        if let Some(first) = by_name.insert(&header.name, header) {
            return Err(StartError::Duplicate {
                kind: T::KIND,
                name: header.name.clone(),
                app: app.id.clone(),
                origins: Box::new([first.origin.clone(), header.origin.clone()]),
            });
        }
    }
    Ok(seen)
}

/// Loads the components of one app.
pub(crate) struct Loader<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) env: &'a Env,
    pub(crate) app: &'a Identity,
    pub(crate) configuration: &'a Configuration,
}

impl Loader<'_> {
    /// The components that the app has, secret stores first. What is opened is added to `pool` even if another
    /// component fails, so that its owner can close it; what is in `pool` already is shared.
    ///
    /// # Errors
    /// The first failure of a component that does not ignore errors. Later ones are logged.
    pub(crate) async fn load(
        &self,
        components: &[&Arc<Component>],
        pool: &mut Vec<Arc<Opened>>,
    ) -> Result<Vec<Arc<Opened>>, StartError> {
        let mut waiting: Vec<_> = components.iter().copied().filter(|component| self.is_allowed(component)).collect();
        waiting.sort_by_key(|component| !is_secret_store(component));
        let order: HashMap<_, _> =
            waiting.iter().enumerate().map(|(index, component)| (component.header.name.as_str(), index)).collect();

        let mut loaded: Vec<Arc<Opened>> = Vec::with_capacity(waiting.len());
        let mut failed = None;
        while !waiting.is_empty() {
            let ready = take_ready(&mut waiting);
            let opening = ready.iter().map(|component| self.obtain(component, &loaded, pool));
            for (component, result) in ready.iter().zip(join_all(opening).await) {
                match result {
                    Ok(opened) => {
                        if !pool.iter().any(|known| Arc::ptr_eq(known, &opened)) {
                            pool.push(Arc::clone(&opened));
                        }
                        loaded.push(opened);
                    }
                    Err(error) if component.ignore_errors => {
                        tracing::warn!(%error, "component not loaded, as ignoreErrors says")
                    }
                    Err(error) if failed.is_none() => failed = Some(error),
                    Err(error) => tracing::error!(%error, "component not loaded"),
                }
            }
        }
        loaded.sort_by_key(|opened| order.get(opened.component.header.name.as_str()).copied());
        failed.map_or(Ok(loaded), Err)
    }

    /// Opens a component, unless an app that would get the same has it open. daprd has one app, and opens everything
    /// for it; here `{appID}`, `{uuid}` and secrets decide whether apps share.
    async fn obtain(
        &self,
        component: &Arc<Component>,
        loaded: &[Arc<Opened>],
        pool: &[Arc<Opened>],
    ) -> Result<Arc<Opened>, StartError> {
        let secrets = secret_store(loaded, component.header.secret_store.as_deref());
        let mut resolver = Resolver::new(self.app, self.env, &component.header, secrets);
        let mut properties =
            resolver.properties(&component.metadata).await.map_err(|cause| open::failed(component, cause))?;
        if is_broker(component) && properties.get(CONSUMER_ID).is_none_or(|id| id.trim().is_empty()) {
            properties.insert(CONSUMER_ID, &self.app.id);
        }
        if let Some(model) = model::from_env(&component.type_name, &properties, self.env) {
            properties.insert("model", model);
        }
        if self.configuration.wasm.strict_sandbox && runs_wasm(component) {
            properties.insert("strictSandbox", "true");
        }
        let is_same = |opened: &&Arc<Opened>| Arc::ptr_eq(&opened.component, component) && opened.suits(&properties);
        if let Some(shared) = pool.iter().find(is_same) {
            return Ok(Arc::clone(shared));
        }
        let part = open(self.catalog, component, &properties).await.map_err(|cause| open::failed(component, cause))?;
        tracing::info!(component = component.header.name, r#type = component.type_name, "component loaded");
        Ok(Arc::new(Opened { component: Arc::clone(component), part, properties }))
    }

    fn is_allowed(&self, component: &Component) -> bool {
        let allowed = self.configuration.allows_component(&component.type_name, &component.version);
        if !allowed {
            let (name, r#type) = (&component.header.name, &component.type_name);
            tracing::warn!(
                component = name,
                r#type,
                app_id = self.app.id,
                "component not loaded: the configuration denies its type"
            );
        }
        allowed
    }
}

/// Whether a component runs programs, which a Configuration may confine more than the component itself does.
fn runs_wasm(component: &Component) -> bool {
    component.type_name.to_ascii_lowercase().ends_with(".wasm")
}

/// Takes out what need not wait: components without secrets, and those whose secret store is not still to come. A store
/// that never comes is an error of the component that names it.
fn take_ready<'a>(waiting: &mut Vec<&'a Arc<Component>>) -> Vec<&'a Arc<Component>> {
    let is_coming = |name: &str| waiting.iter().any(|other| other.header.name == name && is_secret_store(other));
    let (ready, later): (Vec<_>, Vec<_>) =
        waiting.iter().partition(|component| !needed_store(component).is_some_and(is_coming));
    // Secret stores that wait for each other will each say what is missing.
    if ready.is_empty() {
        return std::mem::take(waiting);
    }
    *waiting = later;
    ready
}

fn needed_store(component: &Component) -> Option<&str> {
    let has_secret = component.metadata.iter().any(|pair| matches!(pair.source, Source::Secret { .. }));
    component.header.secret_store.as_deref().filter(|_| has_secret)
}

/// The secret store of that name among what is open.
pub(crate) fn secret_store<'a>(loaded: &'a [Arc<Opened>], name: Option<&str>) -> Option<&'a dyn SecretStore> {
    let named = loaded.iter().filter(|opened| Some(opened.component.header.name.as_str()) == name);
    named.into_iter().find_map(|opened| match &opened.part {
        Part::Secret(store) => Some(&**store),
        _ => None,
    })
}
