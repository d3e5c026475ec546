//! A store by its URL, and a database by its URL or configuration.

use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tower_idempotency::store::ConnectError;
use tower_idempotency_shared::for_backends::connected;

use super::builder::PostgresBackendBuilder;
use super::error::PostgresError;
use super::{PostgresBackend, PostgresStore};
#[cfg(feature = "config")]
use super::{PostgresConfig, SharedConfig};

/// Opens the store of `url`, with a lease of 30 seconds and without TLS. Call it within a tokio runtime, in which the
/// store's tasks run then.
///
/// `url` is that of a database, as `tokio-postgres` reads it. The parameter `namespace`, as in
/// `postgres://user:password@host/database?namespace=payments`, names the rows of this service; by default it is
/// `default`. The database must have the table: call [`migrate`] once, or run `schema.sql`. A database that can't be
/// reached is tried for 10 seconds. Settings of a file go through `connect_with` (feature `config`), and all others
/// through [`PostgresBackend`] and [`SharedStoreBuilder`](tower_idempotency_shared::SharedStoreBuilder).
///
/// # Errors
/// [`ConnectError::Open`] with a [`PostgresError`], which names `migrate` where a table is missing, or with a
/// [`StoreError`](tower_idempotency::store::StoreError).
///
/// # Cancel safety
/// If the future is dropped, a session may have begun, which lapses.
pub async fn connect(url: &str) -> Result<PostgresStore, ConnectError> {
    connected(async { builder(url)?.open().await }, PostgresStore::builder()).await
}

/// Opens the store of `url` as [`connect`] does, with the sections `postgres` and `shared` of a file.
///
/// # Errors
/// As of [`connect`]; also [`PostgresError::Option`] if the builder refuses a value, or if the namespace is given in
/// both.
///
/// # Cancel safety
/// As of [`connect`].
#[cfg(feature = "config")]
pub async fn connect_with(
    url: &str,
    postgres: &PostgresConfig,
    shared: &SharedConfig,
) -> Result<PostgresStore, ConnectError> {
    let opened = async {
        let database = builder(url)?;
        if postgres.namespace.is_some() && database.namespace != PostgresBackendBuilder::NAMESPACE {
            return Err(PostgresError::Option { option: "the namespace", reason: "given twice" });
        }
        postgres.clone().apply(database)?.open().await
    };
    connected(opened, shared.clone().apply(PostgresStore::builder())).await
}

/// Makes the table in the database of `url`, and its functions, where they are missing. Several processes may do so at
/// once.
///
/// # Errors
/// [`PostgresError`]. Nothing was changed then.
///
/// # Cancel safety
/// If the future is dropped, all or nothing was made.
pub async fn migrate(url: &str) -> Result<(), PostgresError> {
    builder(url)?.migrate().await
}

/// The database of a URL, whose parameter `namespace` is this crate's own.
fn builder(url: &str) -> Result<PostgresBackendBuilder, PostgresError> {
    let Some((url, query)) = parameters(url) else {
        return PostgresBackend::from_url(url);
    };
    // The client would refuse a parameter that it does not know, so the namespace is taken out.
    let (namespaces, others): (Vec<_>, Vec<_>) = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .partition(|parameter| parameter.starts_with("namespace="));
    let builder = PostgresBackend::from_url(&format!("{url}?{}", others.join("&")))?;
    match namespaces.as_slice() {
        [] => Ok(builder),
        [namespace] => {
            let encoded = namespace.strip_prefix("namespace=").unwrap_or_default();
            let namespace = percent_encoding::percent_decode_str(encoded).decode_utf8();
            builder.namespace(namespace.map_err(|_| PostgresError::Url)?)
        }
        // Two namespaces or more: it is unclear which one is meant.
        _ => Err(PostgresError::Option { option: "the namespace", reason: "given twice" }),
    }
}

impl PostgresBackend {
    /// Connects to the database of `url`, such as `postgres://user:password@host/database`.
    ///
    /// # Errors
    /// [`PostgresError::Url`], which does not repeat the URL.
    pub fn from_url(url: &str) -> Result<PostgresBackendBuilder, PostgresError> {
        // libpq's modes that verify.
        let unknown_modes = ["sslmode=verify-ca", "sslmode=verify-full"];
        let refused = || match unknown_modes.iter().any(|mode| url.contains(mode)) {
            true => PostgresError::Option {
                option: "sslmode of the database's URL",
                reason: "one that this client does not have: give `sslmode=require` and a TLS configuration by `tls`, \
                         which verifies the server's certificate and name",
            },
            false => unknown_parameter(url).map_or(PostgresError::Url, |name| PostgresError::Parameter { name }),
        };
        let config = read(url).map_err(|_| refused())?;
        // A password with an `@` in it that was not encoded ends up in the host's name, and would be logged with it.
        // An address of IPv6 has colons without being wrong.
        let is_address = |name: &str| name.parse::<std::net::IpAddr>().is_ok();
        let strange =
            |host: &Host| matches!(host, Host::Tcp(name) if name.contains(['@', ':', '/']) && !is_address(name));
        if config.get_hosts().iter().any(strange) {
            return Err(PostgresError::Url);
        }
        Ok(PostgresBackendBuilder { is_mode_open: is_mode_open(url), ..PostgresBackendBuilder::new(config) })
    }

    /// Connects as `config` says, to a server that takes writes. Where `config` has several hosts, each is tried. One
    /// that does not answer has only its share of the
    /// [time for a connection](PostgresBackendBuilder::wait_for_connection).
    pub fn builder(config: Config) -> PostgresBackendBuilder {
        PostgresBackendBuilder::new(config)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_stands_in_an_error_or_a_debug_output() {
        let secret = "s3cr3t";
        let fine = PostgresBackend::from_url(&format!("postgres://u:{secret}@localhost/d")).unwrap();
        assert!(!format!("{fine:?}").contains(secret));
        for url in [
            format!("postgres://u:x@{secret}@localhost/d"),
            format!("postgres://u:{secret}@localhost:port/d"),
            format!("host=localhost password={secret} {secret}=1"),
            format!("host=localhost password=x {secret}"),
            format!("postgres://u:x/{secret}@{secret}:{secret}/d"),
        ] {
            let error = PostgresBackend::from_url(&url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
        }
    }

    #[test]
    fn a_mode_that_this_client_does_not_have_is_named() {
        for url in ["postgres://u@localhost/d?sslmode=verify-full", "host=localhost sslmode=verify-ca"] {
            let error = PostgresBackend::from_url(url).unwrap_err();
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
            assert_eq!(PostgresBackend::from_url(url).unwrap().is_mode_open(), is_open, "{url}");
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
            let error = PostgresBackend::from_url(url).unwrap_err();
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
            if let Err(error) = PostgresBackend::from_url(&url) {
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
            match (PostgresBackend::from_url(url), removed) {
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
        let socket = PostgresBackend::from_url("postgresql://u:p@/d?host=/cloudsql/a:b:c").unwrap();
        assert!(matches!(socket.config.get_hosts(), [Host::Unix(_)]), "{:?}", socket.config.get_hosts());
    }
}
