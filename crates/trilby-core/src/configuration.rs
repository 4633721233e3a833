//! The configuration block: reading configuration, and telling whoever asked when it changes.

mod watches;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use trilby_component::{
    CancellationToken, Metadata,
    configuration::{ConfigurationStore, Items, Sink},
};

use crate::{
    AppChannel, Code, Ctx, Error, Result, Wiring,
    app::ConfigurationUpdate,
    handle::Handle,
    metrics::Op,
    resiliency::{Block, Policy},
};
use watches::{Asker, Watches};

/// Changes that wait for whoever pulls them. A store that reports more waits.
const QUEUE: usize = 16;

/// A configuration store that is open.
pub struct ConfigurationComponent {
    /// The resource's name.
    pub name: String,
    /// The store.
    pub store: Arc<dyn ConfigurationStore>,
}

struct Store {
    handle: Handle<dyn ConfigurationStore>,
    /// What holds for telling the app.
    inbound: Policy,
}

/// The configuration block of one app.
#[derive(Default)]
pub struct ConfigurationApi {
    stores: HashMap<String, Store>,
    channel: OnceLock<Arc<dyn AppChannel>>,
    watches: Arc<Watches>,
}

/// Changes as a caller pulls them. Dropping it ends the subscription.
pub struct ChangeStream {
    id: String,
    changes: mpsc::Receiver<Items>,
    watches: Arc<Watches>,
}

impl ChangeStream {
    /// Id of the subscription.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next change; `None` once the subscription has ended.
    pub async fn next(&mut self) -> Option<Items> {
        self.changes.recv().await
    }
}

impl Drop for ChangeStream {
    fn drop(&mut self) {
        self.watches.remove(&self.id);
    }
}

impl ConfigurationApi {
    /// A block over the stores that the app may use.
    pub fn new(wiring: &Wiring<'_>, stores: impl IntoIterator<Item = ConfigurationComponent>) -> Self {
        let open = |component: ConfigurationComponent| {
            let inbound = wiring.policies.component_inbound(Block::Configuration, &component.name);
            let handle = wiring.handle(Block::Configuration, &component.name, component.store);
            (component.name, Store { handle, inbound })
        };
        Self { stores: stores.into_iter().map(open).collect(), ..Self::default() }
    }

    /// Reads the values of `keys`, or of all keys if there are none. What does not exist is left out.
    ///
    /// # Errors
    /// [`Code::ConfigurationStoreNotConfigured`], [`Code::ConfigurationStoreNotFound`], [`Code::ConfigurationGet`].
    pub async fn get(&self, ctx: &Ctx, store: &str, keys: &[String], metadata: &Metadata) -> Result<Items> {
        let target = self.find(store)?;
        target.handle.call(ctx, Op::Get, |store| store.get(keys, metadata)).await.map_err(|cause| {
            let message = format!("failed to get {} from Configuration store {store}: {cause}", listed(keys));
            Error::from_component(Code::ConfigurationGet, message, &cause)
        })
    }

    /// Watches `keys`, or all keys if there are none, and tells the app; the id of the subscription.
    ///
    /// # Errors
    /// [`Code::AppChannelNil`] without an app; [`Code::ConfigurationSubscribe`]; and those of [`get`](Self::get) about the
    /// store.
    pub async fn subscribe(&self, ctx: &Ctx, store: &str, keys: &[String], metadata: &Metadata) -> Result<String> {
        let target = self.find(store)?;
        let channel = self.channel.get().ok_or_else(|| {
            let message = "app channel is not initialized. cannot subscribe to configuration updates";
            Error::new(Code::AppChannelNil, message)
        })?;
        self.tell(ctx, target, channel, keys, metadata, Asker::Api).await
    }

    /// Watches `keys`, or all keys if there are none; the caller takes the changes.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe), without a need for an app.
    pub async fn stream(&self, ctx: &Ctx, store: &str, keys: &[String], metadata: &Metadata) -> Result<ChangeStream> {
        let target = self.find(store)?;
        let (sender, changes) = mpsc::channel(QUEUE);
        let id = watches::new_id();
        self.watch(ctx, target, keys, metadata, Arc::new(ToStream(sender)), &id, Asker::Api).await?;
        Ok(ChangeStream { id, changes, watches: Arc::clone(&self.watches) })
    }

    /// Ends a subscription of either kind.
    ///
    /// # Errors
    /// [`Code::ConfigurationUnsubscribe`] if there is none of that id; those of [`get`](Self::get) about the store.
    pub fn unsubscribe(&self, store: &str, id: &str) -> Result<()> {
        self.find(store)?;
        if self.watches.remove(id) {
            return Ok(());
        }
        let cause = format!("subscription with id {id} does not exist");
        let message = format!("failed to unsubscribe to configuration request {id}: {cause}");
        Err(Error::new(Code::ConfigurationUnsubscribe, message))
    }

    /// Takes the app that is told of changes. For before the app may call; the first one counts.
    pub fn attach(&self, channel: &Arc<dyn AppChannel>) {
        self.channel.get_or_init(|| Arc::clone(channel));
    }

    /// Watches what the app asks for by itself, and takes it to be told. What cannot be watched is logged.
    pub async fn start(&self, channel: &Arc<dyn AppChannel>) {
        self.attach(channel);
        let ctx = Ctx::default();
        let wanted = match channel.watched_configuration(&ctx).await {
            Ok(wanted) => wanted,
            Err(error) => return tracing::error!(%error, "app does not say which configuration it watches"),
        };
        for (store, keys) in wanted {
            let watched = match self.find(&store) {
                Ok(target) => self.tell(&ctx, target, channel, &keys, &Metadata::new(), Asker::App).await,
                Err(error) => Err(error),
            };
            match watched {
                Ok(_) => tracing::info!(component = store, ?keys, "app watches configuration"),
                Err(error) => tracing::error!(component = store, ?keys, %error, "configuration is not watched"),
            }
        }
    }

    /// Ends what [`start`](Self::start) began. Subscriptions through the API stay.
    pub async fn stop(&self) {
        self.watches.end(Asker::App).await;
    }

    async fn tell(
        &self,
        ctx: &Ctx,
        target: &Store,
        channel: &Arc<dyn AppChannel>,
        keys: &[String],
        metadata: &Metadata,
        asker: Asker,
    ) -> Result<String> {
        let id = watches::new_id();
        let sink = ToApp {
            channel: Arc::clone(channel),
            store: target.handle.name().to_owned(),
            id: id.clone(),
            policy: target.inbound.clone(),
        };
        self.watch(ctx, target, keys, metadata, Arc::new(sink), &id, asker).await?;
        Ok(id)
    }

    #[expect(clippy::too_many_arguments, reason = "each is one thing, and there are two callers")]
    async fn watch(
        &self,
        ctx: &Ctx,
        target: &Store,
        keys: &[String],
        metadata: &Metadata,
        sink: Arc<dyn Sink>,
        id: &str,
        asker: Asker,
    ) -> Result<()> {
        let stop = CancellationToken::new();
        let watching = target
            .handle
            .call(ctx, Op::Subscribe, |store| store.watch(keys, metadata, Arc::clone(&sink), stop.clone()));
        let watch = watching.await.map_err(|cause| {
            let (keys, store) = (listed(keys), target.handle.name());
            let message = format!("failed to subscribe {keys} from Configuration store {store}: {cause}");
            Error::from_component(Code::ConfigurationSubscribe, message, &cause)
        })?;
        self.watches.insert(id, asker, stop, watch);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<&Store> {
        if self.stores.is_empty() {
            return Err(Error::new(Code::ConfigurationStoreNotConfigured, "configuration stores not configured"));
        }
        let missing = || Error::new(Code::ConfigurationStoreNotFound, format!("configuration store {name} not found"));
        self.stores.get(name).ok_or_else(missing)
    }
}

/// Keys as Go prints a list.
fn listed(keys: &[String]) -> String {
    format!("[{}]", keys.join(" "))
}

/// Hands changes to whoever pulls them.
struct ToStream(mpsc::Sender<Items>);

#[async_trait]
impl Sink for ToStream {
    async fn changed(&self, items: Items) {
        // Whoever pulled is gone; the watch ends soon.
        self.0.send(items).await.ok();
    }
}

/// Tells the app.
struct ToApp {
    channel: Arc<dyn AppChannel>,
    store: String,
    id: String,
    policy: Policy,
}

#[async_trait]
impl Sink for ToApp {
    async fn changed(&self, items: Items) {
        let ctx = Ctx::default();
        let update = ConfigurationUpdate { store: &self.store, id: &self.id, items: &items };
        if let Err(error) = self.policy.run(|| self.channel.configuration_changed(&ctx, &update)).await {
            tracing::error!(component = self.store, %error, "app did not take a configuration change");
        }
    }
}
