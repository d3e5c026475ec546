//! A stream to a host, with TLS or without.

use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::NotConnected;

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

/// With TLS or without.
#[derive(Clone, Default)]
pub(crate) enum Tls {
    /// Connections are in plain.
    #[default]
    Without,
    #[cfg(feature = "rustls")]
    Rustls(tokio_rustls::TlsConnector),
}

/// A stream of bytes, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A task that is ended when this is dropped.
pub(crate) struct Task(pub(crate) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The way to each host.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) tls: Tls,
    /// The time for a connection, with the search for its place.
    pub(crate) within: Duration,
}

impl Dialer {
    pub(crate) fn is_encrypted(&self) -> bool {
        !matches!(self.tls, Tls::Without)
    }

    /// Opens a stream. The name is resolved anew: it may be of another server than before.
    pub(crate) async fn stream(&self, host: &Host) -> Result<Box<dyn Stream>, NotConnected> {
        let away = |error: &dyn fmt::Display| NotConnected::Away(format!("{host}: {error}"));
        let stream = TcpStream::connect((host.name.as_str(), host.port)).await.map_err(|error| away(&error))?;
        stream.set_nodelay(true).map_err(|error| away(&error))?;
        match &self.tls {
            Tls::Without => Ok(Box::new(stream)),
            #[cfg(feature = "rustls")]
            Tls::Rustls(connector) => {
                let wrong = |error: &dyn fmt::Display| NotConnected::refused(format!("{host}: TLS: {error}"));
                let name = rustls::pki_types::ServerName::try_from(host.name.clone()).map_err(|error| wrong(&error))?;
                let stream = connector.connect(name, stream).await.map_err(|error| match error.kind() {
                    // The certificate is wrong, or the server speaks no TLS.
                    std::io::ErrorKind::InvalidData => wrong(&error),
                    _ => away(&error),
                })?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Opens a connection for commands. Its task moves the bytes, and ends with it.
    pub(crate) async fn commands(
        &self,
        host: &Host,
        login: &RedisConnectionInfo,
    ) -> Result<(MultiplexedConnection, Task), NotConnected> {
        let stream = self.stream(host).await?;
        // Calls have limits of their own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connected = MultiplexedConnection::new_with_config(login, stream, config).await;
        let (connection, driver) = connected.map_err(|error| NotConnected::at(host, &error))?;
        Ok((connection, Task(tokio::spawn(driver))))
    }
}

/// Ends a talk with a host that takes too long.
pub(crate) async fn in_time<T>(
    host: &Host,
    within: Duration,
    talk: impl Future<Output = Result<T, NotConnected>>,
) -> Result<T, NotConnected> {
    let late = || NotConnected::Away(format!("{host} does not answer within {} ms", within.as_millis()));
    timeout(within, talk).await.unwrap_or_else(|_| Err(late()))
}
