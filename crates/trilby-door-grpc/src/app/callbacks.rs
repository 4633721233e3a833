//! What the runtime calls in a gRPC app by itself: its subscriptions, events, bindings and health.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, uri::PathAndQuery};
use prost::Message;
use tonic::{Code, Status};
use trilby_component::{ErrorKind, Metadata, pubsub::BulkSettings};
use trilby_core::{
    Body, ChannelError, Ctx, Request,
    app::{BindingEvent, BindingReply},
    ctx::{TRACEPARENT, UNTRACED},
    pubsub::{BulkDelivery, BulkEntry, Delivery, Origin, Outcome, Route, Rule, Subscription},
};
use trilby_proto::runtime::v1::{
    BindingEventRequest, BindingEventResponse, HealthCheckResponse, ListInputBindingsResponse,
    ListTopicSubscriptionsResponse, TopicEventBulkRequest, TopicEventBulkRequestEntry, TopicEventBulkResponse,
    TopicEventResponse, TopicRule, TopicSubscription, binding_event_response::BindingEventConcurrency,
    topic_event_bulk_request_entry::Event,
};

use super::{GrpcApp, internal, metadata, status};
use crate::{codec, event, unary};

const LIST_SUBSCRIPTIONS: &str = "/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions";
const ON_TOPIC_EVENT: &str = "/dapr.proto.runtime.v1.AppCallback/OnTopicEvent";
const ON_BULK_TOPIC_EVENT: &str = "/dapr.proto.runtime.v1.AppCallback/OnBulkTopicEvent";
const ON_BULK_TOPIC_EVENT_ALPHA: &str = "/dapr.proto.runtime.v1.AppCallbackAlpha/OnBulkTopicEventAlpha1";
const LIST_BINDINGS: &str = "/dapr.proto.runtime.v1.AppCallback/ListInputBindings";
const ON_BINDING_EVENT: &str = "/dapr.proto.runtime.v1.AppCallback/OnBindingEvent";
const HEALTH_CHECK: &str = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck";

/// `type` of a bulk request.
const BULK_TYPE: &str = "com.dapr.event.sent.bulk";
/// The component that an event came from; Dapr puts it among the metadata of the message.
const PUBSUB_NAME: HeaderName = HeaderName::from_static("pubsubname");

/// How a callback went wrong.
enum Failed {
    /// The app was not asked.
    Unsent(ChannelError),
    /// It answered with an error.
    Refused(Status),
}

impl Failed {
    fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::Unimplemented)
    }
}

impl From<Failed> for ChannelError {
    fn from(failed: Failed) -> Self {
        let status = match failed {
            Failed::Unsent(error) => return error,
            Failed::Refused(status) => status,
        };
        let kind = match status.code() {
            Code::Unavailable => ErrorKind::Unavailable,
            Code::DeadlineExceeded => ErrorKind::Timeout,
            _ => ErrorKind::Internal,
        };
        // Go's words for an answer that is an error.
        let text = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
        let code = u16::try_from(status.code() as i32).unwrap_or_default();
        Self::new(kind, text).with_status(code)
    }
}

impl GrpcApp {
    async fn call<R: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
        headers: HeaderMap,
    ) -> Result<R, Failed> {
        let _slot = self.slot().await;
        let unsent = |status: Status| Failed::Unsent(internal(status.message()));
        let framed = unary::encode(message, self.max_body_bytes).map_err(unsent)?;
        let mut request = Request::new(Body::Full(framed));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = PathAndQuery::from_static(path).into();
        *request.headers_mut() = headers;

        let response = self.send(request).await.map_err(Failed::Unsent)?;

        let (head, body) = response.into_parts();
        let received = unary::receive(body, self.max_body_bytes).await.map_err(unsent)?;
        let status = status(&received.trailers).or_else(|| status(&head.headers)).ok_or_else(|| {
            let text = format!("app did not answer as a gRPC server does (HTTP status {})", head.status);
            Failed::Unsent(internal(format!("{text}; check its app protocol")))
        })?;
        if status.code() != Code::Ok {
            return Err(Failed::Refused(status));
        }
        unary::decode(received.message.unwrap_or_default()).map_err(unsent)
    }

    pub(super) async fn list_subscriptions(&self, ctx: &Ctx) -> Result<Vec<Subscription>, ChannelError> {
        let listed = self.call::<ListTopicSubscriptionsResponse>(LIST_SUBSCRIPTIONS, &(), headers(ctx)).await;
        match listed {
            Ok(listed) => Ok(listed.subscriptions.into_iter().map(subscription).collect()),
            Err(failed) if failed.is_unimplemented() => {
                tracing::info!("pubsub subscriptions: gRPC app does not implement ListTopicSubscriptions");
                Ok(Vec::new())
            }
            Err(failed) => Err(failed.into()),
        }
    }

    pub(super) async fn on_topic_event(&self, ctx: &Ctx, delivery: &Delivery<'_>) -> Result<Outcome, ChannelError> {
        let Delivery { event, pubsub, topic, path, metadata } = *delivery;
        let headers = event_headers(ctx, pubsub, metadata);
        let message = event::to_request(event, pubsub, topic, path);
        match self.call::<TopicEventResponse>(ON_TOPIC_EVENT, &message, headers).await {
            Ok(TopicEventResponse { status }) => event::outcome(status).ok_or_else(|| {
                let id = event.id();
                let text = "unknown status returned from app while processing pub/sub event";
                internal(format!("{text} {id}, status: {status}"))
            }),
            // No retry mends that.
            Err(failed) if failed.is_unimplemented() => {
                tracing::warn!(pubsub, topic, id = event.id(), "app does not implement OnTopicEvent, event dropped");
                Ok(Outcome::Drop)
            }
            Err(failed) => Err(failed.into()),
        }
    }

    pub(super) async fn on_bulk_topic_event(
        &self,
        ctx: &Ctx,
        delivery: &BulkDelivery<'_>,
    ) -> Result<Vec<Outcome>, ChannelError> {
        let BulkDelivery { id, entries, pubsub, topic, path, metadata } = *delivery;
        let mut named = metadata.clone();
        named.insert("pubsubName".to_owned(), pubsub.to_owned());
        let message = TopicEventBulkRequest {
            id: id.to_owned(),
            entries: entries.iter().map(|entry| bulk_entry(entry)).collect(),
            metadata: codec::to_map(named),
            topic: topic.to_owned(),
            pubsub_name: pubsub.to_owned(),
            r#type: BULK_TYPE.to_owned(),
            path: path.to_owned(),
        };
        let headers = event_headers(ctx, pubsub, metadata);
        let mut answer = self.call::<TopicEventBulkResponse>(ON_BULK_TOPIC_EVENT, &message, headers.clone()).await;
        if answer.as_ref().is_err_and(Failed::is_unimplemented) {
            answer = self.call(ON_BULK_TOPIC_EVENT_ALPHA, &message, headers).await;
        }
        match answer {
            Ok(TopicEventBulkResponse { statuses }) => {
                let said = |entry: &&BulkEntry| {
                    let status = statuses.iter().find(|status| status.entry_id == entry.entry_id)?;
                    event::outcome(status.status)
                };
                Ok(entries.iter().map(|entry| said(entry).unwrap_or(Outcome::Retry)).collect())
            }
            Err(failed) if failed.is_unimplemented() => {
                tracing::warn!(pubsub, topic, "app does not implement OnBulkTopicEvent, events dropped");
                Ok(vec![Outcome::Drop; entries.len()])
            }
            Err(failed) => Err(failed.into()),
        }
    }

    /// An app that does not say what it listens to listens to nothing.
    pub(super) async fn lists_binding(&self, ctx: &Ctx, binding: &str) -> Result<bool, ChannelError> {
        match self.call::<ListInputBindingsResponse>(LIST_BINDINGS, &(), headers(ctx)).await {
            Ok(listed) => Ok(listed.bindings.iter().any(|name| name == binding)),
            Err(Failed::Refused(_)) => Ok(false),
            Err(failed) => Err(failed.into()),
        }
    }

    pub(super) async fn on_binding_event(
        &self,
        ctx: &Ctx,
        event: &BindingEvent<'_>,
    ) -> Result<BindingReply, ChannelError> {
        let message = BindingEventRequest {
            name: event.binding.to_owned(),
            data: event.data.clone(),
            metadata: codec::to_map(event.metadata.clone()),
        };
        let reply: BindingEventResponse = self.call(ON_BINDING_EVENT, &message, headers(ctx)).await?;
        Ok(BindingReply {
            data: Some(reply.data).filter(|data| !data.is_empty()),
            to: reply.to,
            parallel: reply.concurrency == i32::from(BindingEventConcurrency::Parallel),
            state: reply.states.into_iter().map(codec::set).collect(),
            store: reply.store_name,
        })
    }

    pub(super) async fn ask_health(&self, ctx: &Ctx) -> Result<(), ChannelError> {
        let HealthCheckResponse {} = self.call(HEALTH_CHECK, &(), headers(ctx)).await?;
        Ok(())
    }
}

fn subscription(wire: TopicSubscription) -> Subscription {
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let routes = wire.routes.unwrap_or_default();
    let rule = |TopicRule { r#match: condition, path }| Rule { condition, path };
    let rules: Vec<_> = routes.rules.into_iter().map(rule).collect();
    // A gRPC app needs no route: without one there is one without a path.
    let default = said(routes.default).or_else(|| rules.is_empty().then(String::new));
    let bulk = wire.bulk_subscribe.filter(|bulk| bulk.enabled);
    Subscription {
        pubsub: wire.pubsub_name,
        topic: wire.topic,
        metadata: codec::from_map(wire.metadata),
        route: Route { rules, default },
        dead_letter_topic: said(wire.dead_letter_topic),
        bulk: bulk.map(|bulk| BulkSettings::new(bulk.max_messages_count.into(), bulk.max_await_duration_ms.into())),
        order_by: None,
        scopes: Vec::new(),
        origin: Origin::Programmatic,
    }
}

fn bulk_entry(entry: &BulkEntry) -> TopicEventBulkRequestEntry {
    TopicEventBulkRequestEntry {
        entry_id: entry.entry_id.clone(),
        content_type: entry.content_type.clone(),
        metadata: codec::to_map(entry.metadata.clone()),
        event: Some(match &entry.event {
            Ok(event) => Event::CloudEvent(event::to_entry(event)),
            Err(bytes) => Event::Bytes(bytes.clone()),
        }),
    }
}

/// The metadata of a callback.
fn headers(ctx: &Ctx) -> HeaderMap {
    let mut headers = metadata(ctx, &HeaderMap::new());
    if let Some(parent) = ctx.trace.parent.as_ref().filter(|parent| **parent != UNTRACED) {
        headers.insert(TRACEPARENT, parent.clone());
    }
    headers
}

/// As [`headers`], and where an event comes from and what its broker says about it.
fn event_headers(ctx: &Ctx, pubsub: &str, said: &Metadata) -> HeaderMap {
    let mut headers = headers(ctx);
    let said = said.iter().map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()), value.as_str()));
    for (name, value) in said.chain([(Ok(PUBSUB_NAME), pubsub)]) {
        if let Ok(name) = name
            && let Ok(value) = HeaderValue::from_str(value)
            && !is_reserved(&name)
        {
            headers.insert(name, value);
        }
    }
    headers
}

fn is_reserved(name: &HeaderName) -> bool {
    let of_the_call = [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::HOST, header::TE, header::CONNECTION];
    of_the_call.contains(name) || name.as_str().starts_with("grpc-") || name.as_str().ends_with("-bin")
}
