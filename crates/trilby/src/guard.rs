//! The way to an app as long as it is healthy: everything that is for the app passes here.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use trilby_component::ErrorKind;
use trilby_core::{
    AppChannel, ChannelError, Ctx, Request, Response,
    app::{BindingEvent, BindingReply, ConfigurationUpdate},
    pubsub::{BulkDelivery, Delivery, Outcome, Subscription},
};

use crate::AppSpec;

/// An app and whether it is called at all.
pub(crate) struct Guard {
    app: Arc<dyn AppChannel>,
    healthy: watch::Sender<bool>,
    /// Whether the app is asked what it subscribes to.
    asks_subscriptions: bool,
}

impl Guard {
    /// Lets nothing through to an app whose health is checked, until it has said that it is well.
    pub(crate) fn new(app: Arc<dyn AppChannel>, spec: &AppSpec) -> Self {
        let healthy = watch::Sender::new(spec.health_check.is_none());
        Self { app, healthy, asks_subscriptions: spec.asks_subscriptions }
    }

    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.healthy.send_replace(healthy);
    }

    /// Ends when the app is not healthy.
    pub(crate) async fn unhealthy(&self) {
        let mut healthy = self.healthy.subscribe();
        // The sender is here, so that it cannot be gone.
        let _ = healthy.wait_for(|healthy| !healthy).await;
    }

    fn app(&self) -> Result<&dyn AppChannel, ChannelError> {
        if *self.healthy.borrow() {
            Ok(&*self.app)
        } else {
            // daprd's words.
            Err(ChannelError::new(ErrorKind::Unavailable, "app is not in a healthy state"))
        }
    }
}

#[async_trait]
impl AppChannel for Guard {
    async fn invoke(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        self.app()?.invoke(ctx, request).await
    }

    async fn proxy(&self, ctx: &Ctx, request: Request) -> Result<Response, ChannelError> {
        self.app()?.proxy(ctx, request).await
    }

    async fn subscriptions(&self, ctx: &Ctx) -> Result<Vec<Subscription>, ChannelError> {
        if self.asks_subscriptions { self.app()?.subscriptions(ctx).await } else { Ok(Vec::new()) }
    }

    async fn deliver(&self, ctx: &Ctx, delivery: &Delivery<'_>) -> Result<Outcome, ChannelError> {
        self.app()?.deliver(ctx, delivery).await
    }

    async fn deliver_bulk(&self, ctx: &Ctx, delivery: &BulkDelivery<'_>) -> Result<Vec<Outcome>, ChannelError> {
        self.app()?.deliver_bulk(ctx, delivery).await
    }

    async fn listens_to_binding(&self, ctx: &Ctx, binding: &str, path: &str) -> Result<bool, ChannelError> {
        self.app()?.listens_to_binding(ctx, binding, path).await
    }

    async fn binding_event(&self, ctx: &Ctx, event: &BindingEvent<'_>) -> Result<BindingReply, ChannelError> {
        self.app()?.binding_event(ctx, event).await
    }

    async fn watched_configuration(&self, ctx: &Ctx) -> Result<Vec<(String, Vec<String>)>, ChannelError> {
        self.app()?.watched_configuration(ctx).await
    }

    async fn configuration_changed(&self, ctx: &Ctx, update: &ConfigurationUpdate<'_>) -> Result<(), ChannelError> {
        self.app()?.configuration_changed(ctx, update).await
    }

    /// Asked whatever was answered before.
    async fn check_health(&self, ctx: &Ctx, path: &str) -> Result<(), ChannelError> {
        self.app.check_health(ctx, path).await
    }
}
