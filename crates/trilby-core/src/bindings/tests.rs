//! The block against bindings and apps that note what reaches them.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use http::HeaderValue;
use tokio::sync::mpsc;
use trilby_component::{
    CancellationToken, ComponentError, ErrorKind,
    binding::{Event, InputBinding, NotHandled, Reading, Sink},
};

use super::*;
use crate::{
    Blocks, ChannelError, Identity, Request, Response,
    app::{BindingEvent, BindingReply},
    error::Kind,
    metrics::Metrics,
    resiliency::Policies,
};

/// Notes requests; fails those of the operation `delete`.
#[derive(Default)]
struct Output(Mutex<Vec<InvokeRequest>>);

#[async_trait]
impl OutputBinding for Output {
    fn operations(&self) -> &[&'static str] {
        &["create", "delete"]
    }

    async fn invoke(&self, request: &InvokeRequest) -> Result<InvokeResponse, InvokeError> {
        self.0.lock().unwrap().push(request.clone());
        if request.operation == "delete" {
            let metadata = [("statusCode".to_owned(), "404".to_owned())].into();
            let response = Some(InvokeResponse { metadata, ..InvokeResponse::default() });
            return Err(InvokeError { error: ComponentError::new(ErrorKind::Denied, "no"), response });
        }
        Ok(InvokeResponse { data: Some(request.data.clone()), ..InvokeResponse::default() })
    }
}

/// Hands on what the test sends, and notes what came back. Fails to be read as often as it is told to.
struct Input {
    events: Mutex<Option<mpsc::Receiver<Event>>>,
    answers: mpsc::Sender<Result<Option<Bytes>, NotHandled>>,
    failures: AtomicU32,
}

struct Reader(Arc<Input>);

#[async_trait]
impl InputBinding for Reader {
    async fn read(&self, sink: Arc<dyn Sink>, stop: CancellationToken) -> trilby_component::Result<Reading> {
        if self.0.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(ComponentError::new(ErrorKind::Unavailable, "not up yet"));
        }
        let mut events = self.0.events.lock().unwrap().take().expect("read once");
        let answers = self.0.answers.clone();
        Ok(Box::pin(async move {
            while let Some(Some(event)) = stop.run_until_cancelled(events.recv()).await {
                let _ = answers.send(sink.deliver(event).await).await;
            }
            Ok(())
        }))
    }
}

/// Answers events with a reply, or not at all.
struct App {
    listens: bool,
    reply: Option<BindingReply>,
    probes: AtomicU32,
    events: Mutex<Vec<(String, String, Metadata)>>,
}

#[async_trait]
impl AppChannel for App {
    async fn invoke(&self, _: &Ctx, _: Request) -> Result<Response, ChannelError> {
        unreachable!("nothing else is called")
    }

    async fn listens_to_binding(&self, _: &Ctx, _: &str, path: &str) -> Result<bool, ChannelError> {
        assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
        self.probes.fetch_add(1, Ordering::SeqCst);
        Ok(self.listens)
    }

    async fn binding_event(&self, _: &Ctx, event: &BindingEvent<'_>) -> Result<BindingReply, ChannelError> {
        let noted = (event.binding.to_owned(), event.path.to_owned(), event.metadata.clone());
        self.events.lock().unwrap().push(noted);
        self.reply.clone().ok_or_else(|| ChannelError::new(ErrorKind::Internal, "broken"))
    }
}

struct World {
    api: Api,
    metrics: Metrics,
    output: Arc<Output>,
    input: Arc<Input>,
    events: mpsc::Sender<Event>,
    answers: mpsc::Receiver<Result<Option<Bytes>, NotHandled>>,
}

/// Blocks with the bindings `out`, and `in` with that direction.
fn world(direction: Option<Direction>) -> World {
    let (events, receiver) = mpsc::channel(4);
    let (answers, answered) = mpsc::channel(4);
    let input = Arc::new(Input { events: Mutex::new(Some(receiver)), answers, failures: AtomicU32::new(0) });
    let output = Arc::new(Output::default());
    let metrics = Metrics::default();
    let app = Identity::new("myapp");
    let component = |name: &str, binding, direction| BindingComponent {
        name: name.to_owned(),
        binding: Arc::new(binding),
        route: format!("/route-{name}"),
        direction,
    };
    let out = Binding { output: Some(Arc::clone(&output) as _), input: None };
    let into = Binding { input: Some(Arc::new(Reader(Arc::clone(&input)))), output: Some(Arc::clone(&output) as _) };
    let wiring = Wiring { app: &app, metrics: &metrics, policies: &Policies::default() };
    let bindings = BindingsApi::new(&wiring, [component("out", out, None), component("in", into, direction)]);
    let api = Api::new(Blocks { bindings, ..Blocks::empty(app.clone()) });
    World { api, metrics, output, input, events, answers: answered }
}

fn app(listens: bool, reply: Option<BindingReply>) -> (Arc<App>, Arc<dyn AppChannel>) {
    let app = Arc::new(App { listens, reply, probes: AtomicU32::new(0), events: Mutex::default() });
    (Arc::clone(&app), app)
}

async fn fails(world: &World, name: &str, operation: &str) -> InvokeFailure {
    let ctx = Ctx::default();
    world.api.bindings.invoke(&ctx, name, operation, Bytes::new(), Metadata::new()).await.expect_err("refused")
}

#[tokio::test]
async fn what_cannot_be_called_is_told_in_daprs_words() {
    let world = world(Some(Direction { input: true, output: false }));
    for (name, operation, kind, expect) in [
        ("out", "", Kind::Invalid, "operation field is missing from request"),
        ("none", "create", Kind::NotFound, "couldn't find output binding none"),
        ("in", "create", Kind::NotFound, "couldn't find output binding in"),
        (
            "out",
            "odd",
            Kind::Unsupported,
            "binding out does not support operation odd. supported operations:create delete",
        ),
        ("out", "delete", Kind::Denied, "no"),
    ] {
        let error = fails(&world, name, operation).await.error;
        assert_eq!(error.message(), format!("error invoking output binding {name}: {expect}"));
        assert_eq!((error.code(), error.kind()), (Code::InvokeOutputBinding, kind));
    }
}

#[tokio::test]
async fn what_a_binding_says_when_it_fails_is_kept() {
    let failure = fails(&world(None), "out", "delete").await;
    assert_eq!(failure.metadata, BTreeMap::from([("statusCode".to_owned(), "404".to_owned())]));
}

#[tokio::test]
async fn the_trace_of_the_caller_goes_along() {
    let world = world(None);
    let value = |text| Some(HeaderValue::from_static(text));
    let traced = Ctx { trace: Trace { parent: value("p"), state: value("s"), baggage: value("b") }, ..Ctx::default() };
    let own = Metadata::from([("traceparent".to_owned(), "own".to_owned())]);
    for (ctx, metadata) in [(&traced, own.clone()), (&Ctx::default(), own), (&Ctx::default(), Metadata::new())] {
        world.api.bindings.invoke(ctx, "out", "create", Bytes::new(), metadata).await.expect("succeeds");
    }
    let seen: Vec<_> = world.output.0.lock().unwrap().iter().map(|request| request.metadata.clone()).collect();
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Metadata>()
    };
    assert_eq!(seen[0], pairs(&[("traceparent", "p"), ("tracestate", "s"), ("baggage", "b")]));
    assert_eq!(seen[1], pairs(&[("traceparent", "own")]));
    assert_eq!(seen[2], pairs(&[("traceparent", "00-00000000000000000000000000000000-0000000000000000-00")]));
}

#[tokio::test]
async fn an_app_that_does_not_listen_gets_nothing() {
    let world = world(None);
    let (app, channel) = app(false, None);
    world.api.start(&channel).await;
    assert_eq!(app.probes.load(Ordering::SeqCst), 1);
    assert!(world.input.events.lock().unwrap().is_some(), "it is not read");
    world.api.stop().await;
}

#[tokio::test]
async fn an_explicit_direction_spares_the_question() {
    let mut world = world(Some(Direction { input: true, output: false }));
    let reply = BindingReply { data: Some("done".into()), ..BindingReply::default() };
    let (app, channel) = app(false, Some(reply));
    world.api.start(&channel).await;
    world.api.start(&channel).await;
    let metadata = Metadata::from([("a".to_owned(), "b".to_owned())]);
    world.events.send(Event { metadata: metadata.clone(), ..Event::default() }).await.expect("it is read");
    assert_eq!(world.answers.recv().await, Some(Ok(Some("done".into()))));
    assert_eq!(app.probes.load(Ordering::SeqCst), 0);
    assert_eq!(*app.events.lock().unwrap(), [("in".to_owned(), "/route-in".to_owned(), metadata)]);
    world.api.stop().await;
    assert!(world.events.send(Event::default()).await.is_err(), "reading has ended");
    let text = world.metrics.render();
    let expect = r#"dapr_component_input_binding_count{app_id="myapp",component="in",namespace="",success="true"} 1"#;
    assert!(text.contains(expect), "{text}");
}

#[tokio::test]
async fn an_event_that_the_app_does_not_handle_is_given_back() {
    let mut world = world(None);
    let (_app, channel) = app(true, None);
    world.api.start(&channel).await;
    world.events.send(Event::default()).await.expect("it is read");
    assert_eq!(world.answers.recv().await, Some(Err(NotHandled("broken".to_owned()))));
}

#[tokio::test]
async fn a_reply_is_sent_on_until_one_binding_fails() {
    for (parallel, expect) in [(false, 1), (true, 2)] {
        let mut world = world(None);
        let to = ["out", "none", "out"].map(str::to_owned).into();
        let reply = BindingReply { data: Some("{}".into()), to, parallel, ..BindingReply::default() };
        let (_app, channel) = app(true, Some(reply));
        world.api.start(&channel).await;
        world.events.send(Event::default()).await.expect("it is read");
        assert_eq!(world.answers.recv().await, Some(Ok(Some("{}".into()))));
        let sent = world.output.0.lock().unwrap();
        assert_eq!(sent.len(), expect, "parallel: {parallel}");
        assert_eq!((sent[0].operation.as_str(), &sent[0].data[..]), ("create", &b"{}"[..]));
    }
}

#[tokio::test]
async fn a_binding_that_cannot_be_read_is_tried_again() {
    let mut world = world(None);
    world.input.failures.store(1, Ordering::SeqCst);
    let (_app, channel) = app(true, Some(BindingReply::default()));
    world.api.start(&channel).await;
    world.events.send(Event::default()).await.expect("it will be read");
    assert_eq!(world.answers.recv().await, Some(Ok(None)));
}

#[tokio::test]
async fn reading_ends_with_the_blocks() {
    let world = world(None);
    let (_app, channel) = app(true, None);
    world.api.start(&channel).await;
    drop(world.api);
    world.events.closed().await;
}
