//! Input bindings: reading them while the app is ready, and what becomes of the app's replies.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use http::HeaderValue;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use trilby_component::{
    CancellationToken, Metadata,
    binding::{Event, InputBinding, NotHandled, Sink},
};

use super::{BindingComponent, BindingsApi};
use crate::{
    Api, AppChannel, Blocks, Ctx, Wiring,
    app::{BindingEvent, BindingReply},
    ctx::{TRACEPARENT, TRACESTATE, Trace},
    metrics::{Meter, Op},
    resiliency::{Block, Policy},
};

/// Longest time that an app is asked whether it wants events, unless it says otherwise; daprd's.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait before a binding that gave up is read anew: this, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The operation of a reply's further bindings.
const CREATE: &str = "create";

/// The input bindings of one app.
pub(super) struct Inputs {
    pub(super) probe_timeout: Duration,
    inputs: Vec<Arc<Input>>,
    work: Mutex<Option<Work>>,
}

/// What reads them. Dropping it ends it at once.
struct Work {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Default for Inputs {
    fn default() -> Self {
        Self { probe_timeout: PROBE_TIMEOUT, inputs: Vec::new(), work: Mutex::default() }
    }
}

impl Inputs {
    /// Adds a binding, if anything can come from it.
    pub(super) fn add(&mut self, wiring: &Wiring<'_>, component: BindingComponent) {
        let Some(binding) = component.binding.input.clone() else { return };
        self.inputs.push(Arc::new(Input {
            binding,
            path: format!("/{}", component.route.trim_start_matches('/')),
            is_wanted: component.direction.is_some_and(|direction| direction.input),
            policy: wiring.policies.component_inbound(Block::Binding, &component.name),
            meter: wiring.metrics.meter("input_binding", &component.name, wiring.app),
            name: component.name,
        }));
    }

    pub(super) async fn start(&self, api: &Api, channel: &Arc<dyn AppChannel>) {
        let (reading, mut all_reading) = mpsc::channel(1);
        {
            let mut work = self.work();
            if work.is_some() {
                return;
            }
            let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
            for input in &self.inputs {
                let delivery =
                    Delivery { input: Arc::clone(input), channel: Arc::clone(channel), blocks: api.downgrade() };
                tasks.spawn(delivery.run(self.probe_timeout, stop.clone(), reading.clone()));
            }
            *work = Some(Work { stop, tasks });
        }
        // Nothing is sent: each task drops its end once it reads, or knows that it will not.
        drop(reading);
        let _: Option<()> = all_reading.recv().await;
    }

    pub(super) async fn stop(&self) {
        let Some(mut work) = self.work().take() else { return };
        work.stop.cancel();
        while work.tasks.join_next().await.is_some() {}
    }

    fn work(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One input binding.
struct Input {
    name: String,
    binding: Arc<dyn InputBinding>,
    /// Where an app with routes gets its events, with a leading slash.
    path: String,
    /// Whether the app need not be asked.
    is_wanted: bool,
    policy: Policy,
    meter: Arc<Meter>,
}

/// The way of the events of one binding to the app.
struct Delivery {
    input: Arc<Input>,
    channel: Arc<dyn AppChannel>,
    /// Weak, since the blocks own the task that owns this.
    blocks: Weak<Blocks>,
}

impl Delivery {
    /// Reads the binding until it is told to stop. `reading` is dropped when reading has begun, or failed to.
    async fn run(self, probe_timeout: Duration, stop: CancellationToken, reading: mpsc::Sender<()>) {
        let asked = stop.run_until_cancelled(self.is_wanted(probe_timeout)).await;
        if asked != Some(true) {
            return;
        }
        let input = Arc::clone(&self.input);
        let sink: Arc<dyn Sink> = Arc::new(self);
        let (mut reading, mut pause) = (Some(reading), FIRST_PAUSE);
        while !stop.is_cancelled() {
            let begun = input.binding.read(Arc::clone(&sink), stop.clone()).await;
            reading.take();
            let ended = match begun {
                Ok(work) => {
                    pause = FIRST_PAUSE;
                    work.await
                }
                Err(error) => Err(error),
            };
            let Err(error) = ended else { return };
            tracing::error!(binding = input.name, %error, ?pause, "input binding cannot be read; tried again after a pause");
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn is_wanted(&self, probe_timeout: Duration) -> bool {
        let Input { name, path, is_wanted, .. } = &*self.input;
        if *is_wanted {
            return true;
        }
        let ctx = Ctx::default();
        match timeout(probe_timeout, self.channel.listens_to_binding(&ctx, name, path)).await {
            Ok(Ok(true)) => return true,
            // daprd's words: people search their logs for them.
            Ok(Ok(false)) => tracing::info!("app has not subscribed to binding {name}."),
            Ok(Err(error)) => tracing::warn!(binding = name, %error, "app could not be asked for its input bindings"),
            Err(_) => tracing::warn!(
                binding = name,
                "app did not say within {probe_timeout:?} whether it listens to the binding; it gets no events"
            ),
        }
        false
    }

    /// Does what a reply asks for. A failure is only told in the log, as in Dapr: sending the event again would do what
    /// succeeded twice.
    async fn follow(&self, ctx: &Ctx, reply: &BindingReply, blocks: &Blocks) {
        let binding = self.input.name.as_str();
        if !reply.state.is_empty() {
            let saved = match blocks.state.store(&reply.store) {
                Ok(store) => store.save(ctx, reply.state.clone()).await,
                Err(error) => Err(error),
            };
            if let Err(error) = saved {
                tracing::error!(binding, %error, "state of the app's reply is not saved");
            }
        }
        let data = reply.data.as_ref().unwrap_or(&NULL);
        let mut calls = reply.to.iter().map(|to| forward(ctx, &blocks.bindings, binding, to, data));
        if reply.parallel {
            join_all(calls).await;
        } else {
            while let Some(call) = calls.next()
                && call.await
            {}
        }
    }
}

/// What a reply without data sends on.
static NULL: Bytes = Bytes::from_static(b"null");

async fn forward(ctx: &Ctx, bindings: &BindingsApi, from: &str, to: &str, data: &Bytes) -> bool {
    let sent = bindings.invoke(ctx, to, CREATE, data.clone(), Metadata::new()).await;
    if let Err(failure) = &sent {
        tracing::error!(binding = from, error = %failure.error, "the app's reply is not sent on");
    }
    sent.is_ok()
}

#[async_trait]
impl Sink for Delivery {
    async fn deliver(&self, event: Event) -> Result<Option<Bytes>, NotHandled> {
        let Some(blocks) = self.blocks.upgrade() else { return Err(NotHandled("the app has ended".to_owned())) };
        let ctx = Ctx { trace: trace(&event.metadata), ..Ctx::default() };
        let sent = BindingEvent {
            binding: &self.input.name,
            path: &self.input.path,
            data: &event.data,
            content_type: event.content_type.as_deref(),
            metadata: &event.metadata,
        };

        let started = Instant::now();
        let answered = self.input.policy.run(|| self.channel.binding_event(&ctx, &sent)).await;
        self.input.meter.record(Op::Event, answered.is_ok(), started.elapsed());

        let reply = answered.map_err(|error| {
            tracing::debug!(binding = self.input.name, %error, "event of an input binding not handled");
            NotHandled(error.to_string())
        })?;
        self.follow(&ctx, &reply, &blocks).await;
        Ok(reply.data)
    }
}

/// The trace that an event belongs to, where its system carries one.
fn trace(metadata: &Metadata) -> Trace {
    let header = |name: &str| metadata.get(name).and_then(|value| HeaderValue::from_str(value).ok());
    let parent = header(TRACEPARENT.as_str());
    let state = parent.as_ref().and_then(|_| header(TRACESTATE.as_str()));
    Trace { parent, state, baggage: None }
}
