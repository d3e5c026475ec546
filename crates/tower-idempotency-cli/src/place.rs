//! Which store a command is for.

mod redis;

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tower_idempotency_postgres::tokio_postgres::config::Host;
use tower_idempotency_postgres::{PostgresBackend, PostgresBackendBuilder};

pub(crate) use self::redis::RedisDatabase;
use crate::failure::Failure;

/// The variables of the environment that name a store, and have a password.
const STORE: &str = "IDEM_STORE";
const PASSWORD: &str = "PGPASSWORD";

/// The namespace of a URL that names none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// A store's place.
pub(crate) enum Place {
    /// The directory of an embedded store.
    Directory(Directory),
    /// A PostgreSQL database.
    Postgres(Box<Database>),
    /// A Redis or Valkey database.
    Redis(Box<RedisDatabase>),
}

/// The directory of an embedded store.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// `None`: the one that made it.
    pub(crate) engine: Option<Engine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sled,
    Fjall,
}

/// A PostgreSQL database, and whose rows in it are meant.
pub(crate) struct Database {
    /// How it is reached, with the password.
    pub(crate) builder: PostgresBackendBuilder,
    /// `None`: the store's default.
    pub(crate) namespace: Option<String>,
}

impl Place {
    /// Returns the place that the command line names, or the environment.
    pub(crate) fn of(argument: Option<String>) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match argument {
            Some(named) => Self::read(&named, true, variable),
            None => match variable(STORE) {
                Some(named) => Self::read(&named, false, variable),
                None => Err(Failure::Usage(format!("name a store, or set {STORE}"))),
            },
        }
    }

    /// Reads a store's name. No error repeats it: it may have a password.
    fn read(named: &str, is_argument: bool, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        if named.starts_with("postgres://") || named.starts_with("postgresql://") {
            let database = Database::read(named, is_argument, variable(PASSWORD))?;
            return Ok(Self::Postgres(Box::new(database)));
        }
        if redis::is_redis(named) {
            let database = RedisDatabase::read(named, is_argument, variable(redis::PASSWORD))?;
            return Ok(Self::Redis(Box::new(database)));
        }
        let (engine, path) = match named.split_once(':') {
            Some(("sled", path)) => (Some(Engine::Sled), path),
            Some(("fjall", path)) => (Some(Engine::Fjall), path),
            _ => (None, named),
        };
        // The first part of a path after `//` would be a host.
        if path.is_empty() || path.starts_with("//") || engine.is_none() && is_of_another_kind(path) {
            return Err(Failure::Usage(
                "the store is none that is known; expected sled:PATH, fjall:PATH, a path, postgres://USER@HOST/DATABASE, or \
                 redis://USER@HOST. For a directory with such a name, write ./ before it"
                    .to_owned(),
            ));
        }
        Ok(Self::Directory(Directory { path: path.into(), engine }))
    }
}

/// Returns whether a name is that of a store of another kind, such as `mysql://host`, `sqlite:x` or `memory`, of which
/// no directory is to be made. A drive of Windows has one letter.
fn is_of_another_kind(named: &str) -> bool {
    let scheme = named.split_once(':').map(|(scheme, _)| scheme);
    named == "memory"
        || scheme.is_some_and(|scheme| scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

impl Database {
    fn read(url: &str, is_argument: bool, password: Option<String>) -> Result<Self, Failure> {
        let (url, namespace) = without_namespace(url)?;
        let mut builder = PostgresBackend::from_url(&url).map_err(|error| Failure::Usage(error.to_string()))?;
        let has_password = builder.config().get_password().is_some();
        if is_argument && has_password {
            return Err(Failure::Usage(format!(
                "a password on the command line is seen by every user of this machine, and kept by shells; change it. Set \
                 {STORE} to the URL, or {PASSWORD} to the password"
            )));
        }
        if let Some(password) = password.filter(|_| !has_password) {
            builder = builder.password(password);
        }
        Ok(Self { builder, namespace })
    }

    /// Returns whether the database is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        let is_local = |host: &Host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            #[cfg(unix)]
            Host::Unix(_) => true,
        };
        self.builder.config().get_hosts().iter().all(is_local)
    }
}

/// Takes the parameter `namespace`, which is no parameter of the database's, out of a URL.
fn without_namespace(url: &str) -> Result<(String, Option<String>), Failure> {
    let Some((address, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let (namespaces, others): (Vec<_>, Vec<_>) = parameters.partition(|parameter| parameter.starts_with("namespace="));
    let namespace = match namespaces.as_slice() {
        [] => None,
        [namespace] => {
            let encoded = namespace.strip_prefix("namespace=").unwrap_or_default();
            let decoded = percent_decode_str(encoded).decode_utf8();
            Some(decoded.map_err(|_| Failure::Usage("the namespace is no text".to_owned()))?.into_owned())
        }
        _ => return Err(Failure::Usage("the namespace is given twice".to_owned())),
    };
    let url = if others.is_empty() { address.to_owned() } else { format!("{address}?{}", others.join("&")) };
    Ok((url, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cr3t";

    fn read(named: &str, is_argument: bool, password: Option<&str>) -> Result<Place, Failure> {
        Place::read(named, is_argument, |name| password.filter(|_| name == PASSWORD).map(str::to_owned))
    }

    fn database(place: Result<Place, Failure>) -> Database {
        match place {
            Ok(Place::Postgres(database)) => *database,
            Ok(_) => panic!("it is another store"),
            Err(failure) => panic!("{failure}"),
        }
    }

    #[test]
    fn a_password_on_the_command_line_is_refused_and_not_repeated() {
        for url in [format!("postgres://u:{SECRET}@h/d"), format!("postgres://u@h/d?password={SECRET}&namespace=n")] {
            let Err(failure @ Failure::Usage(_)) = read(&url, true, None) else { panic!("{url}") };
            assert!(!failure.to_string().contains(SECRET), "{failure}");
            assert!(database(read(&url, false, None)).builder.config().get_password().is_some());
        }
        for url in [
            format!("postgres://u:x@{SECRET}@h/d"),
            format!("postgres://u:{SECRET}@h:port/d"),
            format!("mysql://{SECRET}"),
        ] {
            let Err(failure @ Failure::Usage(_)) = read(&url, true, None) else { panic!("{url}") };
            assert!(!failure.to_string().contains(SECRET), "{failure}");
        }
    }

    #[test]
    fn a_password_may_come_from_a_variable() {
        let taken = database(read("postgres://u@h/d", true, Some(SECRET)));
        assert_eq!(taken.builder.config().get_password(), Some(SECRET.as_bytes()));
        let own = database(read("postgres://u:own@h/d", false, Some(SECRET)));
        assert_eq!(own.builder.config().get_password(), Some(b"own".as_slice()));
    }

    #[test]
    fn a_namespace_is_a_parameter_of_the_url() {
        let named = database(read("postgres://u@h/d?sslmode=disable&namespace=a%26b", true, None));
        assert_eq!((named.namespace.as_deref(), named.builder.is_mode_open()), (Some("a&b"), false));
        let plain = database(read("postgres://u@localhost,127.0.0.1/d", true, None));
        assert!(plain.namespace.is_none() && plain.builder.is_mode_open() && plain.is_local());
        assert!(!named.is_local());
        assert!(read("postgres://u@h/d?namespace=a&namespace=b", true, None).is_err());
    }

    #[test]
    fn a_directory_is_named_with_its_engine_or_without() {
        for (named, path, engine) in [
            ("sled:payments.db", "payments.db", Some(Engine::Sled)),
            ("fjall:payments.db", "payments.db", Some(Engine::Fjall)),
            ("./a:b", "./a:b", None),
            ("/var/lib/p", "/var/lib/p", None),
            ("payments.db", "payments.db", None),
            ("./memory", "./memory", None),
            (r"C:\payments.db", r"C:\payments.db", None),
            ("sled:redis:h", "redis:h", Some(Engine::Sled)),
        ] {
            let Ok(Place::Directory(found)) = read(named, true, None) else { panic!("{named}") };
            assert_eq!((found.path.to_str(), found.engine), (Some(path), engine));
        }
        for wrong in [
            "", "sled:", "sled://host/p", "fjall:", "fjall://host/p", "redis:h", "mysql://h", "sqlite:x", "memory",
            "memory:",
        ] {
            assert!(matches!(read(wrong, true, None), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
