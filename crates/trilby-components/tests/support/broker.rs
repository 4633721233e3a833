//! Brokers that a test stops and starts, and what is sent through them meanwhile.

use std::{
    collections::BTreeSet,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::{task::JoinSet, time::sleep};
use trilby_component::{
    CancellationToken, Metadata, Result,
    binding::{Binding, Event, InvokeError, InvokeRequest, InvokeResponse, NotHandled, Sink},
    pubsub::{PubSub, PublishRequest},
};

use super::{
    eventually,
    inbox::{Inbox, message},
    request, server,
};

pub(crate) async fn open_pubsub(kind: &str, properties: &[(&str, &str)]) -> Result<Arc<dyn PubSub>> {
    trilby_components::builtins().open_pubsub(kind, "v1", request(properties)).await
}

pub(crate) async fn open_binding(kind: &str, properties: &[(&str, &str)]) -> Result<Arc<Binding>> {
    trilby_components::builtins().open_binding(kind, "v1", request(properties)).await
}

/// The certificate of the authority that signed those of the servers.
pub(crate) const AUTHORITY: &str = include_str!("../../../trilby-door-http/tests/door/tls/ca.pem");

/// A server of the test's own. It ends with the test, and keeps its data until then.
pub(crate) struct Server {
    kind: &'static str,
    xtask: String,
    folder: TempDir,
    pub(crate) port: u16,
    child: Child,
}

impl Server {
    /// `None`, and a line that says so, if nobody says how servers are started.
    pub(crate) async fn start(kind: &'static str) -> Option<Self> {
        let xtask = server(&format!("{kind} that is stopped and started"), "TRILBY_TEST_XTASK")?;
        let folder = TempDir::new().expect("a folder for the server");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let child = spawn(&xtask, kind, &folder, port);
        let server = Self { kind, xtask, folder, port, child };
        server.wait().await;
        Some(server)
    }

    /// Stops it as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it in good order.
    pub(crate) fn stop(&mut self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(asked.is_ok_and(|status| status.success()), "the server is there");
        let _ = self.child.wait();
    }

    /// Starts it again on the same port with the same data.
    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(&self.xtask, self.kind, &self.folder, self.port);
        self.wait().await;
    }

    async fn wait(&self) {
        let listens = || TcpStream::connect(("127.0.0.1", self.port)).ok();
        eventually(&format!("{} listens", self.kind), listens).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(xtask: &str, kind: &str, folder: &TempDir, port: u16) -> Child {
    Command::new(xtask)
        .args(["server", "--kind", kind, "--port", &port.to_string(), "--data"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("TRILBY_TEST_XTASK is a program")
}

/// Publishes messages `0`, `1`, … from several tasks, each again and again until the broker has taken it.
pub(crate) struct Flood {
    tasks: JoinSet<()>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
}

impl Flood {
    const TASKS: usize = 8;

    pub(crate) fn start(broker: &Arc<dyn PubSub>, request: &PublishRequest, count: usize) -> Self {
        let acknowledged = Arc::<Mutex<BTreeSet<String>>>::default();
        let mut tasks = JoinSet::new();
        for task in 0..Self::TASKS {
            let (broker, request, acknowledged) = (Arc::clone(broker), request.clone(), Arc::clone(&acknowledged));
            tasks.spawn(async move {
                for number in (task..count).step_by(Self::TASKS) {
                    let request = PublishRequest { data: number.to_string().into(), ..request.clone() };
                    let start = Instant::now();
                    while let Err(error) = broker.publish(&request).await {
                        assert!(start.elapsed() < Duration::from_secs(90), "{error}");
                        sleep(Duration::from_millis(100)).await;
                    }
                    acknowledged.lock().expect("no panic").insert(number.to_string());
                }
            });
        }
        Self { tasks, acknowledged }
    }

    /// Waits until the broker has taken so many.
    pub(crate) async fn reach(&self, count: usize) {
        let taken = || (self.acknowledged.lock().expect("no panic").len() >= count).then_some(());
        let start = Instant::now();
        while taken().is_none() {
            assert!(start.elapsed() < Duration::from_secs(120), "the broker took fewer than {count}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until all are taken and handled by one or the other; gives the number of deliveries that were one too many.
    pub(crate) async fn arrive(self, inboxes: &[&Inbox]) -> usize {
        self.tasks.join_all().await;
        let acknowledged = self.acknowledged.lock().expect("no panic").clone();
        let start = Instant::now();
        loop {
            let count: usize = inboxes.iter().map(|inbox| inbox.handled_count()).sum();
            // Looking at each of them is slow, so only when there may be enough.
            if count >= acknowledged.len() {
                let handled: BTreeSet<_> = inboxes.iter().flat_map(|inbox| inbox.handled().into_keys()).collect();
                if acknowledged.is_subset(&handled) {
                    return count - acknowledged.len();
                }
            }
            assert!(start.elapsed() < Duration::from_secs(90), "{count} deliveries and not every message has arrived");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Publishes until the broker takes it: for a server that has just been started.
pub(crate) async fn publish(broker: &dyn PubSub, topic: &str, data: &str) {
    broker.publish(&message(topic, data)).await.unwrap_or_else(|error| panic!("publishing {data}: {error}"));
}

type Answer = Box<dyn Fn(&Event, usize) -> bool + Send + Sync>;

/// A sink for the events of a binding, that remembers what came.
pub(crate) struct Events {
    events: Mutex<Vec<Event>>,
    answer: Answer,
}

impl Events {
    /// Asks for each, with the number of events before it, whether it is to count as handled.
    pub(crate) fn answering(answer: impl Fn(&Event, usize) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { events: Mutex::default(), answer: Box::new(answer) })
    }

    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Event> {
        let came = || Some(self.events.lock().expect("no panic").clone()).filter(|events| events.len() >= count);
        eventually(&format!("{count} events came"), came).await
    }
}

#[async_trait]
impl Sink for Events {
    async fn deliver(&self, event: Event) -> Result<Option<Bytes>, NotHandled> {
        let before = {
            let mut events = self.events.lock().expect("no panic");
            events.push(event.clone());
            events.len() - 1
        };
        if (self.answer)(&event, before) { Ok(None) } else { Err(NotHandled("not now".to_owned())) }
    }
}

/// Reads a binding until the token that it gives is cancelled.
pub(crate) async fn read(
    binding: &Binding,
    events: &Arc<Events>,
) -> (CancellationToken, tokio::task::JoinHandle<Result<()>>) {
    let stop = CancellationToken::new();
    let input = binding.input.as_ref().expect("it has an input");
    let reading = input.read(Arc::clone(events) as Arc<dyn Sink>, stop.clone()).await.expect("read");
    (stop, tokio::spawn(reading))
}

pub(crate) async fn create(
    binding: &Binding,
    data: &str,
    metadata: &[(&str, &str)],
) -> Result<InvokeResponse, InvokeError> {
    let metadata: Metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = InvokeRequest { operation: "create".to_owned(), data: data.to_owned().into(), metadata };
    binding.output.as_ref().expect("it has an output").invoke(&request).await
}
