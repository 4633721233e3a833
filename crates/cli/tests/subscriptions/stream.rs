//! Subscriptions over a stream, for which no app needs to listen.

use std::{collections::HashMap, time::Duration};

use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};
use trilby_proto::runtime::v1::{
    SubscribeTopicEventsRequestAlpha1 as Request, SubscribeTopicEventsRequestInitialAlpha1 as Initial,
    SubscribeTopicEventsRequestProcessedAlpha1 as Processed, SubscribeTopicEventsResponseAlpha1 as Reply,
    TopicEventRequest, TopicEventResponse, dapr_client::DaprClient,
    subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Said,
    subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Told,
    topic_event_response::TopicEventResponseStatus as Verdict,
};

use super::{DaprdOptions, publish, start, until};
use crate::support::Daprd;

/// The subscriber's side of a stream.
struct Subscriber {
    requests: mpsc::Sender<Request>,
    replies: Streaming<Reply>,
}

fn initial(pubsub: &str, topic: &str, dead: Option<&str>) -> Said {
    Said::InitialRequest(Initial {
        pubsub_name: pubsub.into(),
        topic: topic.into(),
        metadata: HashMap::new(),
        dead_letter_topic: dead.map(str::to_owned),
    })
}

impl Subscriber {
    async fn open(daprd: &Daprd, first: Said) -> Result<Self, Status> {
        let (requests, sent) = mpsc::channel(8);
        requests.send(Request { subscribe_topic_events_request_type: Some(first) }).await.expect("room");
        let sent = stream::unfold(sent, |mut sent| async { Some((sent.recv().await?, sent)) });
        let opened = DaprClient::new(daprd.grpc_channel()).subscribe_topic_events_alpha1(sent).await;
        let mut subscriber = Self { requests, replies: opened?.into_inner() };
        match subscriber.next().await? {
            Told::InitialResponse(_) => Ok(subscriber),
            Told::EventMessage(event) => panic!("not confirmed: {event:?}"),
        }
    }

    async fn say(&self, said: Said) {
        self.requests.send(Request { subscribe_topic_events_request_type: Some(said) }).await.expect("it listens");
    }

    async fn answer(&self, id: &str, verdict: Verdict) {
        let status = Some(TopicEventResponse { status: verdict.into() });
        self.say(Said::EventProcessed(Processed { id: id.to_owned(), status })).await;
    }

    async fn next(&mut self) -> Result<Told, Status> {
        let reply = tokio::time::timeout(Duration::from_secs(20), self.replies.message()).await.expect("in time")?;
        Ok(reply.and_then(|reply| reply.subscribe_topic_events_response_type).expect("a message"))
    }

    async fn event(&mut self) -> TopicEventRequest {
        match self.next().await.expect("no error") {
            Told::EventMessage(event) => event,
            Told::InitialResponse(_) => panic!("confirmed twice"),
        }
    }
}

async fn listed(daprd: &Daprd) -> usize {
    let request = trilby_proto::runtime::v1::GetMetadataRequest {};
    let metadata = DaprClient::new(daprd.grpc_channel()).get_metadata(request).await.expect("metadata");
    metadata.into_inner().subscriptions.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_over_the_stream_until_it_ends() {
    let daprd = start(DaprdOptions::default()).await;
    let mut one = Subscriber::open(&daprd, initial("mypub", "t", Some("dead"))).await.expect("opened");
    let mut dead = Subscriber::open(&daprd, initial("mypub", "dead", None)).await.expect("opened");
    assert_eq!(listed(&daprd).await, 2);
    for (verdict, buried) in [(Verdict::Success, false), (Verdict::Drop, true), (Verdict::Retry, true)] {
        publish(&daprd, "t", r#"{"n":1}"#).await;
        let event = one.event().await;
        assert_eq!((event.path.as_str(), event.topic.as_str(), event.pubsub_name.as_str()), ("/", "t", "mypub"));
        assert_eq!(event.data, r#"{"n":1}"#);
        one.answer(&event.id, verdict).await;
        if buried {
            let letter = dead.event().await;
            assert_eq!((letter.id.as_str(), letter.topic.as_str()), (event.id.as_str(), "dead"));
            dead.answer(&letter.id, Verdict::Success).await;
        }
    }
    drop((one, dead));
    until("end of the streams", async || (listed(&daprd).await == 0).then_some(())).await;
    daprd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_subscription_is_refused_in_daprs_words() {
    let daprd = start(DaprdOptions::default()).await;
    for (first, code, text) in [
        (initial("", "t", None), Code::Unknown, "pubsubName is required"),
        (initial("mypub", "", None), Code::Unknown, "topic is required"),
        (initial("none", "t", None), Code::InvalidArgument, "pubsub none is not found"),
        (Said::EventProcessed(Processed::default()), Code::Unknown, "initial request is required"),
    ] {
        let error = Subscriber::open(&daprd, first).await.err().expect(text);
        assert_eq!((error.code(), error.message()), (code, text));
    }
    let mut subscriber = Subscriber::open(&daprd, initial("mypub", "t", None)).await.expect("opened");
    subscriber.say(initial("mypub", "t", None)).await;
    let error = subscriber.next().await.expect_err("twice");
    assert_eq!(error.message(), "duplicate initial request received");
    daprd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_does_not_keep_daprd_from_ending() {
    let daprd = start(DaprdOptions::default()).await;
    let mut subscriber = Subscriber::open(&daprd, initial("mypub", "t", None)).await.expect("opened");
    let stopping = tokio::spawn(async move {
        let began = std::time::Instant::now();
        daprd.stop().await;
        began.elapsed()
    });
    assert!(subscriber.next().await.is_err());
    assert!(stopping.await.expect("no panic") < Duration::from_secs(4), "it waited for the stream");
}
