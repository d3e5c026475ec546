//! The settings of a database.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Config;
#[cfg(feature = "rustls")]
use tokio_postgres::config::SslMode;
use tokio_postgres::config::{Host, TargetSessionAttrs};

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
    is_mode_open: bool,
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

    pub(super) fn from_url(url: &str) -> Result<Self, PostgresError> {
        let refused = || match unknown_mode(url) {
            true => PostgresError::Option {
                option: "sslmode of the database's URL",
                reason: "one that this client does not have: give `sslmode=require` and a TLS configuration by `tls`, \
                         which verifies the server's certificate and name",
            },
            false => unknown_parameter(url).map_or(PostgresError::Url, |name| PostgresError::Parameter { name }),
        };
        let config = read(url).map_err(|_| refused())?;
        // A password with an `@` in it that was not encoded ends up in the host's name, and would be logged with it.
        let strange =
            |host: &Host| matches!(host, Host::Tcp(name) if name.contains(['@', ':', '/']) && !is_address(name));
        if config.get_hosts().iter().any(strange) {
            return Err(PostgresError::Url);
        }
        Ok(Self { is_mode_open: is_mode_open(url), ..Self::new(config) })
    }

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
}

/// Returns whether a URL asks for one of libpq's modes that verify.
fn unknown_mode(url: &str) -> bool {
    ["sslmode=verify-ca", "sslmode=verify-full"].iter().any(|mode| url.contains(mode))
}

/// Reads a URL with libpq's `sslmode=allow` as with `prefer`. Both take what the server offers; `allow` would try in
/// plain first.
fn read(url: &str) -> Result<Config, tokio_postgres::Error> {
    url.parse().or_else(|_| url.replace("sslmode=allow", "sslmode=prefer").parse())
}

/// Returns whether a URL has no `sslmode`: then the one that is put before its parameters counts. The word may be a
/// part of a password.
fn is_mode_open(url: &str) -> bool {
    let with = |mode: &str| match parameters(url) {
        Some((address, query)) => format!("{address}?sslmode={mode}&{query}"),
        None if url.contains("://") => format!("{url}?sslmode={mode}"),
        None => format!("sslmode={mode} {url}"),
    };
    let mode_after = |first| read(&with(first)).map(|config| config.get_ssl_mode()).ok();
    mode_after("require") != mode_after("disable")
}

/// Returns the address of a URL, and its parameters.
fn parameters(url: &str) -> Option<(&str, &str)> {
    // In the form `key=value`, a question mark may be part of a password.
    url.split_once('?').filter(|(address, _)| address.contains("://"))
}

/// Returns the name of the first parameter that this client can't read. Parts of a password whose characters are not
/// encoded may look like parameters, and are not named: after a question mark in it there is an `@`, and after an
/// ampersand in the parameter `password` there is that parameter.
fn unknown_parameter(url: &str) -> Option<String> {
    let (_, query) = parameters(url)?;
    let mut parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    if query.contains('@') || parameters.clone().any(|parameter| parameter.starts_with("password=")) {
        return None;
    }
    let unknown = parameters.find(|parameter| format!("postgres://localhost/d?{parameter}").parse::<Config>().is_err());
    unknown.map(|parameter| parameter.split_once('=').map_or(parameter, |(name, _)| name).to_owned())
}

/// Returns whether a host is given by its address: that of IPv6 has colons without being wrong.
fn is_address(name: &str) -> bool {
    name.parse::<std::net::IpAddr>().is_ok()
}

impl PostgresBackendBuilder {
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

    #[test]
    fn no_password_stands_in_an_error_or_a_debug_output() {
        let secret = "s3cr3t";
        let fine = PostgresBackendBuilder::from_url(&format!("postgres://u:{secret}@localhost/d")).unwrap();
        assert!(!format!("{fine:?}").contains(secret));
        for url in [
            format!("postgres://u:x@{secret}@localhost/d"),
            format!("postgres://u:{secret}@localhost:port/d"),
            format!("host=localhost password={secret} {secret}=1"),
            format!("host=localhost password=x {secret}"),
            format!("postgres://u:x/{secret}@{secret}:{secret}/d"),
        ] {
            let error = PostgresBackendBuilder::from_url(&url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
        }
    }

    #[test]
    fn a_mode_that_this_client_does_not_have_is_named() {
        for url in ["postgres://u@localhost/d?sslmode=verify-full", "host=localhost sslmode=verify-ca"] {
            let error = PostgresBackendBuilder::from_url(url).unwrap_err();
            assert!(error.to_string().contains("sslmode=require"), "{error}");
        }
    }

    #[test]
    fn a_mode_is_known_from_the_word_in_a_password() {
        for (url, is_open) in [
            ("postgres://u:p@h/d", true),
            ("postgres://u:sslmode=prefer@h/d", true),
            ("postgres://u:p@h/d?password=sslmode=disable", true),
            ("postgres://u:p@h/d?application_name=a&sslmode=prefer", false),
            ("postgres://u:p@h/d?sslmode=allow", false),
            ("postgres://u:p@h/d?sslmode=require", false),
            ("host=h user=u", true),
            ("host=h password='sslmode=prefer'", true),
            ("host=h sslmode = prefer", false),
            ("host=h sslmode=allow user=u", false),
        ] {
            assert_eq!(PostgresBackendBuilder::from_url(url).unwrap().is_mode_open(), is_open, "{url}");
        }
    }

    #[test]
    fn an_unknown_parameter_is_named_and_no_part_of_a_password_is() {
        for (url, name) in [
            ("postgres://u:p@h/d?sslmode=require&pgbouncer=true", "pgbouncer"),
            ("postgres://u:p@h/d?sslmode=prefers", "sslmode"),
            ("postgresql://h/d?connect_timeout=soon", "connect_timeout"),
            ("postgres://u:p@h/d?schema", "schema"),
        ] {
            let error = PostgresBackendBuilder::from_url(url).unwrap_err();
            assert!(matches!(&error, PostgresError::Parameter { name: named } if named == name), "{url}: {error}");
            assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        }
        let secret = "s3cr3t";
        for url in [
            format!("postgres://u:p?{secret}@h/d"),
            format!("postgres://u:p?a={secret}&{secret}=1@h/d"),
            format!("postgres://u@h/d?password=p&{secret}"),
            format!("postgres://u@h/d?{secret}&password=p"),
            format!("postgres://u:p#{secret}@h/d?pgbouncer=true"),
            format!("postgres://u:p%{secret}@h/d"),
            format!("postgres://u:p/{secret}?{secret}@h/d?sslmode=require"),
        ] {
            if let Err(error) = PostgresBackendBuilder::from_url(&url) {
                assert!(!format!("{error} {error:?}").contains(secret), "{url}: {error:?}");
            }
        }
    }

    /// As hosting services give them, in 2026, with another password.
    #[test]
    fn the_urls_of_hosting_services_are_read_or_say_what_to_remove() {
        for (url, host, removed) in [
            (
                "postgres://u1:p1@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d1",
                "ec2-1-2-3-4.compute-1.amazonaws.com",
                None,
            ),
            (
                "postgresql://neondb_owner:p@ep-cool-a1.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
                "ep-cool-a1.eu-central-1.aws.neon.tech",
                None,
            ),
            ("postgresql://postgres:p@db.abcd.supabase.co:5432/postgres", "db.abcd.supabase.co", None),
            (
                "postgresql://postgres.abcd:p@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true",
                "",
                Some("pgbouncer"),
            ),
            ("postgresql://u:p@dpg-a1-a.oregon-postgres.render.com/d", "dpg-a1-a.oregon-postgres.render.com", None),
            ("postgresql://postgres:p@roundhouse.proxy.rlwy.net:12345/railway", "roundhouse.proxy.rlwy.net", None),
            (
                "postgresql://doadmin:p@db-do-user-1-0.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
                "db-do-user-1-0.b.db.ondigitalocean.com",
                None,
            ),
            (
                "postgres://avnadmin:p@pg-1-a.aivencloud.com:12691/defaultdb?sslmode=require",
                "pg-1-a.aivencloud.com",
                None,
            ),
            (
                "postgres://u:p@a.b.eu-central-1.rds.amazonaws.com:5432/d?sslmode=require&sslrootcert=global-bundle.pem",
                "",
                Some("sslrootcert"),
            ),
            (
                "postgres://u%40server:p@server.postgres.database.azure.com:5432/postgres?sslmode=require",
                "server.postgres.database.azure.com",
                None,
            ),
            ("postgres://postgres:p@app-db.flycast:5432/app?sslmode=disable", "app-db.flycast", None),
            (
                "postgres://application:p@p.abcd.db.postgresbridge.com:5432/postgres",
                "p.abcd.db.postgresbridge.com",
                None,
            ),
        ] {
            match (PostgresBackendBuilder::from_url(url), removed) {
                (Ok(builder), None) => {
                    let hosts = builder.config.get_hosts();
                    assert!(matches!(hosts, [Host::Tcp(name)] if name == host), "{url}: {hosts:?}");
                    assert_eq!(builder.config.get_password().map(|password| password[0]), Some(b'p'), "{url}");
                }
                (Err(PostgresError::Parameter { name }), Some(removed)) => assert_eq!(name, removed, "{url}"),
                (read, _) => panic!("{url}: {read:?}"),
            }
        }
        // Cloud SQL's socket.
        let socket = PostgresBackendBuilder::from_url("postgresql://u:p@/d?host=/cloudsql/a:b:c").unwrap();
        assert!(matches!(socket.config.get_hosts(), [Host::Unix(_)]), "{:?}", socket.config.get_hosts());
    }

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
            let mut builder = PostgresBackendBuilder::from_url(url).unwrap();
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
