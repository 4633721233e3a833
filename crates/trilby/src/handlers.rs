//! Rust functions that subscribe to topics, beside whatever else the app is.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use trilby_component::Metadata;
use trilby_core::{
    AppChannel, ChannelError, Ctx, Request, Response,
    app::{BindingEvent, BindingReply, ConfigurationUpdate},
    pubsub::{BulkDelivery, Delivery, Event, Origin, Outcome, Route, Subscription},
};

type Handling = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A function that handles the events of one topic.
pub(crate) struct Handler {
    subscription: Subscription,
    handle: Box<dyn Fn(Event) -> Handling + Send + Sync>,
}

impl Handler {
    pub(crate) fn new<F, Fut>(pubsub: String, topic: String, handle: F) -> Self
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        // The route tells it from the app's own.
        let route = Route { rules: Vec::new(), default: Some(format!("/trilby/handlers/{pubsub}/{topic}")) };
        let subscription = Subscription {
            pubsub,
            topic,
            metadata: Metadata::new(),
            route,
            dead_letter_topic: None,
            bulk: None,
            order_by: None,
            scopes: Vec::new(),
            origin: Origin::Programmatic,
        };
        Self { subscription, handle: Box::new(move |event| Box::pin(handle(event))) }
    }
}

/// An app with handlers. All else goes to the app itself.
pub(crate) struct WithHandlers {
    pub(crate) app: Arc<dyn AppChannel>,
    pub(crate) handlers: Vec<Handler>,
    /// Whether the app itself may be asked for anything.
    pub(crate) has_app: bool,
}

#[async_trait]
impl AppChannel for WithHandlers {
    async fn invoke(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        self.app.invoke(ctx, request).await
    }

    async fn proxy(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        self.app.proxy(ctx, request).await
    }

    async fn subscriptions(&self, ctx: &Ctx) -> Result<Vec<Subscription>, ChannelError> {
        let mut subscriptions = Vec::new();
        if self.has_app {
            match self.app.subscriptions(ctx).await {
                Ok(own) => subscriptions = own,
                // What the program itself handles does not depend on that.
                Err(error) => tracing::warn!(%error, "app did not say what it subscribes to"),
            }
        }
        subscriptions.extend(self.handlers.iter().map(|handler| handler.subscription.clone()));
        Ok(subscriptions)
    }

    async fn deliver(&self, ctx: &Ctx, delivery: &Delivery<'_>) -> Result<Outcome, ChannelError> {
        let is_meant = |handler: &&Handler| {
            let Subscription { pubsub, route, .. } = &handler.subscription;
            pubsub == delivery.pubsub && route.default.as_deref() == Some(delivery.path)
        };
        match self.handlers.iter().find(is_meant) {
            Some(handler) => Ok((handler.handle)(delivery.event.clone()).await),
            None => self.app.deliver(ctx, delivery).await,
        }
    }

    async fn deliver_bulk(&self, ctx: &Ctx, delivery: &BulkDelivery<'_>) -> Result<Vec<Outcome>, ChannelError> {
        self.app.deliver_bulk(ctx, delivery).await
    }

    async fn listens_to_binding(&self, ctx: &Ctx, binding: &str, path: &str) -> Result<bool, ChannelError> {
        if self.has_app { self.app.listens_to_binding(ctx, binding, path).await } else { Ok(false) }
    }

    async fn binding_event(&self, ctx: &Ctx, event: &BindingEvent<'_>) -> Result<BindingReply, ChannelError> {
        self.app.binding_event(ctx, event).await
    }

    async fn watched_configuration(&self, ctx: &Ctx) -> Result<Vec<(String, Vec<String>)>, ChannelError> {
        self.app.watched_configuration(ctx).await
    }

    async fn configuration_changed(&self, ctx: &Ctx, update: &ConfigurationUpdate<'_>) -> Result<(), ChannelError> {
        self.app.configuration_changed(ctx, update).await
    }

    async fn check_health(&self, ctx: &Ctx, path: &str) -> Result<(), ChannelError> {
        if self.has_app { self.app.check_health(ctx, path).await } else { Ok(()) }
    }
}
