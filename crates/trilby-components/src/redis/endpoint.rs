//! How a connection to Redis comes about: one server, a cluster, or whichever server the sentinels name.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisFuture, RedisResult, TlsCertificates,
    TlsMode, Value,
    aio::{ConnectionLike, MultiplexedConnection, PubSub, SendError},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
};
use tokio::time;

use super::config::{Address, Config, Topology};
use crate::cryptography;

/// Requests that may wait to be written to the connection; further ones wait before that.
const QUEUE: usize = 1024;

/// Where to connect to, with credentials and certificates.
pub(crate) struct Endpoint {
    addresses: Vec<Address>,
    servers: Servers,
    dial_timeout: Duration,
}

enum Servers {
    Node(Client),
    Cluster(Box<ClusterClient>),
    Sentinels { sentinels: Vec<Client>, master_name: String, dial: Dial },
}

impl Endpoint {
    pub(crate) fn new(config: &Config, addresses: Vec<Address>) -> RedisResult<Self> {
        if config.enable_tls {
            cryptography::choose();
        }
        let dial = Dial::new(config);
        let servers = if config.failover {
            let login = login(0, &config.sentinel_username, &config.sentinel_password);
            let sentinels =
                addresses.iter().map(|address| dial.client(address, login.clone())).collect::<Result<_, _>>()?;
            Servers::Sentinels { sentinels, master_name: config.sentinel_master_name.clone(), dial }
        } else if config.redis_type == Topology::Cluster {
            Servers::Cluster(Box::new(dial.cluster(config, &addresses)?))
        } else {
            let address = addresses.first().ok_or((ErrorKind::InvalidClientConfig, "there is no address"))?;
            Servers::Node(dial.client(address, dial.login.clone())?)
        };
        Ok(Self { addresses, servers, dial_timeout: config.dial_timeout() })
    }

    /// The addresses for people.
    pub(crate) fn name(&self) -> String {
        self.addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    pub(crate) async fn connect(&self) -> RedisResult<Connection> {
        match &self.servers {
            Servers::Node(client) => self.connect_to(client).await,
            Servers::Cluster(client) => Ok(Connection::Cluster(client.get_async_connection().await?)),
            Servers::Sentinels { sentinels, master_name, dial } => {
                let master = self.ask_for_master(sentinels, master_name).await?;
                self.connect_to(&dial.client(&master, dial.login.clone())?).await
            }
        }
    }

    /// A connection that hears what is published, for which a cluster has no one server to ask.
    pub(crate) async fn listen(&self) -> RedisResult<PubSub> {
        let client = match &self.servers {
            Servers::Node(client) => client.clone(),
            Servers::Cluster(_) => return Err((ErrorKind::Client, "a cluster cannot be listened to").into()),
            Servers::Sentinels { sentinels, master_name, dial } => {
                let master = self.ask_for_master(sentinels, master_name).await?;
                dial.client(&master, dial.login.clone())?
            }
        };
        time::timeout(self.dial_timeout, client.get_async_pubsub()).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {:?}", self.dial_timeout)).into())
        })
    }

    /// Connects with RESP3 where the server knows it: in that protocol a lost connection is noticed at once, and not by
    /// the next request, which may be one that cannot be repeated.
    async fn connect_to(&self, client: &Client) -> RedisResult<Connection> {
        let lost = Arc::new(AtomicBool::new(false));
        let watch = {
            let lost = Arc::clone(&lost);
            move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    lost.store(true, Ordering::Relaxed);
                }
                Ok::<_, SendError>(())
            }
        };
        let modern = with_protocol(client, ProtocolVersion::RESP3)?;
        let connected =
            modern.get_multiplexed_async_connection_with_config(&self.options().set_push_sender(watch)).await;
        let connection = match connected {
            Err(error) if !error.is_io_error() && error.kind() != ErrorKind::AuthenticationFailed => {
                client.get_multiplexed_async_connection_with_config(&self.options()).await?
            }
            other => other?,
        };
        Ok(Connection::Node { connection, lost })
    }

    /// Asks one sentinel after the other. What one says about the name counts for more than that another is down.
    async fn ask_for_master(&self, sentinels: &[Client], master_name: &str) -> RedisResult<Address> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(master_name);
        let unknown = (ErrorKind::MasterNameNotFoundBySentinel, "no sentinel knows this name", master_name.to_owned());
        let (mut failure, mut has_answer) = (RedisError::from(unknown.clone()), false);
        for sentinel in sentinels {
            let answer: RedisResult<Option<(String, u16)>> = async {
                let mut connection = sentinel.get_multiplexed_async_connection_with_config(&self.options()).await?;
                question.query_async(&mut connection).await
            }
            .await;
            match answer {
                Ok(Some((host, port))) => return Ok(Address { host, port }),
                Ok(None) => has_answer = true,
                Err(error) => failure = error,
            }
        }
        Err(if has_answer { unknown.into() } else { failure })
    }

    fn options(&self) -> AsyncConnectionConfig {
        // How long an answer may take is decided for each request.
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.dial_timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE)
    }
}

/// What every server is dialled with.
struct Dial {
    login: RedisConnectionInfo,
    tls: Option<TlsMode>,
    client_tls: Option<ClientTlsConfig>,
}

impl Dial {
    fn new(config: &Config) -> Self {
        let mode = if config.insecure_skip_tls_verify { TlsMode::Insecure } else { TlsMode::Secure };
        let client_tls = (!config.client_cert.is_empty()).then(|| ClientTlsConfig {
            client_cert: config.client_cert.clone().into_bytes(),
            client_key: config.client_key.clone().into_bytes(),
        });
        Self {
            login: login(config.redis_db, &config.redis_username, &config.redis_password),
            tls: config.enable_tls.then_some(mode),
            client_tls,
        }
    }

    fn client(&self, address: &Address, login: RedisConnectionInfo) -> RedisResult<Client> {
        let info = self.address(address).into_connection_info()?.set_redis_settings(login);
        match self.certificates() {
            Some(certificates) if self.tls.is_some() => Client::build_with_tls(info, certificates),
            _ => Client::open(info),
        }
    }

    fn cluster(&self, config: &Config, addresses: &[Address]) -> RedisResult<ClusterClient> {
        let longest = config.read_timeout().max(config.write_timeout()).unwrap_or(Duration::MAX);
        let mut builder = ClusterClientBuilder::new(addresses.iter().map(|address| self.address(address)))
            .connection_timeout(config.dial_timeout())
            .response_timeout(longest);
        if let Some(password) = self.login.password() {
            builder = builder.password(password);
        }
        if let Some(username) = self.login.username() {
            builder = builder.username(username);
        }
        if let Some(mode) = self.tls {
            builder = builder.tls(mode);
            if let Some(certificates) = self.certificates() {
                builder = builder.certs(certificates);
            }
        }
        builder.build()
    }

    fn address(&self, Address { host, port }: &Address) -> ConnectionAddr {
        match self.tls {
            None => ConnectionAddr::Tcp(host.clone(), *port),
            Some(mode) => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: mode == TlsMode::Insecure,
                tls_params: None,
            },
        }
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        let client_tls = self.client_tls.clone()?;
        Some(TlsCertificates { client_tls: Some(client_tls), root_cert: None })
    }
}

fn login(db: i64, username: &str, password: &str) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_db(db);
    if !username.is_empty() {
        login = login.set_username(username);
    }
    if !password.is_empty() {
        login = login.set_password(password);
    }
    login
}

fn with_protocol(client: &Client, protocol: ProtocolVersion) -> RedisResult<Client> {
    let info = client.get_connection_info().clone();
    let login = info.redis_settings().clone().set_protocol(protocol);
    Client::open(info.set_redis_settings(login))
}

/// A connection that any number of requests share.
#[derive(Clone)]
pub(crate) enum Connection {
    Node { connection: MultiplexedConnection, lost: Arc<AtomicBool> },
    Cluster(ClusterConnection),
}

impl Connection {
    /// Whether it is known to be of no use any more.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Node { lost, .. } => lost.load(Ordering::Relaxed),
            Self::Cluster(_) => false,
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Node { connection, .. } => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node { connection, .. } => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node { connection, .. } => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
