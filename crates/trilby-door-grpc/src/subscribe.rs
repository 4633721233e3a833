//! Streaming subscriptions: the subscriber opens one with its first message, gets events, and answers each with a status.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use futures_util::{Stream, stream};
use tonic::Status;
use trilby_core::{
    Api, Ctx, Error,
    pubsub::{EventStream, StreamRequest, StreamedEvent},
};
use trilby_proto::runtime::v1::{
    SubscribeTopicEventsRequestAlpha1, SubscribeTopicEventsRequestInitialAlpha1 as Initial,
    SubscribeTopicEventsRequestProcessedAlpha1 as Processed, SubscribeTopicEventsResponseAlpha1 as Response,
    SubscribeTopicEventsResponseInitialAlpha1,
    subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Said,
    subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Told,
};

use crate::{codec, event, streaming::Messages};

/// Where every event of a stream goes.
const PATH: &str = "/";

/// A subscription that is open.
pub(crate) struct Subscribed {
    pubsub: Arc<str>,
    events: EventStream,
    messages: Messages,
    /// Events that the subscriber has not answered, by id; several of one id are answered in their order.
    waiting: HashMap<String, VecDeque<StreamedEvent>>,
    is_confirmed: bool,
    /// Whether the runtime gives no more events, so that only answers are waited for.
    is_ending: bool,
}

/// Why a subscription is not opened.
pub(crate) enum Refused {
    /// The stream is not what it should be.
    Stream(Status),
    /// The block says so.
    Block(Error),
}

/// Opens the subscription that the first message asks for.
pub(crate) async fn open(api: &Api, ctx: &Ctx, mut messages: Messages) -> Result<Subscribed, Refused> {
    let refused = |text: &str| Refused::Stream(Status::unknown(text));
    let Initial { pubsub_name, topic, metadata, dead_letter_topic } = match said(&mut messages).await {
        Ok(Some(Said::InitialRequest(initial))) => initial,
        // Go's word for a stream that ends too early.
        Ok(None) => return Err(refused("EOF")),
        Ok(Some(Said::EventProcessed(_))) => return Err(refused("initial request is required")),
        Err(status) => return Err(Refused::Stream(status)),
    };
    if pubsub_name.is_empty() {
        return Err(refused("pubsubName is required"));
    }
    if topic.is_empty() {
        return Err(refused("topic is required"));
    }
    let pubsub = pubsub_name.as_str().into();
    let request = StreamRequest { pubsub: pubsub_name, topic, metadata: codec::from_map(metadata), dead_letter_topic };

    let events = api.pubsub.stream(ctx, request).await.map_err(Refused::Block)?;

    Ok(Subscribed { pubsub, events, messages, waiting: HashMap::new(), is_confirmed: false, is_ending: false })
}

/// What the subscriber is told, as long as it listens.
pub(crate) fn run(subscribed: Subscribed) -> impl Stream<Item = Result<Response, Status>> + Send + 'static {
    stream::unfold(Some(subscribed), |subscribed| async {
        let mut subscribed = subscribed?;
        let told = subscribed.next().await?;
        let ends = told.is_err();
        let told = told.map(|told| Response { subscribe_topic_events_response_type: Some(told) });
        Some((told, (!ends).then_some(subscribed)))
    })
}

impl Subscribed {
    /// The next thing to tell; `None` once the subscriber has gone, or the runtime has stopped and all is answered.
    async fn next(&mut self) -> Option<Result<Told, Status>> {
        if !std::mem::replace(&mut self.is_confirmed, true) {
            return Some(Ok(Told::InitialResponse(SubscribeTopicEventsResponseInitialAlpha1 {})));
        }
        loop {
            if self.is_ending && self.waiting.is_empty() {
                return Some(Err(Status::unknown("stream closed")));
            }
            tokio::select! {
                // Answers first: they make room for events.
                biased;
                said = said(&mut self.messages) => match said {
                    Ok(Some(Said::EventProcessed(processed))) => self.settle(processed),
                    Ok(Some(Said::InitialRequest(_))) => {
                        return Some(Err(Status::unknown("duplicate initial request received")));
                    }
                    Ok(None) => return None,
                    Err(status) => return Some(Err(status)),
                },
                event = self.events.next(), if !self.is_ending => match event {
                    Some(event) => return Some(Ok(Told::EventMessage(self.keep(event)))),
                    None => self.is_ending = true,
                },
            }
        }
    }

    fn keep(&mut self, event: StreamedEvent) -> trilby_proto::runtime::v1::TopicEventRequest {
        let request = event::to_request(event.event(), &self.pubsub, event.topic(), PATH);
        self.waiting.entry(request.id.clone()).or_default().push_back(event);
        request
    }

    /// Hands on an answer. A status that nobody knows leaves the event unsettled, which is a retry.
    fn settle(&mut self, Processed { id, status }: Processed) {
        let Some(waiting) = self.waiting.get_mut(&id) else {
            return tracing::error!(pubsub = &*self.pubsub, id, "no event of this id waits for an answer");
        };
        let event = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&id);
        }
        let outcome = event::outcome(status.map_or(0, |status| status.status));
        if let (Some(event), Some(outcome)) = (event, outcome) {
            event.settle(outcome);
        }
    }
}

async fn said(messages: &mut Messages) -> Result<Option<Said>, Status> {
    let message = messages.next::<SubscribeTopicEventsRequestAlpha1>().await?;
    Ok(match message {
        None => None,
        // A message that says nothing is taken for what it is not.
        Some(message) => {
            Some(message.subscribe_topic_events_request_type.unwrap_or(Said::EventProcessed(Processed::default())))
        }
    })
}
