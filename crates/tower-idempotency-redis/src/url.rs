//! A store by its URL.

use percent_encoding::percent_decode_str;
use redis::{ConnectionInfo, RedisConnectionInfo};
use tower_idempotency::store::ConnectError;
use tower_idempotency_shared::for_backends::connected;

use super::builder::RedisBackendBuilder;
use super::connection::connect::{Place, Tls};
use super::durability::Durability;
use super::error::RedisError;
use super::{RedisBackend, RedisStore};
#[cfg(feature = "config")]
use super::{RedisConfig, SharedConfig};

/// Opens the store of `url`, with a lease of 30 seconds. Call it within a tokio runtime, in which the store's tasks run
/// then.
///
/// - `redis://user:password@host:port/0`: one server, or a name that leads to the primary. It is resolved anew for each
///   connection.
/// - `redis+sentinel://user:password@host:port,host:port/name/0`: sentinels, and the name of the primary that they
///   watch. The user and the password are those of the primary.
/// - `redis+cluster://user:password@host:port,host:port`: nodes of a cluster. All rows of a namespace are in one slot.
///
/// `rediss` for `redis` asks for TLS, whose configuration no URL has: this function refuses it, and
/// [`RedisBackend::from_url`] takes it (feature `rustls`). The parameter `namespace` names the rows of this service; by
/// default it is `default`. The parameter `durability` says what a write has to reach before it is answered: `memory`,
/// `aof` (the default), `replicas:2` or `replicas:2:fsync`; see [`Durability`]. A database that can't be reached is
/// tried for 10 seconds. Settings of a file go through
/// `connect_with` (feature `config`), and all others through [`RedisBackend`] and
/// [`SharedStoreBuilder`](tower_idempotency_shared::SharedStoreBuilder).
///
/// # Errors
/// [`ConnectError::Open`] with a [`RedisError`], or with a
/// [`StoreError`](tower_idempotency::store::StoreError).
///
/// # Cancel safety
/// If the future is dropped, a session may have begun, which lapses.
pub async fn connect(url: &str) -> Result<RedisStore, ConnectError> {
    connected(async { RedisBackend::from_url(url)?.open().await }, RedisStore::builder()).await
}

/// Opens the store of `url` as [`connect`] does, with the sections `redis` and `shared` of a file.
///
/// # Errors
/// As of [`connect`]; also [`RedisError::Option`] if the builder refuses a value, or if the namespace is given in both.
///
/// # Cancel safety
/// As of [`connect`].
#[cfg(feature = "config")]
pub async fn connect_with(url: &str, redis: &RedisConfig, shared: &SharedConfig) -> Result<RedisStore, ConnectError> {
    let opened = async {
        let database = RedisBackend::from_url(url)?;
        if redis.namespace.is_some() && database.namespace != RedisBackendBuilder::NAMESPACE {
            return Err(RedisError::Option { option: "the namespace", reason: "given twice" });
        }
        redis.clone().apply(database)?.open().await
    };
    connected(opened, shared.clone().apply(RedisStore::builder())).await
}

impl RedisBackend {
    /// Connects as the URL says: see [`connect`].
    ///
    /// # Errors
    /// [`RedisError::Url`], [`RedisError::Parameter`] or [`RedisError::Option`] for a URL that can't be read.
    pub fn from_url(url: &str) -> Result<RedisBackendBuilder, RedisError> {
        let (scheme, rest) = url.split_once("://").ok_or(RedisError::Url)?;
        let (scheme, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match scheme {
            "redis" | "valkey" => Tls::Without,
            "rediss" | "valkeys" => Tls::Missing,
            _ => return Err(RedisError::Url),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        // The port where the URL names none.
        let port = if kind == "sentinel" { 26_379 } else { 6379 };
        let hosts: Vec<String> = hosts.split(',').map(|one| host(one, port)).collect::<Result<_, _>>()?;
        let (place, database) = match (kind, hosts.as_slice()) {
            ("", [only]) => (Place::Server(only.clone()), path),
            ("cluster", _) => (Place::Cluster(hosts), path),
            ("sentinel", _) => {
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                // It may be the end of a password whose characters are not encoded.
                if name.is_empty() || name.contains('@') {
                    return Err(RedisError::Url);
                }
                (Place::Sentinels { hosts, name: decoded(name)? }, database)
            }
            _ => return Err(RedisError::Url),
        };
        let login = login(user, database)?;
        if matches!(place, Place::Cluster(_)) && login.db() != 0 {
            let reason = "not 0, and a cluster has no other database";
            return Err(RedisError::Option { option: "the database's number", reason });
        }
        let mut builder = RedisBackendBuilder::new(place, login, tls);
        let mut seen = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            // A part of a password whose characters are not encoded may look like a parameter, and is not named.
            let unknown =
                || if query.contains('@') { RedisError::Url } else { RedisError::Parameter { name: name.to_owned() } };
            builder = match name {
                "namespace" | "durability" if seen.contains(&name) => {
                    return Err(RedisError::Option { option: "a parameter of the URL", reason: "given twice" });
                }
                "namespace" => builder.namespace(decoded(value)?)?,
                "durability" => builder.durability(Durability::read(&decoded(value)?).ok_or_else(unknown)?)?,
                _ => return Err(unknown()),
            };
            seen.push(name);
        }
        Ok(builder)
    }
}

/// A host with its port, or with this one. An address of IPv6 is in brackets.
fn host(text: &str, port: u16) -> Result<String, RedisError> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, given)) if !given.ends_with(']') => (name, given.parse::<u16>().map_err(|_| RedisError::Url)?),
        _ => (text, port),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    // A name is not decoded.
    if bare.unwrap_or(name).is_empty() || name.contains('%') || name.contains(':') != bare.is_some() {
        return Err(RedisError::Url);
    }
    Ok(format!("{name}:{port}"))
}

/// Reads who logs in, and to which database. Operators see the name of this package in the server's list of clients;
/// sentinels, to which no records go, have a login of their own.
fn login(user: &str, database: &str) -> Result<RedisConnectionInfo, RedisError> {
    // The client would read another password, or another path, out of these; and it takes a negative number of a
    // database, which the server then refuses at each connection.
    if user.contains(['@', '#', '\t', '\n', '\r']) || database.contains(['/', '#', '-']) {
        return Err(RedisError::Url);
    }
    let read: ConnectionInfo = format!("redis://{user}@h/{database}").parse().map_err(|_| RedisError::Url)?;
    Ok(read.redis_settings().clone().set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")))
}

fn decoded(text: &str) -> Result<String, RedisError> {
    Ok(percent_decode_str(text).decode_utf8().map_err(|_| RedisError::Url)?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::connect::Connector;

    fn builder(url: &str) -> Result<RedisBackendBuilder, RedisError> {
        RedisBackend::from_url(url)
    }

    fn at(host: &str) -> String {
        host.to_owned()
    }

    #[test]
    fn a_url_names_a_server_sentinels_or_a_cluster() {
        for (url, place, needs_tls) in [
            ("redis://localhost", Place::Server(at("localhost:6379")), false),
            ("valkeys://u:p@db.example:7000/3", Place::Server(at("db.example:7000")), true),
            ("redis://[::1]:7", Place::Server(at("[::1]:7")), false),
            (
                "rediss+sentinel://a,b:9/my%2Dprimary/2",
                Place::Sentinels { hosts: vec![at("a:26379"), at("b:9")], name: "my-primary".to_owned() },
                true,
            ),
            ("redis+cluster://:p@a:1,b:2", Place::Cluster(vec![at("a:1"), at("b:2")]), false),
        ] {
            let Connector { place: read, tls, .. } = builder(url).unwrap().connector;
            assert_eq!((read, matches!(tls, Tls::Missing)), (place, needs_tls), "{url}");
        }
    }

    #[test]
    fn a_url_has_a_login_a_namespace_and_a_durability() {
        let set = builder("redis://us%40er:p%3Aw@h/4?namespace=pay%20ments&durability=replicas:2:fsync").unwrap();
        let login = &set.connector.login;
        assert_eq!((login.username(), login.password(), login.db()), (Some("us@er"), Some("p:w"), 4));
        assert_eq!(set.namespace, "pay ments");
        assert_eq!(set.durability, Durability::Replicas { count: 2, fsync: true });
        let bare = builder("redis://h").unwrap();
        assert_eq!((bare.namespace.as_str(), bare.durability), ("default", Durability::LocalAof));
    }

    #[test]
    fn what_can_t_be_read_is_refused_and_no_password_is_shown() {
        let secret = "s3cr3t";
        for url in [
            format!("postgres://u:{secret}@h"),
            format!("redis+raft://u:{secret}@h"),
            format!("redis://u:x@{secret}@h"),
            format!("redis://u:x/{secret}@h"),
            format!("redis://u:7#{secret}@h"),
            format!("redis+sentinel://u:x/{secret}@h/m"),
            format!("redis://u:x?{secret}=1@h"),
            format!("redis://u:{secret}@h:port"),
            format!("redis://u:{secret}@h/-1"),
            format!("redis://u:{secret}@::1"),
            format!("redis://u:{secret}@[]:1"),
            format!("redis://u:{secret}@a,b"),
            format!("redis+sentinel://u:{secret}@a"),
            format!("redis+cluster://u:{secret}@a/1"),
            format!("redis://u:{secret}@h?durability=disk"),
            format!("redis://u:{secret}@h?namespace=a&namespace=b"),
            format!("redis://u:{secret}@h?namespace=a%7D"),
        ] {
            let error = builder(&url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(secret), "{url}: {error:?}");
        }
        let fine = builder(&format!("redis://u:{secret}@h")).unwrap();
        assert!(!format!("{fine:?}").contains(secret));
    }
}
