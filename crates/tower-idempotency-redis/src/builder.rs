//! The settings of a database.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisConnectionInfo;

use super::connection::connect::{Connector, Place, Tls};
use super::durability::Durability;
use super::error::RedisError;
use super::guarantee::Accepted;

/// The longest namespace, in bytes.
const NAMESPACE: usize = 255;

/// Connects to a Redis or Valkey database: see [`RedisBackend::from_url`](super::RedisBackend::from_url).
#[derive(Clone)]
#[must_use = "it does nothing until it is opened"]
pub struct RedisBackendBuilder {
    // Each field but `connector` has a method that sets it and says what it does.
    pub(super) connector: Connector,
    pub(super) namespace: String,
    pub(super) durability: Durability,
    pub(super) accepted: Accepted,
    pub(super) connections: usize,
    pub(super) response_timeout: Duration,
    pub(super) wait_for_replicas: Duration,
    pub(super) open_within: Duration,
}

/// Leaves out the passwords.
impl fmt::Debug for RedisBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = (&self.connector.place, &self.namespace, self.durability, self.connections);
        f.debug_tuple("RedisBackendBuilder").field(&shown).finish()
    }
}

impl RedisBackendBuilder {
    /// The namespace by default.
    pub(super) const NAMESPACE: &str = "default";

    pub(super) fn new(place: Place, login: RedisConnectionInfo, tls: Tls) -> Self {
        let (sentinels, within, key) = (RedisConnectionInfo::default(), Duration::from_millis(1500), String::new());
        Self {
            connector: Connector { place, login, sentinels, tls, within, key, generation: Arc::default() },
            namespace: Self::NAMESPACE.to_owned(),
            durability: Durability::LocalAof,
            accepted: Accepted::default(),
            connections: 8,
            response_timeout: Duration::from_millis(500),
            wait_for_replicas: Duration::from_secs(1),
            open_within: Duration::from_secs(10),
        }
    }

    /// Sets the namespace of this service's rows, in a database that it may share with others. The rows of two
    /// namespaces never meet. In a cluster, all rows of a namespace are in one slot. The name has at most 255 bytes.
    /// Default: `default`.
    ///
    /// # Errors
    /// [`RedisError::Option`] for a name that is empty, too long or has a brace, which would end the hash tag.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Result<Self, RedisError> {
        let wrong = |reason| Err(RedisError::Option { option: "the namespace", reason });
        self.namespace = namespace.into();
        match self.namespace.len() {
            0 => wrong("empty"),
            1..=NAMESPACE if self.namespace.contains(['{', '}', '\0']) => wrong("a text with a brace or a zero byte"),
            1..=NAMESPACE => Ok(self),
            _ => wrong("longer than 255 bytes"),
        }
    }

    /// Sets what a write has to reach before it is answered. The opening fails where the server is not set up for it.
    /// Default: [`Durability::LocalAof`].
    ///
    /// # Errors
    /// [`RedisError::Option`] for a count of 0 replicas.
    pub fn durability(mut self, durability: Durability) -> Result<Self, RedisError> {
        if matches!(durability, Durability::Replicas { count: 0, .. }) {
            return Err(RedisError::Option { option: "the count of replicas", reason: "0" });
        }
        self.durability = durability;
        Ok(self)
    }

    /// Accepts that the server deletes records when its memory is full: a key whose record is deleted runs again.
    /// Without it, a server whose `maxmemory-policy` is neither `noeviction` nor begins with `volatile-` is refused.
    pub fn accept_eviction(mut self) -> Self {
        self.accepted.eviction = true;
        self
    }

    /// Accepts a server that does not say whether it deletes records, or when it syncs its append-only file, because
    /// the user may not call `CONFIG GET`. Without it, such a server is refused.
    pub fn accept_unknown_settings(mut self) -> Self {
        self.accepted.unknown = true;
        self
    }

    /// Sets how many connections calls share, at least 1. The store uses two more, to hear of changes and to renew the
    /// session while all are busy. Default: 8.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Sets how long the server may take for an answer, without the wait for replicas. A call with large rows may take
    /// a second more for each 64 KiB. Default: 500 milliseconds.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Sets how long a call waits for a new connection to be made. It waits a third of that for one that is free.
    /// Default: 1.5 seconds.
    pub fn wait_for_connection(mut self, wait: Duration) -> Self {
        self.connector.within = wait;
        self
    }

    /// Sets how long a call waits for the replicas of [`Durability::Replicas`]. Give less than
    /// [`call_timeout`](tower_idempotency_shared::SharedStoreBuilder::call_timeout) of the store, so that it learns
    /// that they are short. Default: 1 second.
    pub fn wait_for_replicas(mut self, wait: Duration) -> Self {
        self.wait_for_replicas = wait;
        self
    }

    /// Sets for how long a database that is away is tried at the start. Default: 10 seconds.
    pub fn open_within(mut self, timeout: Duration) -> Self {
        self.open_within = timeout;
        self
    }

    /// Sets the password, in place of the URL's: of a secret that is apart from it.
    pub fn password(mut self, password: impl AsRef<str>) -> Self {
        self.connector.login = self.connector.login.set_password(password);
        self
    }

    /// Sets the user and the password of sentinels. By default they ask for none.
    pub fn sentinel_login(mut self, user: Option<&str>, password: impl AsRef<str>) -> Self {
        let login = self.connector.sentinels.set_password(password);
        self.connector.sentinels = if let Some(user) = user { login.set_username(user) } else { login };
        self
    }

    /// Sets the TLS configuration, which says which certificates are trusted. From then on each connection is
    /// encrypted, also those to sentinels.
    ///
    /// The configuration needs a provider of cryptography, which this crate does not bring.
    #[cfg(feature = "rustls")]
    pub fn tls(mut self, config: rustls::ClientConfig) -> Self {
        self.connector.tls = Tls::Rustls(std::sync::Arc::new(config).into());
        self
    }
}
