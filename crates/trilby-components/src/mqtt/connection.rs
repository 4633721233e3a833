//! The task that owns the connection: it reads, writes, keeps it alive, and makes a new one when it is lost.

use std::{collections::VecDeque, io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, watch},
    time::{self, Instant, MissedTickBehavior},
};
use trilby_component::{CancellationToken, ComponentError, ErrorKind, Result};

use super::{
    client::{Command, Identity, Incoming, Receipt},
    endpoint::{Endpoint, Transport},
    packet::{self, Connect, Packet},
    session::{Routed, Session},
};

/// How long connecting may take, with the login.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Pauses between attempts to connect again, of which each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// More than this is not put into the output buffer before the server has taken some of it.
const OUTPUT_BYTES: usize = 1 << 20;
const INPUT_BYTES: usize = 16 << 10;

/// A connection that the server has accepted.
pub(super) struct Link {
    transport: Box<dyn Transport>,
    input: BytesMut,
    /// Whether the server remembers the session.
    resumed: bool,
}

/// Connects and logs in.
///
/// # Errors
/// `Unavailable` if the server cannot be reached, `Denied` if it refuses us.
pub(super) async fn connect(endpoint: &Endpoint, identity: &Identity) -> Result<Link> {
    let name = endpoint.name();
    let unavailable = |error: io::Error| {
        ComponentError::new(ErrorKind::Unavailable, format!("error connecting to mqtt at {name}: {error}"))
            .with_source(error)
    };
    let login = async {
        let mut transport = endpoint.connect().await?;
        let mut output = BytesMut::new();
        let connect = Connect {
            client_id: &identity.client_id,
            clean_session: identity.clean_session,
            keep_alive_seconds: u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX),
            username: &endpoint.username,
            password: &endpoint.password,
        };
        packet::connect(&mut output, &connect);
        transport.write_all_buf(&mut output).await?;
        transport.flush().await?;
        let mut input = BytesMut::with_capacity(INPUT_BYTES);
        loop {
            match packet::decode(&mut input).map_err(io::Error::other)? {
                Some(Packet::ConnAck { resumed, code }) => return Ok((code, Link { transport, input, resumed })),
                Some(_) => return Err(io::Error::other("the server did not begin with an answer to the login")),
                None if transport.read_buf(&mut input).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        }
    };
    let login = time::timeout(CONNECT_LIMIT, login).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let (code, link) = login.map_err(unavailable)?;
    let (kind, why) = match code {
        0 => return Ok(link),
        1 => (ErrorKind::Unsupported, "it does not speak MQTT 3.1.1"),
        2 => (ErrorKind::Denied, "it does not accept the consumerID"),
        4 => (ErrorKind::Denied, "wrong user or password"),
        5 => (ErrorKind::Denied, "not authorized"),
        _ => (ErrorKind::Unavailable, "it is not ready"),
    };
    Err(ComponentError::new(kind, format!("mqtt at {name} refused the connection: {why}")))
}

/// What the task works with.
pub(super) struct Connection {
    pub(super) endpoint: Endpoint,
    pub(super) identity: Identity,
    pub(super) todo: mpsc::Receiver<Command>,
    pub(super) handled: mpsc::Receiver<Receipt>,
    pub(super) connected: watch::Sender<bool>,
    pub(super) closing: CancellationToken,
}

impl Connection {
    /// Returns when the session is closed.
    pub(super) async fn run(mut self, link: Link) {
        let mut session = Session::default();
        let mut next = Some(link);
        while let Some(link) = next {
            self.connected.send_replace(true);
            let lost = self.drive(&mut session, link).await;
            self.connected.send_replace(false);
            if let Err(error) = lost {
                tracing::warn!(%error, server = self.endpoint.name(), "mqtt connection lost; reconnecting");
            }
            next = self.reconnect().await;
        }
    }

    /// Tries until it works; `None` if the session is closed first.
    async fn reconnect(&mut self) -> Option<Link> {
        let attempts = async {
            let mut pause = FIRST_PAUSE;
            loop {
                time::sleep(pause).await;
                match connect(&self.endpoint, &self.identity).await {
                    Ok(link) => return link,
                    Err(error) => tracing::warn!(%error, "mqtt server cannot be reached; trying again"),
                }
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        };
        tokio::pin!(attempts);
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return None,
                link = &mut attempts => return Some(link),
                // Of the connection that is lost: they mean nothing any more, and nobody shall wait with one.
                Some(_) = self.handled.recv() => {}
            }
        }
    }

    /// Works over one connection until it is lost or the session is closed.
    async fn drive(&mut self, session: &mut Session, link: Link) -> io::Result<()> {
        let Link { transport, mut input, resumed } = link;
        let (mut reader, mut writer) = tokio::io::split(transport);
        let mut output = BytesMut::new();
        session.resume(resumed, &mut output);
        let mut unflushed = false;
        // Messages whose subscription has no room. Until it has, nothing is read.
        let mut parked = VecDeque::<Routed>::new();
        let mut alive = Alive::new();
        loop {
            while parked.is_empty()
                && let Some(packet) = packet::decode(&mut input).map_err(io::Error::other)?
            {
                alive.heard();
                parked.extend(session.packet(packet, &mut output).and_then(|routed| pass_on(session, routed)));
            }
            tokio::select! {
                () = self.closing.cancelled() => {
                    packet::disconnect(&mut output);
                    let farewell = async {
                        writer.write_all_buf(&mut output).await?;
                        writer.shutdown().await
                    };
                    return time::timeout(Duration::from_secs(1), farewell).await.unwrap_or(Ok(()));
                }
                room = reserve(&parked), if !parked.is_empty() => {
                    let routed = parked.pop_front();
                    match (room, routed) {
                        (Some(room), Some((_, message))) => drop(room.send(message)),
                        (None, Some((_, message))) => session.keep(message),
                        (_, None) => {}
                    }
                }
                read = reader.read_buf(&mut input), if parked.is_empty() => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                progress = send(&mut writer, &mut output), if unflushed || !output.is_empty() => {
                    unflushed = progress? == Progress::Written;
                }
                Some(receipt) = self.handled.recv() => {
                    session.acknowledge(receipt, &mut output);
                    while let Ok(receipt) = self.handled.try_recv() {
                        session.acknowledge(receipt, &mut output);
                    }
                }
                Some(command) = self.todo.recv(), if session.has_room() && output.len() < OUTPUT_BYTES => {
                    let mut command = Some(command);
                    while let Some(this) = command {
                        let routed = session.command(this, &mut output);
                        parked.extend(routed.into_iter().filter_map(|routed| pass_on(session, routed)));
                        let more = session.has_room() && output.len() < OUTPUT_BYTES;
                        command = if more { self.todo.try_recv().ok() } else { None };
                    }
                }
                () = alive.due() => alive.ask(parked.is_empty(), &mut output)?,
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Progress {
    Written,
    Flushed,
}

/// Writes some of the output, or flushes when all of it is written.
async fn send(writer: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> io::Result<Progress> {
    if output.is_empty() {
        return writer.flush().await.map(|()| Progress::Flushed);
    }
    writer.write_buf(output).await.map(|_| Progress::Written)
}

/// Gives a message to its subscription; gives it back if there is no room.
fn pass_on(session: &mut Session, (feed, message): Routed) -> Option<Routed> {
    match feed.try_send(message) {
        Ok(()) => None,
        Err(mpsc::error::TrySendError::Full(message)) => Some((feed, message)),
        Err(mpsc::error::TrySendError::Closed(message)) => {
            session.keep(message);
            None
        }
    }
}

/// Waits until the first of them can be passed on; `None` if its subscription has ended.
async fn reserve(parked: &VecDeque<Routed>) -> Option<mpsc::OwnedPermit<Incoming>> {
    let (feed, _) = parked.front()?;
    feed.clone().reserve_owned().await.ok()
}

/// Asks the server from time to time whether it is there.
struct Alive {
    timer: time::Interval,
    asked: Option<Instant>,
}

impl Alive {
    fn new() -> Self {
        let period = KEEP_ALIVE / 2;
        let mut timer = time::interval_at(Instant::now() + period, period);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { timer, asked: None }
    }

    fn heard(&mut self) {
        self.asked = None;
    }

    async fn due(&mut self) {
        self.timer.tick().await;
    }

    /// # Errors
    /// The server has not answered, although we listened.
    fn ask(&mut self, listening: bool, output: &mut BytesMut) -> io::Result<()> {
        if listening && self.asked.is_some_and(|asked| asked.elapsed() >= KEEP_ALIVE) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.asked.get_or_insert_with(Instant::now);
        packet::ping(output);
        Ok(())
    }
}
