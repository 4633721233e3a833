//! A runtime: open components, the apps of one process, and the blocks that each app gets.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use trilby_component::Catalog;
use trilby_core::{
    Api, Blocks, Identity, Wiring,
    bindings::BindingsApi,
    configuration::ConfigurationApi,
    conversation::ConversationApi,
    crypto::CryptoApi,
    health::Health,
    invoke::{HttpEndpoint, InvokeApi, NameResolver},
    lock::LockApi,
    metadata::{AppConnection, Facts, MetadataApi},
    metrics::Metrics,
    pubsub::{self, PubSubApi},
    resiliency::Policies,
    secrets::SecretsApi,
    state::StateApi,
};

use crate::{
    Configuration,
    endpoints::{Clients, HttpClientFactory},
    env::Env,
    error::StartError,
    load::{Loader, Opened, secret_store, visible},
    local_apps::LocalApps,
    parts,
    properties::Resolver,
    resources::{Resiliency, Resources, Subscription, unknown_policies},
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
        let binding_probe_timeout = connection.binding_probe_timeout;
        let resiliencies = self.resiliencies(&app)?;
        let subscriptions = self.subscriptions(&app)?;
        let loader = Loader { catalog: &self.catalog, env: &self.env, app: &app, configuration };
        let visible_components = visible(&self.resources.components, &app)?;
        let components = loader.load(&visible_components, &mut self.opened).await?;
        let endpoints = self.endpoints(&app, &components).await?;
        warn_of_unused_scopes(configuration, &components);

        self.app_ids.insert(app.id.clone());
        let facts = Facts {
            runtime_version: self.version.clone(),
            enabled_features: configuration.features.clone(),
            components: components.iter().map(|opened| parts::describe(opened)).collect(),
            http_endpoints: endpoints.iter().map(|(name, _)| name.clone()).collect(),
            resiliencies: resiliencies.iter().map(|one| one.header.name.clone()).collect(),
            app_connection: connection,
        };
        let resolver = Arc::clone(&self.local_apps) as Arc<dyn NameResolver>;
        let client = self.clients.plain().map_err(|cause| StartError::Configuration {
            name: "client for outside addresses".to_owned(),
            message: cause.to_string(),
        })?;
        let policies = Policies::new(resiliencies.iter().map(|one| &one.resource), &app, &self.metrics);
        let wiring = Wiring { app: &app, metrics: &self.metrics, policies: &policies };
        let pubsub = PubSubApi::new(&wiring, parts::pubsub(&components, &app), subscriptions)
            .with_outboxes(&wiring, parts::outboxes(&components));
        Ok(Api::new(Blocks {
            state: StateApi::new(&wiring, parts::state(&components)).with_outboxes(|store| pubsub.outbox(store)),
            pubsub,
            bindings: match binding_probe_timeout {
                Some(limit) => BindingsApi::new(&wiring, parts::bindings(&components)).with_probe_timeout(limit),
                None => BindingsApi::new(&wiring, parts::bindings(&components)),
            },
            secrets: SecretsApi::new(&wiring, parts::secrets(&components, configuration)),
            configuration: ConfigurationApi::new(&wiring, parts::configuration(&components)),
            lock: LockApi::new(&wiring, parts::lock(&components)),
            crypto: CryptoApi::new(&wiring, parts::crypto(&components)),
            conversation: ConversationApi::new(&wiring, parts::conversation(&components)),
            invoke: InvokeApi::new(app.clone(), resolver, endpoints.into_iter().collect::<HashMap<_, _>>(), client)
                .with_policies(policies.clone()),
            metadata: MetadataApi::new(facts),
            health: Health::default(),
            errors: self.metrics.errors(&app, configuration.record_error_codes),
            app,
        }))
    }

    /// What the Subscription resources of an app say, in order. Of several with one name the last counts, as in Dapr.
    fn subscriptions(&self, app: &Identity) -> Result<Vec<pubsub::Subscription>, StartError> {
        let seen = self.resources.subscriptions.iter().filter(|one| one.header.is_visible_to(app));
        let mut subscriptions: Vec<&Subscription> = Vec::new();
        for subscription in seen {
            subscription.check()?;
            subscriptions.retain(|other| other.header.name != subscription.header.name);
            subscriptions.push(subscription);
        }
        Ok(subscriptions.into_iter().map(|one| one.subscription.clone()).collect())
    }

    /// The Resiliency resources of an app, in order. Unlike components, several of one name are laid over each other.
    fn resiliencies(&self, app: &Identity) -> Result<Vec<Arc<Resiliency>>, StartError> {
        let seen = self.resources.resiliencies.iter().filter(|one| one.header.is_visible_to(app));
        let seen: Vec<_> = seen.cloned().collect();
        for error in unknown_policies(&seen) {
            if self.resources.is_strict() {
                return Err(error);
            }
            tracing::warn!(%error, "target goes without this policy");
        }
        Ok(seen)
    }

    /// Releases every component. Calls that still run fail as their components do when they are closed.
    pub async fn close(self) {
        for opened in &self.opened {
            opened.part.close().await;
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

/// A scope for a store that is not there is mostly a misspelt one, and then the real store is open to all.
fn warn_of_unused_scopes(configuration: &Configuration, components: &[Arc<Opened>]) {
    for store in configuration.secret_scopes.keys() {
        if secret_store(components, Some(store)).is_none() {
            // daprd's words: people search their logs for them.
            tracing::warn!("Secrets configuration added for '{store}', but no matching secret store was found");
        }
    }
}
