//! A TCP proxy before a server that can be cut, stopped and frozen, in place of a server that is killed.

use std::net::SocketAddr;

use tokio::{
    io::{self, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

pub(crate) struct Proxy {
    address: SocketAddr,
    upstream: String,
    frozen: watch::Sender<bool>,
    running: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of this machine and passes everything on to `upstream`.
    pub(crate) async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        let mut proxy = Self { address, upstream: upstream.to_owned(), frozen: watch::channel(false).0, running: None };
        proxy.serve(listener);
        proxy
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// Closes every connection and refuses new ones.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }

    /// Accepts connections again, on the same port.
    pub(crate) async fn resume(&mut self) {
        self.serve(TcpListener::bind(self.address).await.expect("the port is still free"));
    }

    /// Closes every connection, as a restart of the server does.
    pub(crate) async fn cut(&mut self) {
        self.stop().await;
        self.resume().await;
    }

    /// Keeps connections open but passes nothing on.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    fn serve(&mut self, listener: TcpListener) {
        let (upstream, frozen) = (self.upstream.clone(), self.frozen.subscribe());
        self.running = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, upstream.clone(), frozen.clone()));
            }
        }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn pass(client: TcpStream, upstream: String, frozen: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server, frozen.clone()) => {}
        _ = copy(&mut from_server, &mut to_client, frozen) => {}
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut frozen: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let _ = frozen.wait_for(|frozen| !frozen).await;
        to.write_all(&buffer[..length]).await?;
    }
}
