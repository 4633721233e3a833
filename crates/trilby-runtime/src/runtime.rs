//! A runtime: open components, the apps of one process, and the blocks that each app gets.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use trilby_component::Catalog;
use trilby_core::{
    Api, Blocks, Identity,
    health::Health,
    invoke::{HttpEndpoint, InvokeApi, NameResolver},
    metadata::{self, AppConnection, Facts, MetadataApi},
    metrics::Metrics,
    secrets::{SecretComponent, SecretsApi},
    state::{self, StateApi, StateComponent},
};

use crate::{
    Configuration,
    endpoints::{Clients, HttpClientFactory},
    env::Env,
    error::StartError,
    load::{Loader, Opened, Store, secret_store, visible},
    local_apps::LocalApps,
    properties::Resolver,
    resources::Resources,
};

/// What a runtime is made of.
#[derive(Default)]
pub struct Options {
    /// The component types that it has.
    pub catalog: Catalog,
    /// The components and endpoints that its apps may use.
    pub resources: Resources,
    /// The variables that `envRef` may name, and `POD_NAME` for templates.
    pub env: Env,
    /// Makes clients for addresses outside. Without one, HTTP endpoints and absolute URLs are refused.
    pub http_clients: Option<HttpClientFactory>,
    /// The version that metadata shows.
    pub version: String,
}

/// The building blocks of one or more apps.
///
/// Components are opened when the first app that sees them is added, and shared by all that would get the same. Close
/// the runtime to release them; dropping it leaves that to the components.
pub struct Runtime {
    catalog: Catalog,
    resources: Resources,
    env: Env,
    version: String,
    clients: Clients,
    opened: Vec<Arc<Opened>>,
    app_ids: HashSet<String>,
    local_apps: Arc<LocalApps>,
    metrics: Arc<Metrics>,
}

impl Runtime {
    /// A runtime without apps. Nothing is opened yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            catalog: options.catalog,
            resources: options.resources,
            env: options.env,
            version: options.version,
            clients: Clients::new(options.http_clients),
            opened: Vec::new(),
            app_ids: HashSet::new(),
            local_apps: Arc::default(),
            metrics: Arc::default(),
        }
    }

    /// The apps that can be called by id.
    #[must_use]
    pub fn local_apps(&self) -> &Arc<LocalApps> {
        &self.local_apps
    }

    /// What is measured of component calls.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The blocks as `app` may use them: opens the components that it sees and that are not open yet.
    ///
    /// The app is not ready, and cannot be called, until it says so in [`Api`]'s health and in
    /// [`local_apps`](Self::local_apps). Dropping the future abandons what is being opened.
    ///
    /// # Errors
    /// If the runtime has an app of that id, if the app sees two resources of one name, or if a component that does not
    /// set `ignoreErrors` cannot be opened. What is open stays so, until [`close`](Self::close).
    pub async fn api_for(
        &mut self,
        app: Identity,
        configuration: &Configuration,
        connection: AppConnection,
    ) -> Result<Api, StartError> {
        if self.app_ids.contains(&app.id) {
            return Err(StartError::DuplicateApp(app.id));
        }
        let loader = Loader { catalog: &self.catalog, env: &self.env, app: &app, configuration };
        let visible_components = visible(&self.resources.components, &app)?;
        let components = loader.load(&visible_components, &mut self.opened).await?;
        let endpoints = self.endpoints(&app, &components).await?;
        warn_of_unused_scopes(configuration, &components);

        self.app_ids.insert(app.id.clone());
        let facts = Facts {
            runtime_version: self.version.clone(),
            enabled_features: configuration.features.clone(),
            components: components.iter().map(|opened| describe(opened)).collect(),
            http_endpoints: endpoints.iter().map(|(name, _)| name.clone()).collect(),
            app_connection: connection,
        };
        let resolver = Arc::clone(&self.local_apps) as Arc<dyn NameResolver>;
        let client = self.clients.plain().map_err(|cause| StartError::Configuration {
            name: "client for outside addresses".to_owned(),
            message: cause.to_string(),
        })?;
        Ok(Api::new(Blocks {
            state: StateApi::new(&app, state_components(&components), &self.metrics),
            secrets: SecretsApi::new(&app, secret_components(&components, configuration), &self.metrics),
            invoke: InvokeApi::new(app.clone(), resolver, endpoints.into_iter().collect::<HashMap<_, _>>(), client),
            metadata: MetadataApi::new(facts),
            health: Health::default(),
            errors: self.metrics.errors(&app, configuration.record_error_codes),
            app,
        }))
    }

    /// Releases every component. Calls that still run fail as their components do when they are closed.
    pub async fn close(self) {
        for opened in &self.opened {
            match &opened.store {
                Store::Secret(store) => store.close().await,
                Store::State { store, .. } => store.close().await,
            }
            tracing::debug!(component = opened.component.header.name, "component closed");
        }
    }

    /// The HTTP endpoints of an app, in order.
    async fn endpoints(
        &mut self,
        app: &Identity,
        components: &[Arc<Opened>],
    ) -> Result<Vec<(String, HttpEndpoint)>, StartError> {
        let mut endpoints = Vec::new();
        for endpoint in visible(&self.resources.endpoints, app)? {
            let header = &endpoint.header;
            let secrets = secret_store(components, header.secret_store.as_deref());
            let resolver = Resolver::new(app, &self.env, header, secrets);
            let resolved = self.clients.endpoint(endpoint, resolver).await.map_err(|source| StartError::Resource {
                origin: header.origin.clone(),
                resource: format!("HTTP endpoint {}", header.name),
                source,
            })?;
            endpoints.push((header.name.clone(), resolved));
        }
        Ok(endpoints)
    }
}

fn describe(opened: &Opened) -> metadata::Component {
    let capabilities = match &opened.store {
        Store::State { store, .. } => state::capabilities(&**store),
        Store::Secret(store) => store.features().iter().map(|feature| feature.name()).collect(),
    };
    let component = &opened.component;
    let version = if component.version.is_empty() { "v1" } else { &component.version };
    metadata::Component {
        name: component.header.name.clone(),
        type_name: component.type_name.clone(),
        version: version.to_owned(),
        capabilities,
    }
}

fn state_components(components: &[Arc<Opened>]) -> impl Iterator<Item = StateComponent> + '_ {
    components.iter().filter_map(|opened| match &opened.store {
        Store::Secret(_) => None,
        Store::State { store, key_prefix, encryption } => Some(StateComponent {
            name: opened.component.header.name.clone(),
            store: Arc::clone(store),
            key_prefix: key_prefix.clone(),
            encryption: encryption.clone(),
        }),
    })
}

fn secret_components<'a>(
    components: &'a [Arc<Opened>],
    configuration: &'a Configuration,
) -> impl Iterator<Item = SecretComponent> + 'a {
    components.iter().filter_map(|opened| match &opened.store {
        Store::State { .. } => None,
        Store::Secret(store) => {
            let name = opened.component.header.name.clone();
            let scope = configuration.secret_scopes.get(&name).cloned().unwrap_or_default();
            Some(SecretComponent { name, store: Arc::clone(store), scope })
        }
    })
}

/// A scope for a store that is not there is mostly a misspelt one, and then the real store is open to all.
fn warn_of_unused_scopes(configuration: &Configuration, components: &[Arc<Opened>]) {
    for store in configuration.secret_scopes.keys() {
        if secret_store(components, Some(store)).is_none() {
            // daprd's words: people search their logs for them.
            tracing::warn!("Secrets configuration added for '{store}', but no matching secret store was found");
        }
    }
}
