//! One connection to the primary, for one call at a time, with TLS or without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::{AsyncStream, MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisResult, Value};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_idempotency_shared::for_backends::{NotOpen, Task};

use crate::error::RedisError::{self, Refused, Unsupported};
use crate::error::{NotConnected, Opened, not_connected};
use crate::guarantee::Setup;

/// A connection. It is closed when this is dropped.
pub(crate) struct Connection {
    pub(crate) commands: MultiplexedConnection,
    /// The number of the server's start.
    pub(crate) run_id: String,
    /// How the server is set up, until a call has looked at it.
    pub(crate) setup: Option<Setup>,
    /// The generation of the pool in which it was made. One of an earlier generation is not used again.
    pub(crate) generation: u64,
    /// Ends when the server closes the connection.
    pub(crate) task: Task,
}

/// With TLS or without.
#[derive(Clone)]
pub(crate) enum Tls {
    /// Connections are in plain.
    Without,
    /// The URL asks for TLS, and there is no configuration.
    Missing,
    #[cfg(feature = "rustls")]
    Rustls(tokio_rustls::TlsConnector),
}

/// A stream of bytes, encrypted or not.
type Stream = Box<dyn AsyncStream + Unpin + Send>;

/// Where the primary is, or who knows it. A host is a name and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// One server, or a name that leads to the primary.
    Server(String),
    /// Sentinels that know the primary of this name.
    Sentinels { hosts: Vec<String>, name: String },
    /// Nodes of a cluster, each of which knows the primary of a key.
    Cluster(Vec<String>),
}

/// Makes connections to the primary.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) place: Place,
    pub(crate) login: RedisConnectionInfo,
    pub(crate) sentinels: RedisConnectionInfo,
    pub(crate) tls: Tls,
    /// The time for a connection, with the search for its place.
    pub(crate) within: Duration,
    /// A key that is never there: its slot is that of all keys of the namespace.
    pub(crate) key: String,
    /// Changes when a primary is left: the next search begins at the next host.
    pub(crate) generation: Arc<AtomicU64>,
}

impl Connector {
    /// Connects to the primary, and checks that it is one, and a server that this crate supports.
    pub(crate) async fn connect(&self) -> Opened<Connection> {
        let generation = self.generation.load(Ordering::SeqCst);
        let talk = |host: String| async move {
            let (mut commands, task) = self.dial(&host, &self.login).await?;
            let setup = send(&mut commands, &Setup::commands()).await.and_then(Setup::read).map_err(not_connected)?;
            setup.check_server()?;
            Ok(Connection { commands, run_id: setup.get("run_id"), setup: Some(setup), generation, task })
        };
        self.at_primary(talk).await
    }

    /// Connects to hear what is published.
    pub(crate) async fn listen(&self, channel: &str) -> Opened<PubSub> {
        let talk = |host: String| async move {
            let mut listener = PubSub::new(&self.login, self.stream(&host).await?).await.map_err(not_connected)?;
            listener.subscribe(channel).await.map_err(not_connected)?;
            Ok(listener)
        };
        self.at_primary(talk).await
    }

    /// Opens a stream to `host`, which is a name and a port. The name is resolved anew: it may be of another server
    /// than before.
    async fn stream(&self, host: &str) -> Opened<Stream> {
        if matches!(self.tls, Tls::Missing) {
            let reason =
                "missing, and the URL begins with rediss: set it by `RedisBackendBuilder::tls` (feature `rustls`)";
            return Err(NotConnected::ForGood(RedisError::Option { option: "the TLS configuration", reason }));
        }
        let stream = TcpStream::connect(host).await.map_err(not_connected)?;
        stream.set_nodelay(true).map_err(not_connected)?;
        #[cfg(feature = "rustls")]
        if let Tls::Rustls(connector) = &self.tls {
            use crate::error::refused;
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']).to_owned();
            let name = name.try_into().map_err(|error| refused(format!("TLS: {error}")))?;
            let encrypted = connector.connect(name, stream).await.map_err(|error| match error.kind() {
                // The certificate is wrong, or the server speaks no TLS.
                std::io::ErrorKind::InvalidData => refused(format!("TLS: {error}")),
                _ => not_connected(error),
            });
            return Ok(Box::new(encrypted?));
        }
        Ok(Box::new(stream))
    }

    /// Opens a connection for commands. Its task moves the bytes, and ends with it.
    pub(crate) async fn dial(&self, host: &str, login: &RedisConnectionInfo) -> Opened<(MultiplexedConnection, Task)> {
        // Calls have limits of their own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connected = MultiplexedConnection::new_with_config(login, self.stream(host).await?, config).await;
        let (connection, driver) = connected.map_err(not_connected)?;
        Ok((connection, Task(tokio::spawn(driver))))
    }
}

/// Sends commands in one round trip. Errors of the server are among the answers.
pub(crate) async fn send(connection: &mut MultiplexedConnection, commands: &Pipeline) -> RedisResult<Vec<Value>> {
    connection.send_packed_commands(commands, 0, commands.len()).await
}

/// Ends a talk with a host that takes too long, and names the host in an error.
pub(crate) async fn in_time<T>(host: &str, within: Duration, talk: impl Future<Output = Opened<T>>) -> Opened<T> {
    let late = || NotConnected::Away(format!("it does not answer within {} ms", within.as_millis()));
    let mut talked = timeout(within, talk).await.unwrap_or_else(|_| Err(late()));
    if let Err(NotOpen::Away(reason) | NotOpen::ForGood(Refused { reason } | Unsupported { reason })) = &mut talked {
        *reason = format!("{host}: {reason}");
    }
    talked
}
