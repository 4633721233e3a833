//! The blocks of one app, as doors and embedders hold them.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Weak},
};

use async_trait::async_trait;

use crate::{
    AppChannel, ChannelError, Identity,
    bindings::BindingsApi,
    configuration::ConfigurationApi,
    conversation::ConversationApi,
    crypto::CryptoApi,
    health::Health,
    invoke::{InvokeApi, NameResolver},
    lock::LockApi,
    metadata::MetadataApi,
    metrics::{ErrorMeter, Metrics},
    pubsub::PubSubApi,
    secrets::SecretsApi,
    state::StateApi,
};

/// The building blocks as one app may use them: scopes, key prefixes and secret scopes are already applied.
pub struct Blocks {
    /// The app.
    pub app: Identity,
    /// State stores.
    pub state: StateApi,
    /// Brokers.
    pub pubsub: PubSubApi,
    /// Bindings.
    pub bindings: BindingsApi,
    /// Secret stores.
    pub secrets: SecretsApi,
    /// Configuration stores.
    pub configuration: ConfigurationApi,
    /// Lock stores.
    pub lock: LockApi,
    /// Cryptography providers.
    pub crypto: CryptoApi,
    /// Language models.
    pub conversation: ConversationApi,
    /// Service invocation.
    pub invoke: InvokeApi,
    /// What this runtime is and has.
    pub metadata: MetadataApi,
    /// Whether it is ready.
    pub health: Health,
    /// Counts the errors that doors answer with.
    pub errors: Arc<ErrorMeter>,
}

impl Blocks {
    /// The blocks of an app that has no component and can call no other app, to start from: `Blocks { state,
    /// ..Blocks::empty(app) }`.
    #[must_use]
    pub fn empty(app: Identity) -> Self {
        Self {
            state: StateApi::default(),
            pubsub: PubSubApi::default(),
            bindings: BindingsApi::default(),
            secrets: SecretsApi::default(),
            configuration: ConfigurationApi::default(),
            lock: LockApi::default(),
            crypto: CryptoApi::default(),
            conversation: ConversationApi::default(),
            invoke: InvokeApi::new(app.clone(), Arc::new(Nobody), HashMap::new(), None),
            metadata: MetadataApi::default(),
            health: Health::default(),
            errors: Metrics::default().errors(&app, false),
            app,
        }
    }
}

/// Knows no app.
struct Nobody;

#[async_trait]
impl NameResolver for Nobody {
    async fn resolve(&self, _: &str, _: Option<&str>) -> Result<Option<Arc<dyn AppChannel>>, ChannelError> {
        Ok(None)
    }
}

/// A cheap handle on the blocks of one app.
#[derive(Clone)]
pub struct Api(Arc<Blocks>);

impl Api {
    /// Shares the blocks of one app.
    #[must_use]
    pub fn new(blocks: Blocks) -> Self {
        Self(Arc::new(blocks))
    }

    /// Takes the app that is told what it asks to hear of. For before the app may call.
    pub fn attach(&self, channel: &Arc<dyn AppChannel>) {
        self.configuration.attach(channel);
    }

    /// Begins everything that comes to the app by itself: topics, input bindings, configuration changes. For when the app
    /// is ready, and again when it has recovered.
    pub async fn start(&self, channel: &Arc<dyn AppChannel>) {
        self.pubsub.start(channel).await;
        self.bindings.start(self, channel).await;
        self.configuration.start(channel).await;
    }

    /// Ends what [`start`](Self::start) began, after the deliveries that are under way.
    pub async fn stop(&self) {
        tokio::join!(self.pubsub.stop(), self.bindings.stop(), self.configuration.stop());
    }

    /// As [`stop`](Self::stop), for good: also what callers opened themselves, such as streams of events.
    pub async fn close(&self) {
        tokio::join!(self.pubsub.close(), self.bindings.stop(), self.configuration.stop());
    }

    /// The blocks for as long as others hold them: for tasks that a block owns.
    pub(crate) fn downgrade(&self) -> Weak<Blocks> {
        Arc::downgrade(&self.0)
    }
}

impl Deref for Api {
    type Target = Blocks;

    fn deref(&self) -> &Blocks {
        &self.0
    }
}
