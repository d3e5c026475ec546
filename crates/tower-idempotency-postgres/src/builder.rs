//! The settings of a database.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::TargetSessionAttrs;
#[cfg(feature = "rustls")]
use tokio_postgres::config::{Host, SslMode};

use super::error::PostgresError;
use super::schema::Schema;
use super::tls::Tls;

/// The longest namespace, in bytes.
const NAMESPACE: usize = 255;

/// Connects to a PostgreSQL database: see [`PostgresBackend::builder`](super::PostgresBackend::builder).
///
/// Releases 13 to 18 were tested.
///
/// # Logs
/// The client writes the parameters of its queries to the log target `tokio_postgres` at DEBUG, answers that are
/// recorded among them. Do not switch that on in production.
#[derive(Clone)]
#[must_use = "it does nothing until it is opened"]
pub struct PostgresBackendBuilder {
    // Each field but `config` has a method that sets it and says what it does. `pooler` is set by `behind_pooler`.
    pub(super) config: Config,
    pub(super) tls: Tls,
    pub(super) schema: Schema,
    pub(super) namespace: String,
    pub(super) connections: usize,
    pub(super) statement_timeout: Duration,
    pub(super) wait_for_connection: Duration,
    pub(super) open_within: Duration,
    pub(super) pooler: bool,
    pub(super) max_records: u64,
    pub(super) max_bytes: u64,
    pub(super) is_mode_open: bool,
}

/// Leaves out the password.
impl fmt::Debug for PostgresBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackendBuilder")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .field("user", &self.config.get_user())
            .field("schema", &self.schema.to_string())
            .field("namespace", &self.namespace)
            .field("connections", &self.connections)
            .field("pooler", &self.pooler)
            .finish_non_exhaustive()
    }
}

impl PostgresBackendBuilder {
    /// The namespace by default.
    pub(super) const NAMESPACE: &str = "default";

    /// Takes a configuration, and sets what it leaves open and the store relies on.
    pub(super) fn new(mut config: Config) -> Self {
        if config.get_application_name().is_none() {
            config.application_name("tower-idempotency");
        }
        if config.get_tcp_user_timeout().is_none() {
            // A connection whose server is gone without a word is given up.
            config.tcp_user_timeout(Duration::from_secs(10));
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            // A standby may lack what was written, also where its address was the primary's a moment ago.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Self {
            config,
            tls: Tls::default(),
            schema: Schema::default(),
            namespace: Self::NAMESPACE.to_owned(),
            connections: 6,
            statement_timeout: Duration::from_millis(1500),
            wait_for_connection: Duration::from_millis(1500),
            open_within: Duration::from_secs(10),
            pooler: false,
            max_records: 10_000_000,
            max_bytes: 64 << 30,
            is_mode_open: true,
        }
    }

    /// Returns whether the URL says nothing about TLS, that is, has no `sslmode`.
    #[must_use]
    pub fn is_mode_open(&self) -> bool {
        self.is_mode_open
    }

    /// Sets the namespace of this service's rows, in a table that it may share with others. The rows of two namespaces
    /// never meet. The name has at most 255 bytes. Default: `default`.
    ///
    /// # Errors
    /// [`PostgresError::Option`] for a name that is empty, too long or has a zero byte.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Result<Self, PostgresError> {
        let wrong = |reason| Err(PostgresError::Option { option: "the namespace", reason });
        self.namespace = namespace.into();
        match self.namespace.len() {
            0 => wrong("empty"),
            1..=NAMESPACE if self.namespace.contains('\0') => wrong("a text with a zero byte"),
            1..=NAMESPACE => Ok(self),
            _ => wrong("longer than 255 bytes"),
        }
    }

    /// Sets the schema of the database in which the table is. The name has lower-case letters, digits and underscores.
    /// Default: `idempotency`.
    ///
    /// # Errors
    /// [`PostgresError::Option`] for another name.
    pub fn schema(mut self, name: impl AsRef<str>) -> Result<Self, PostgresError> {
        self.schema = Schema::new(name.as_ref())?;
        Ok(self)
    }

    /// Sets how many connections calls share, at least 1. If there are more, one of them is for reading alone. The
    /// store uses two more, to send notifications of the rows that were written and to receive them, and one to renew
    /// the session while all are busy. While a standby is lost, it keeps up to twice as many for calls: those on which
    /// commits wait for the standby. Default: 6, which is enough for
    /// [`calls`](tower_idempotency_shared::SharedStoreBuilder::calls) by default, a renewal of the session and
    /// read.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Sets how long the database may take for a statement. This bounds how late a write may arrive, so set it below
    /// the time after which the caller gives up. Default: 1.5 seconds.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets how long a call waits for a new connection to be made. It waits a third of that for one that is free.
    /// Default: 1.5 seconds.
    pub fn wait_for_connection(mut self, wait: Duration) -> Self {
        self.wait_for_connection = wait;
        self
    }

    /// Sets for how long a database that is away is tried at the start. Default: 10 seconds.
    pub fn open_within(mut self, timeout: Duration) -> Self {
        self.open_within = timeout;
        self
    }

    /// Sets that the connections go through a pooler in transaction mode, such as PgBouncer. Then no statement is
    /// prepared, and nothing is set for a connection.
    ///
    /// Also set a timeout for the role: `ALTER ROLE … SET statement_timeout = '1500ms'`. Over a slow link, set as much
    /// more as the largest outcome takes: without prepared statements, the time that it is on its way counts.
    ///
    /// The pooler swallows notifications, so those who wait for a run on another server find its end by polling.
    pub fn behind_pooler(mut self) -> Self {
        self.pooler = true;
        self
    }

    /// Sets how many rows the table may have before new keys are refused, so that what clients send does not fill the
    /// database's disk. The rows of all namespaces in the table count, expired ones that are not deleted yet included.
    /// Runs that are under way still record how they end, and retries get their answers.
    ///
    /// The number is the database's own estimate, which the store looks at when it is opened and every 30 seconds: the
    /// table may grow beyond the limit by as much as comes meanwhile, and new keys are taken again up to 30 seconds
    /// after rows were deleted. After a crash of the database the estimate is that of the last `VACUUM` or `ANALYZE`,
    /// until the next one. Default: 10 million.
    pub fn max_records(mut self, records: u64) -> Self {
        self.max_records = records;
        self
    }

    /// Sets how many bytes the rows of the table may take on the database's disk, indexes and long answers included,
    /// before new keys are refused: see [`max_records`](Self::max_records). Space that deleted rows have left in the
    /// files, and that the next ones will use, does not count after a `VACUUM`. Default: 64 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Returns the client's configuration, for a connection of your own. It has the password.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets the password, where the URL has none: of a secret that is apart from it.
    pub fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.config.password(password);
        self
    }

    /// Sets the TLS configuration, which says which certificates are trusted. A server that does not encrypt is
    /// refused, unless the URL says `sslmode=disable`, `prefer` or `allow`, or the server is reached by a Unix socket.
    /// With `prefer` and `allow`, the connection is in plain if the server, or an attacker on the way, says that it
    /// does not encrypt.
    ///
    /// The configuration needs a provider of cryptography, which this crate does not bring. It was tested with `ring`.
    #[cfg(feature = "rustls")]
    pub fn tls(mut self, config: rustls::ClientConfig) -> Self {
        self.require_tls();
        self.tls = Tls::rustls(config);
        self
    }

    /// Requires TLS, unless the URL or the place of the server says something else.
    #[cfg(feature = "rustls")]
    fn require_tls(&mut self) {
        let is_local = self.config.get_hosts().iter().any(|host| !matches!(host, Host::Tcp(_)));
        // The client's default is `prefer`.
        if self.config.get_ssl_mode() == SslMode::Prefer && self.is_mode_open && !is_local {
            self.config.ssl_mode(SslMode::Require);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "rustls")]
    use crate::PostgresBackend;

    #[cfg(feature = "rustls")]
    #[test]
    fn a_connection_is_in_plain_only_if_the_url_permits_it() {
        for (url, mode) in [
            ("postgres://u@h/d", SslMode::Require),
            ("postgres://u@h/d?sslmode=require", SslMode::Require),
            ("postgres://u@h/d?sslmode=prefer", SslMode::Prefer),
            ("postgres://u@h/d?sslmode=allow&application_name=a", SslMode::Prefer),
            ("postgres://u@h/d?sslmode=disable", SslMode::Disable),
        ] {
            let mut builder = PostgresBackend::from_url(url).unwrap();
            builder.require_tls();
            assert_eq!(builder.config.get_ssl_mode(), mode, "{url}");
        }
    }

    #[test]
    fn a_namespace_is_one_to_255_bytes() {
        let builder = || PostgresBackendBuilder::new(Config::new());
        assert!(builder().namespace("payments").is_ok());
        for wrong in [String::new(), "a\0b".to_owned(), "n".repeat(256)] {
            assert!(builder().namespace(wrong).is_err());
        }
    }
}
